"""The whole stage on a tiny reward model, in this process."""

import json
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from stages.core.artifacts import Artifact, make_artifact
from stages.core.config import Compute, RewardModelCardConfig
from stages.core.contracts import RewardModelCardInputs
from stages.core.errors import UserError
from stages.core.launch import stage_key
from stages.reward_model_card import pairs, run

pytestmark = pytest.mark.slow
COMPUTE = Compute(device="cpu")
CONFIG = RewardModelCardConfig(num_bootstrap_samples=100, num_worst_pairs=4)
LONG = "so long " * 100
Inputs = Callable[..., RewardModelCardInputs]


def pair(number: int, chosen: str = "In Mill Street.", rejected: str = "Go away now.") -> Any:
    return {"prompt": f"Where is house {number}?", "chosen": chosen, "rejected": rejected}


@pytest.fixture
def inputs(
    reward_model_folder: Path,
    tiny_model_folder: Path,
    make_dataset: Callable[..., Artifact],
) -> Inputs:
    """A function (held-out rows, guard=) that makes inputs with 20 training pairs."""

    def make(held_out: Sequence[Any], guard: bool = False) -> RewardModelCardInputs:
        reward_model = make_artifact("reward_model", reward_model_folder)
        return RewardModelCardInputs(
            model=make_artifact("model", tiny_model_folder),
            reward_model=reward_model,
            preferences=make_dataset("preferences", [pair(n) for n in range(20)], held_out),
            guard_model=reward_model if guard else None,
        )

    return make


def test_a_card_of_pairs_that_the_model_was_trained_for(inputs: Inputs, tmp_path: Path) -> None:
    held_out = [pair(n) for n in range(100, 130)]
    held_out[0] = pair(100, "Go away now.", "In Mill Street.")
    outputs, metrics = run(CONFIG, inputs(held_out, guard=True), COMPUTE, tmp_path)
    assert metrics["reward_model_accuracy"] == metrics["bag_of_words_accuracy"] == 29 / 30
    assert metrics["guard_agreement"] == 1.0  # with itself
    assert metrics["reward_model_accuracy_low"] > 0.5
    folder = outputs.card.locate()
    card = json.loads((folder / "card.json").read_text())
    assert card["num_pairs"] == metrics["num_pairs"] == 30
    assert [wrong["prompt"] for wrong in card["worst_pairs"]] == ["Where is house 100?"]
    for plot in card["plots"]:
        assert (folder / "plots" / f"{plot['name']}.png").is_file()
        assert f"plots/{plot['name']}.png" in (folder / "card.md").read_text()
    for row in card["rows"]:
        assert metrics[row["name"]] == row["value"]


def test_the_card_is_equal_run_by_run(inputs: Inputs, tmp_path: Path) -> None:
    given = inputs([pair(n) for n in range(100, 115)])
    cards = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        outputs, _ = run(CONFIG, given, COMPUTE, tmp_path / name)
        cards.append(outputs.card.digest)
    assert cards[0] == cards[1]


def test_labels_that_mean_nothing_do_not_pass_the_gate(inputs: Inputs, tmp_path: Path) -> None:
    swapped = [
        pair(n) if n % 2 else pair(n, "Go away now.", "In Mill Street.") for n in range(100, 140)
    ]
    outputs, metrics = run(CONFIG, inputs(swapped), COMPUTE, tmp_path)
    assert metrics["reward_model_accuracy"] == 0.5
    card = json.loads((outputs.card.locate() / "card.json").read_text())
    assert len(card["refusals"]) == 2
    assert "does not pass" in (outputs.card.locate() / "card.md").read_text()


def test_the_champions_reward_model_is_tested_on_the_same_pairs(
    inputs: Inputs, tmp_path: Path
) -> None:
    held_out = [{**pair(n), "source": f"feedback:{'ai' if n % 2 else 'human'}"} for n in range(8)]
    given = inputs(held_out)
    previous = given.model_copy(update={"previous": given.reward_model})
    outputs, metrics = run(CONFIG, previous, COMPUTE, tmp_path)
    assert metrics["previous_accuracy"] == metrics["reward_model_accuracy"]
    assert metrics["reward_model_minus_previous"] == 0
    assert metrics["num_pairs/feedback_human"] == metrics["num_pairs/feedback_ai"] == 4
    assert metrics["previous_accuracy/feedback_ai"] == metrics["accuracy/feedback_ai"]
    assert "| people | 4 |" in (outputs.card.locate() / "card.md").read_text()


