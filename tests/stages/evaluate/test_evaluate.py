"""The whole stage on tiny random models, in this process."""

import json
import math
from pathlib import Path

import pytest
import torch
from transformers import LlamaForSequenceClassification

from stages.core.artifacts import make_artifact
from stages.core.config import Compute, EvaluateConfig
from stages.core.contracts import Datasets, EvaluateInputs
from stages.core.errors import UserError
from stages.core.models import load_model, load_tokenizer, save_model
from stages.evaluate import load_scorers, run

COMPUTE = Compute(device="cpu", micro_batch_size=4)
CONFIG = EvaluateConfig(
    scorers={"brevity": "brevity.py:score"},
    num_prompts=6,
    num_references=2,
    max_completion_length=6,
    num_bootstrap_samples=50,
    num_samples_shown=2,
)


@pytest.fixture(scope="module")
def finished(
    inputs: EvaluateInputs, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str, dict[str, float]]:
    out_dir = tmp_path_factory.mktemp("out")
    outputs, metrics = run(CONFIG, inputs, COMPUTE, out_dir)
    assert outputs.report.locate() == out_dir / "report"
    return out_dir / "report", outputs.report.digest, metrics


def test_report_folder_is_complete(finished: tuple[Path, str, dict[str, float]]) -> None:
    folder, _, metrics = finished
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*")) == [
        "metrics.json",
        *(f"plots/{name}.png" for name in (
            "reply_lengths", "score_distributions", "scores", "training_curve", "win_rates"
        )),
        "replies.jsonl", "report.html", "report.md",
    ]  # fmt: skip
    assert json.loads((folder / "metrics.json").read_text()) == metrics
    assert all(map(math.isfinite, metrics.values()))


def test_metrics_agree_with_the_replies(finished: tuple[Path, str, dict[str, float]]) -> None:
    folder, _, metrics = finished
    rows = [json.loads(line) for line in (folder / "replies.jsonl").read_text().splitlines()]
    assert 5 <= len(rows) <= 6  # a prompt that does not fit the model may be among the chosen
    for name in ("base", "sft", "policy"):
        replies = [row[name] for row in rows]
        mean_length = sum(reply["length"] for reply in replies) / len(rows)
        assert metrics[f"length_{name}"] == pytest.approx(mean_length)
        assert metrics[f"brevity_{name}"] == pytest.approx(
            sum(-len(reply["reply"]) for reply in replies) / len(rows)
        )
        assert metrics[f"kl_{name}"] == pytest.approx(
            sum(reply["kl"] for reply in replies) / len(rows)
        )
        assert metrics[f"score_normalized_{name}"] == pytest.approx(
            (metrics[f"score_{name}"] - 0.1) / 0.5
        )
    assert metrics["kl_sft"] == 0
    assert metrics["kl_policy"] != 0
    assert metrics["score_policy_minus_sft"] == pytest.approx(
        metrics["score_policy"] - metrics["score_sft"]
    )
    assert metrics["win_rate_policy_vs_sft_ties"] < 1
    assert 0 <= metrics["reference_rouge_l_policy"] <= 1


def test_losses_agree_with_a_plain_forward_pass(
    inputs: EvaluateInputs, finished: tuple[Path, str, dict[str, float]]
) -> None:
    _, _, metrics = finished
    tokenizer = load_tokenizer(inputs.sft.locate())
    model = load_model(inputs.policy.locate(), torch.device("cpu"))
    text = "<|user|>Hi<|assistant|>"
    prompt = tokenizer(text, add_special_tokens=False)["input_ids"]
    completion = tokenizer("Yes<|end|>", add_special_tokens=False)["input_ids"]
    ids = torch.tensor([prompt + completion])
    labels = ids.clone()
    labels[:, : len(prompt)] = -100
    assert metrics["sft_loss_policy"] == pytest.approx(
        model(input_ids=ids, labels=labels).loss.item(), rel=1e-4
    )
    # 200 bytes: one token each, in chunks of the model's 64 positions that overlap by one token.
    body = [tokenizer.bos_token_id, *tokenizer("é" * 100, add_special_tokens=False)["input_ids"]]
    chunks = [torch.tensor([body[start : start + 64]]) for start in range(0, 200, 63)]
    nats = sum(model(input_ids=c, labels=c).loss.item() * (c.shape[1] - 1) for c in chunks)
    assert metrics["bits_per_byte_policy"] == pytest.approx(nats / math.log(2) / 200, rel=1e-4)


