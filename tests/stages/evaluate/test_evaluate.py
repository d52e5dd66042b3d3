"""The whole stage on tiny random models, in this process."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import get_peft_model
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import nn
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
)

from stages.core.artifacts import Artifact, make_artifact
from stages.core.config import Compute, EvaluateConfig, LoRAConfig
from stages.core.contracts import Datasets, EvaluateInputs
from stages.core.errors import UserError
from stages.core.models import (
    load_model,
    load_tokenizer,
    peft_config,
    save_adapter,
    save_model,
    tokenizer_digest,
)
from stages.core.schemas import write_jsonl
from stages.core.scoring import Probe, RewardModel, RewardModelManifest
from stages.evaluate import load_scorers, run

CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}"
    "{% if message.role == 'assistant' %}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL_TOKENS = ("<|pad|>", "<|start|>", "<|end|>", "<|user|>", "<|assistant|>")
COMPUTE = Compute(device="cpu", micro_batch_size=4)
CONFIG = EvaluateConfig(
    scorers={"brevity": "brevity.py:score"},
    num_prompts=6,
    max_completion_length=6,
    num_bootstrap_samples=50,
    num_samples_shown=2,
)


def _tokenizer() -> PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: index for index, token in enumerate([*SPECIAL_TOKENS, *alphabet])}
    backend = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    pad, start, end, user, assistant = SPECIAL_TOKENS
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=pad,
        bos_token=start,
        eos_token=end,
        additional_special_tokens=[user, assistant],
        chat_template=CHAT_TEMPLATE,
    )


def _save_model(folder: Path, seed: int) -> Artifact:
    torch.manual_seed(seed)
    tokenizer = _tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=64,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    model.lm_head.weight.data *= 20  # or all three would answer alike
    save_model(model, tokenizer, folder)
    return make_artifact("model", folder)


def _save_reward_model(folder: Path, sft: Artifact) -> Artifact:
    torch.manual_seed(3)
    tokenizer = load_tokenizer(sft.locate())
    base = load_model(sft.locate(), torch.device("cpu"))
    model = get_peft_model(base, peft_config(LoRAConfig(rank=2)), adapter_name="reward")
    head = nn.Linear(16, 1, bias=False)
    save_adapter(model, "reward", sft, folder)
    weights = load_file(folder / "adapter_model.safetensors")
    save_file(weights | {"score.weight": head.weight.data}, folder / "adapter_model.safetensors")
    manifest = RewardModelManifest(
        base_digest=sft.digest,
        tokenizer_digest=tokenizer_digest(tokenizer),
        max_length=64,
        score_mean=0.1,
        score_std=0.5,
        probes=[Probe(prompt="p", completion="c", score=0.0)],
    )
    (score,) = RewardModel(model, head, tokenizer, manifest).score(["p"], ["c"])
    probes = [Probe(prompt="p", completion="c", score=score)]
    manifest = manifest.model_copy(update={"probes": probes})
    (folder / "reward_model.json").write_text(manifest.model_dump_json())
    return make_artifact("reward_model", folder)


def _save_rows(folder: Path, kind: str, rows: list[Mapping[str, Any]]) -> Artifact:
    folder.mkdir()
    write_jsonl(folder / "train.jsonl", [])
    write_jsonl(folder / "held_out.jsonl", rows)
    return make_artifact(kind, folder)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> EvaluateInputs:
    root = tmp_path_factory.mktemp("inputs")
    (root / "brevity.py").write_text(
        "def score(prompts, completions):\n    return [-len(text) for text in completions]\n"
    )
    (root / "history.jsonl").write_text(
        "".join(
            json.dumps({"episodes": 8 * n, "update": n, "score": n / 4, "kl": n / 2}) + "\n"
            for n in range(1, 5)
        )
    )
    sft = _save_model(root / "sft", 1)
    chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
            {"role": "user", "content": "<|end|> | <script>"}]  # fmt: skip
    prompts = [{"prompt": f"Say {n}"} for n in range(8)] + [{"prompt": chat}, {"prompt": "x" * 90}]
    return EvaluateInputs(
        base=_save_model(root / "base", 0),
        sft=sft,
        policy=_save_model(root / "policy", 2),
        reward_model=_save_reward_model(root / "reward_model", sft),
        datasets=Datasets(
            documents=_save_rows(root / "documents", "documents", [{"text": "é" * 100}]),
            sft=_save_rows(root / "demos", "sft", [{"prompt": "Hi", "completion": "Yes"}] * 3),
            preferences=_save_rows(
                root / "pairs",
                "preferences",
                [{"prompt": f"{n}?", "chosen": "long " * n, "rejected": "no"} for n in range(1, 6)],
            ),
            prompts=_save_rows(root / "prompts", "prompts", prompts),
        ),
        history=make_artifact("history", root / "history.jsonl"),
        scorers={"brevity": make_artifact("scorer", root / "brevity.py")},
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
            "reply_lengths", "reward_model", "score_distributions", "scores", "training_curve"
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
    assert metrics["length_baseline_accuracy"] == 1.0


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
    with pytest.raises(UserError, match=r"collect\.prompts"):
        run(CONFIG, empty, COMPUTE, tmp_path)
