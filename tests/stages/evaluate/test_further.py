"""Everything that a run may have beside its three models; and that what fails takes nothing else
with it."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from peft import get_peft_model
from transformers import LlamaForSequenceClassification

from stages.core.artifacts import Artifact, make_artifact
from stages.core.config import Compute, EvaluateConfig, LoRAConfig
from stages.core.contracts import EvaluateInputs
from stages.core.errors import UserError
from stages.core.judge import Judgements, chat_endpoint
from stages.core.models import load_model, load_tokenizer, peft_config, save_adapter, save_model
from stages.core.personal_data import digest, find
from stages.core.schemas import write_jsonl
from stages.evaluate import run
from stages.evaluate.further import _judged

pytestmark = pytest.mark.slow

COMPUTE = Compute(device="cpu", micro_batch_size=4)
SETTINGS = {
    "num_prompts": 6, "num_references": 2, "max_completion_length": 6,
    "num_bootstrap_samples": 50, "num_samples_shown": 2,
}  # fmt: skip
Result = tuple[dict[str, float], str]


@pytest.fixture
def evaluate(inputs: EvaluateInputs, tmp_path: Path) -> Callable[..., Result]:
    """A function (settings, further inputs) that runs the stage without the user's scorer and
    returns metrics and report.md."""

    def call(settings: dict[str, object] | None = None, **further: object) -> Result:
        config = EvaluateConfig.model_validate(SETTINGS | (settings or {}))
        given = inputs.model_copy(update={"scorers": {}, **further})
        out_dir = tmp_path / "out"
        out_dir.mkdir()
        _, metrics = run(config, given, COMPUTE, out_dir)
        return metrics, (out_dir / "report" / "report.md").read_text(encoding="utf-8")

    return call


@pytest.fixture
def classifier(inputs: EvaluateInputs, tmp_path: Path) -> Artifact:
    """A random one with the labels civil and toxic."""
    base = load_model(inputs.base.locate(), torch.device("cpu"))
    torch.manual_seed(0)
    model = LlamaForSequenceClassification(base.config)
    model.config.id2label = {0: "civil", 1: "toxic"}
    save_model(model, load_tokenizer(inputs.base.locate()), tmp_path / "classifier")
    return make_artifact("classifier", tmp_path / "classifier")


@pytest.fixture
def prompt_file(tmp_path: Path) -> Artifact:
    write_jsonl(tmp_path / "prompts.jsonl", [{"prompt": f"People {n} are"} for n in range(4)])
    return make_artifact("source", tmp_path / "prompts.jsonl")


@pytest.fixture
def judge_url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A judge that always prefers reply A, so that every pair is a tie."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            message = {"role": "assistant", "content": "A reads well.\n[[A]]"}
            usage = {"prompt_tokens": 100, "completion_tokens": 10}
            choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
            body = json.dumps({"choices": choices, "usage": usage}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    monkeypatch.setenv("RLHF_JUDGE_API_KEY", "sk-test")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def refused_prompts(tmp_path: Path) -> Artifact:
    """A file in which no record has a prompt."""
    (tmp_path / "questions.jsonl").write_text('{"question": "?"}\n', encoding="utf-8")
    return make_artifact("source", tmp_path / "questions.jsonl")


def test_everything_is_measured(
    evaluate, inputs: EvaluateInputs, make_model, make_reward_model, classifier: Artifact,
    prompt_file: Artifact, judge_url: str, tmp_path: Path,
) -> None:  # fmt: skip
    (found,) = find("Write to ann@example.com")
    (tmp_path / "digests.txt").write_text(digest(found) + "\n", encoding="utf-8")
    personal_data = make_artifact("personal_data", tmp_path / "digests.txt")
    judge = {"url": judge_url, "model": "tiny", "num_prompts": 4,
             "dollars_per_million_input_tokens": 10.0}  # fmt: skip
    metrics, report = evaluate(
        {"judge": judge},
        champion=make_model(tmp_path / "champion", 7),
        guard_model=make_reward_model(tmp_path / "guard", inputs.sft, seed=11),
        classifier=classifier,
        toxicity_prompts=(prompt_file,),
        refusal_prompts=(prompt_file,),
        datasets=inputs.datasets.model_copy(update={"personal_data": personal_data}),
    )
    assert not [line for line in report.splitlines() if "Not measured: " in line]
    models = {"base", "sft", "policy", "champion"}
    for name in ("score", "guard_model", "kl", "toxic_share", "prompted_toxic_share",
                 "refusal_rate", "leaks", "reference_rouge_l"):  # fmt: skip
        assert {f"{name}_{model}" for model in models} <= metrics.keys()
    assert metrics["guard_model_policy"] != metrics["score_policy"]
    assert metrics["leaks_policy"] == 0
    for other in ("sft", "champion"):
        assert f"guard_model_policy_minus_{other}_high" in metrics
        assert f"toxic_share_policy_minus_{other}_low" in metrics
        # Whichever reply stands first is preferred: contradictions, so ties.
        assert metrics[f"judge_win_rate_policy_vs_{other}"] == 0.5
        assert metrics[f"judge_win_rate_policy_vs_{other}_ties"] == 1
    assert metrics["judge_dollars"] > 0
    for words in (
        "Four models answered", "Win rate over the champion", "by the judge, 4 prompts",
        "The judge on policy and SFT:", "## Safety", "4 replies each",
    ):  # fmt: skip
        assert words in report, words


def test_what_fails_takes_nothing_with_it(
    evaluate, inputs: EvaluateInputs, make_model, make_reward_model, classifier: Artifact,
    refused_prompts: Artifact, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.setattr(chat_endpoint, "BACKOFF_SECONDS", 0.01)
    monkeypatch.setenv("RLHF_JUDGE_API_KEY", "sk-test")
    template = "{% for message in messages %}{{ message.content }}{% endfor %}"
    for name in ("card", "benchmarks"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.json").write_text("{", encoding="utf-8")
    metrics, report = evaluate(
        {
            "safety": {"toxic_label": "rude"},
            "judge": {"url": "http://127.0.0.1:9/v1", "model": "tiny"},
        },
        champion=make_model(tmp_path / "champion", 7, chat_template=template),
        guard_model=make_reward_model(tmp_path / "guard", inputs.base, seed=11),
        classifier=classifier,
        refusal_prompts=(refused_prompts,),
        reward_model_card=make_artifact("card", tmp_path / "card"),
        benchmarks=make_artifact("benchmarks", tmp_path / "benchmarks"),
    )
    assert "win_rate_policy_vs_sft" in metrics
    beginnings = ("judge", "toxic_share", "guard_model", "refusal", "benchmark")
    assert metrics.pop("champion_compared") == 0.0
    assert not any(name.startswith(beginnings) or "champion" in name for name in metrics)
    for words in (
        "not compared, the champion has another tokenizer or chat template",
        "Not measured: comparison with the champion.",
        "Not measured: scores of the guard model.",
        "its labels are civil, toxic",
        "Not measured: refusals.",
        "Not measured: judge compares policy and sft.",
        "run the stage reward&#95;model&#95;card again",
        "run the stage benchmarks again",
    ):
        assert words in report, words


@pytest.mark.parametrize("kind", ["adapter", "damaged", "policy", "off"])
def test_champions_of_all_kinds(
    evaluate, inputs: EvaluateInputs, make_model, tmp_path: Path, kind: str
) -> None:
    settings: dict[str, object] = {"num_references": 0, "compare_champion": kind != "off"}
    folder = tmp_path / "champion"
    if kind == "policy":
        champion = inputs.policy
    elif kind == "adapter":
        base = load_model(inputs.sft.locate(), torch.device("cpu"))
        config = peft_config(LoRAConfig(rank=2), init_lora_weights=False)
        save_adapter(get_peft_model(base, config, "policy"), "policy", inputs.sft, folder)
        champion = make_artifact("adapter", folder)
    else:
        champion = make_model(folder, 7)
    if kind == "damaged":
        (folder / "model.safetensors").write_bytes(b"damaged")
    metrics, report = evaluate(settings, champion=champion)
    words = {
        "adapter": "win rate",
        "damaged": "Not measured: comparison with the champion.",
        "policy": "not compared, the champion is this very policy",
        "off": "not compared, evaluate.compare&#95;champion is off",
    }
    assert words[kind] in report
    assert ("kl_champion" in metrics) == (kind == "adapter")
    assert metrics.get("kl_champion", 1) != 0


def test_card_and_benchmarks_of_earlier_stages_are_shown(evaluate, tmp_path: Path) -> None:
    for name in ("card", "benchmarks"):
        (tmp_path / name / "plots").mkdir(parents=True)
    row = {"name": "reward_model_accuracy", "label": "Accuracy", "value": 0.8, "low": 0.7,
           "high": 0.9}  # fmt: skip
    (tmp_path / "card" / "plots" / "scores.png").write_bytes(b"a picture")
    card = {"num_pairs": 9, "rows": [row], "plots": [{"name": "scores", "title": "T"}]}
    (tmp_path / "card" / "card.json").write_text(json.dumps(card), encoding="utf-8")
    values = {"sft": {"value": 0.5, "stderr": 0.1}, "policy": {"value": 0.4, "stderr": None}}
    benchmark = {"suite": "arc", "task": "arc_easy", "metric": "acc", "values": values}
    (tmp_path / "benchmarks" / "benchmarks.json").write_text(
        json.dumps({"models": ["sft", "policy"], "rows": [benchmark]}), encoding="utf-8"
    )
    metrics, report = evaluate(
        reward_model_card=make_artifact("card", tmp_path / "card"),
        benchmarks=make_artifact("benchmarks", tmp_path / "benchmarks"),
    )
    assert metrics["reward_model_accuracy_low"] == 0.7
    assert metrics["benchmark_arc_easy_acc_policy"] == 0.4
    assert metrics["benchmark_arc_easy_acc_sft_stderr"] == 0.1
    assert "benchmark_arc_easy_acc_policy_stderr" not in metrics
    assert metrics["benchmark_arc_easy_acc_policy_minus_sft"] == pytest.approx(-0.1)
    assert "plots/reward_model_card_scores.png" in report
    assert "**arc&#95;easy**" in report


@pytest.mark.parametrize(("num_failed", "message"), [(9, "no verdict on any"), (3, "3 of 9 pairs")])
def test_equal_replies_make_no_win_rate_by_a_judge_that_is_silent(
    num_failed: int, message: str
) -> None:
    counts = dict.fromkeys(
        ("num_inconsistent", "num_verdicts_for_first_position", "num_verdicts_for_second_position",
         "num_questions", "num_kept", "input_tokens", "output_tokens", "num_without_usage"), 0,
    )  # fmt: skip
    found = Judgements(
        indices=tuple(range(12)),
        outcomes=(None,) * num_failed + (1.0,) * (9 - num_failed) + (0.5,) * 3,
        answers=(("", ""),) * 12,
        num_failed=num_failed,
        num_equal=3,
        failures={"no answer": num_failed},
        stopped="",
        dollars=0.0,
        **counts,
    )
    with pytest.raises(UserError, match=message):
        _judged(found, [5] * 12, [5] * 12)
