"""The scores of a rollout: which scorers give them, and what is optimised."""

import pytest
import torch

from stages.core.artifacts import make_artifact
from stages.core.config import PPOConfig
from stages.core.contracts import PPOInputs
from stages.core.errors import UserError
from stages.core.models import load_tokenizer
from stages.core.scoring import load_reward_model
from stages.ppo.scores import load_scorers, weighted_sum

CPU = torch.device("cpu")
PROMPTS, REPLIES = ["Where is house 1?", "And that?"], ["In Mill Street.", "Nobody knows."]


@pytest.fixture
def load(tiny_model_folder, reward_model_folder, make_dataset, tmp_path):
    """A function (``PPOConfig``'s settings) that loads the scorers: ``length`` is a function,
    ``other`` a folder."""
    path = tmp_path / "length.py"
    path.write_text("def score(prompts, completions):\n    return [len(c) for c in completions]\n")
    artifacts = {
        "length": make_artifact("scorer", path),
        "other": make_artifact("scorer", reward_model_folder),
    }
    reward_model = load_reward_model(reward_model_folder, tiny_model_folder, CPU)

    def load(**settings):
        config = PPOConfig.model_validate(settings)
        inputs = PPOInputs(
            model=make_artifact("model", tiny_model_folder),
            reward_model=make_artifact("reward_model", reward_model_folder),
            prompts=make_dataset("prompts", [], []),
            scorers={name: artifacts.get(name, artifacts["length"]) for name in config.scorers},
        )
        tokenizer = load_tokenizer(tiny_model_folder)
        return reward_model, load_scorers(config, inputs, reward_model, CPU, tokenizer)

    return load


SCORERS = {"length": "length.py:score", "other": "some/folder"}


@pytest.mark.parametrize("normalize", [True, False])
def test_the_chains_reward_model_and_the_named_scorers_are_loaded(load, normalize):
    reward_model, scorers = load(scorers=SCORERS, normalize_scores=normalize)
    assert list(scorers) == ["reward_model", "length", "other"]
    expected = reward_model.score(PROMPTS, REPLIES)
    expected = reward_model.normalized(expected) if normalize else expected
    assert scorers["reward_model"](PROMPTS, REPLIES) == pytest.approx(expected, abs=1e-5)
    assert scorers["other"](PROMPTS, REPLIES) == pytest.approx(expected, abs=1e-5)
    assert scorers["length"](PROMPTS, REPLIES) == [15.0, 13.0]


def test_names_that_metrics_cannot_carry_are_refused(load):
    with pytest.raises(UserError) as refusal:
        load(scorers={"my scorer": "length.py:score"})
    assert str(refusal.value) == (
        "ppo.scorers.my scorer: choose another name, of letters, digits and underscores"
    )


def test_a_reward_model_that_gives_nan_is_refused_with_the_prompt(load):
    reward_model, scorers = load()
    torch.nn.init.constant_(reward_model.head.weight, float("nan"))
    with pytest.raises(UserError) as refusal:
        scorers["reward_model"](PROMPTS, REPLIES)
    assert str(refusal.value) == (
        "scorer reward_model: returned nan for the reply to 'Where is house 1?'; it must return "
        "one finite number for each; mend it, then the same command continues the run"
    )


def test_a_broken_folder_is_named_as_the_user_named_it(load, reward_model_folder, monkeypatch):
    monkeypatch.setattr("stages.core.scorers.scorer_folder_kind", lambda folder: 1 / 0)
    with pytest.raises(UserError) as refusal:
        load(scorers={"other": "some/folder"})
    assert str(refusal.value) == "scorer some/folder: ZeroDivisionError: division by zero"


def test_scores_are_summed_with_their_weights():
    scores = {"reward_model": [1.0, 2.0], "length": [10.0, -10.0], "watched": [5.0, 5.0]}
    assert weighted_sum(scores, {"reward_model": 1.0}) == [1.0, 2.0]
    assert weighted_sum(scores, {"reward_model": 0.5, "length": -0.1}) == [-0.5, 2.0]
    assert weighted_sum(scores, {"length": 1.0, "watched": 0.0}) == [10.0, -10.0]
    # A scorer that was not called this time may be missing only without a weight.
    assert weighted_sum({"length": [1.0]}, {"length": 1.0, "watched": 0.0}) == [1.0]
    with pytest.raises(KeyError):
        weighted_sum({"length": [1.0]}, {"length": 1.0, "watched": 1.0})