@pytest.mark.slow
def test_second_run_gives_the_same_digest(
    inputs: EvaluateInputs, finished: tuple[Path, str, dict[str, float]], tmp_path: Path
) -> None:
    (tmp_path / "report" / "plots").mkdir(parents=True)
    (tmp_path / "report" / "plots" / "left_behind.png").write_bytes(b"by a killed process")
    outputs, metrics = run(CONFIG, inputs, COMPUTE, tmp_path)
    assert (outputs.report.digest, metrics) == finished[1:]


@pytest.mark.slow
def test_without_optional_data(inputs: EvaluateInputs, tmp_path: Path) -> None:
    lean = inputs.model_copy(
        update={"datasets": Datasets(prompts=inputs.datasets.prompts), "scorers": {}}
    )
    config = EvaluateConfig.model_validate(CONFIG.model_dump() | {"scorers": {}})
    _, metrics = run(config, lean, COMPUTE, tmp_path)
    assert "reward_model_accuracy" not in metrics
    assert "bits_per_byte_policy" not in metrics


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("raise KeyError('paris')", "KeyError"),
        ("return [1.0]", "one finite number"),
        ("return [float('nan') for _ in prompts]", "one finite number"),
    ],
)
def test_failing_scorer_is_named(
    inputs: EvaluateInputs, tmp_path: Path, body: str, message: str
) -> None:
    path = tmp_path / "brevity.py"
    path.write_text(f"def score(prompts, completions):\n    {body}\n")
    broken = inputs.model_copy(update={"scorers": {"brevity": make_artifact("scorer", path)}})
    with pytest.raises(UserError, match=rf"brevity\.py:score.*{message}"):
        run(CONFIG, broken, COMPUTE, tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "place", "message"),
    [
        ("kl", "brevity.py:score", "another name"),
        ("my scorer", "brevity.py:score", "another name"),
        ("brevity", "brevity.py:nothing", "nothing"),
    ],
)
def test_unusable_scorer_setting(
    inputs: EvaluateInputs, tmp_path: Path, name: str, place: str, message: str
) -> None:
    config = EvaluateConfig.model_validate(CONFIG.model_dump() | {"scorers": {name: place}})
    with pytest.raises(UserError, match=message):
        run(config, inputs, COMPUTE, tmp_path)


def test_the_label_of_a_classifier_scores_replies(inputs: EvaluateInputs, tmp_path: Path) -> None:
    base = load_model(inputs.base.locate(), torch.device("cpu"))
    model = LlamaForSequenceClassification(base.config)
    model.config.id2label = {0: "civil", 1: "rude"}
    save_model(model, load_tokenizer(inputs.base.locate()), tmp_path / "classifier")
    config = EvaluateConfig(scorers={"rude": "classifier:rude", "civil": "classifier:-rude"})
    classifier = make_artifact("classifier", tmp_path / "classifier")
    given = inputs.model_copy(update={"scorers": dict.fromkeys(config.scorers, classifier)})
    scorers = load_scorers(config, given, COMPUTE)
    rude = scorers["rude"](["Why?", "Why?"], ["Go away!", "Because."])
    civil = scorers["civil"](["Why?", "Why?"], ["Go away!", "Because."])
    assert rude == [-score for score in civil]
    assert rude[0] != rude[1]


def test_no_held_out_prompts(inputs: EvaluateInputs, tmp_path: Path) -> None:
    empty = inputs.model_copy(update={"datasets": Datasets()})
    with pytest.raises(UserError, match=r"no held-out prompts.*collect\.prompts"):
        run(CONFIG, empty, COMPUTE, tmp_path)


def test_only_over_long_prompts(inputs: EvaluateInputs, tmp_path: Path) -> None:
    config = EvaluateConfig.model_validate(CONFIG.model_dump() | {"max_completion_length": 60})
    with pytest.raises(UserError, match=r"none of 6 held-out prompts leaves room"):
        run(config, inputs, COMPUTE, tmp_path)