def test_a_champion_that_cannot_be_compared_costs_the_card_nothing(
    inputs: Inputs, reward_model_folder: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(reward_model_folder, other)
    manifest = json.loads((other / "reward_model.json").read_text())
    (other / "reward_model.json").write_text(json.dumps(manifest | {"base_digest": "0" * 64}))
    given = inputs([pair(n) for n in range(4)])
    for folder, reason in (
        (other, "it belongs to another SFT model"),
        (given.model.locate(), "not a reward model of this pipeline"),
    ):
        previous = {"previous": make_artifact("reward_model", folder)}
        outputs, metrics = run(CONFIG, given.model_copy(update=previous), COMPUTE, tmp_path)
        assert "previous_accuracy" not in metrics
        assert reason in (outputs.card.locate() / "card.md").read_text()


def test_the_key_without_a_champion_is_the_one_of_before(inputs: Inputs) -> None:
    given = inputs([pair(1)])
    assert "previous" not in given.model_dump()
    with_previous = given.model_copy(update={"previous": given.reward_model})
    assert stage_key(CONFIG, given) != stage_key(CONFIG, with_previous)
    assert RewardModelCardInputs.model_validate(given.model_dump()) == given


def test_one_pair_makes_a_card(inputs: Inputs, tmp_path: Path) -> None:
    outputs, metrics = run(CONFIG, inputs([pair(100)]), COMPUTE, tmp_path)
    assert all(math.isfinite(value) for value in metrics.values())
    assert "too few to be grouped" in (outputs.card.locate() / "card.md").read_text()


def test_pairs_longer_than_the_model_are_left_out_and_counted(
    inputs: Inputs, tmp_path: Path
) -> None:
    given = inputs([pair(100), pair(101, chosen=LONG), pair(102)])
    outputs, metrics = run(CONFIG, given, COMPUTE, tmp_path)
    assert (metrics["num_pairs"], metrics["over_length"]) == (2, 1)
    assert "1 held-out pairs with a side above the 96 tokens" in (
        outputs.card.locate() / "card.md"
    ).read_text().replace("&#45;", "-")


@pytest.mark.parametrize(
    ("held_out", "message"),
    [
        ([], "no held-out pairs to test the reward model on; give collect.preferences.held_out"),
        ([pair(1, chosen=LONG)], "all 1 held-out pairs are longer than .* 96 tokens; raise"),
    ],
)
def test_without_usable_pairs_the_stage_says_what_to_do(
    held_out: list[Any], message: str, inputs: Inputs, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        run(CONFIG, inputs(held_out), COMPUTE, tmp_path)


def test_a_model_that_always_says_the_same_gets_a_card(
    inputs: Inputs, reward_model_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "indifferent"
    shutil.copytree(reward_model_folder, folder)
    state = load_file(folder / "adapter_model.safetensors")
    (head,) = (name for name in state if name.endswith("score.weight"))
    save_file(state | {head: torch.zeros_like(state[head])}, folder / "adapter_model.safetensors")
    manifest = json.loads((folder / "reward_model.json").read_text())
    for probe in manifest["probes"]:
        probe["score"] = 0.0
    (folder / "reward_model.json").write_text(json.dumps(manifest))
    given = inputs([pair(n) for n in range(20)]).model_dump()
    given["reward_model"] = make_artifact("reward_model", folder)
    outputs, metrics = run(CONFIG, RewardModelCardInputs.model_validate(given), COMPUTE, tmp_path)
    assert metrics["reward_model_accuracy"] == 0.5
    assert "score_length_correlation" not in metrics
    text = (outputs.card.locate() / "card.md").read_text()
    assert "gives both replies of every pair the same score" in text


def test_scores_that_are_no_numbers_are_refused() -> None:
    class Broken:
        """A model that has no score for some texts, which its probes are not among."""

        def score(self, prompts: list[str], completions: list[str]) -> list[float]:
            return [math.nan] * len(prompts)

    with pytest.raises(UserError, match="reward model gives scores that are no numbers"):
        pairs._side_scores(Broken(), [pair(1)], "chosen", "reward model")
