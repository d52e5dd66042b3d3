"""The models and prompts of the PPO benchmark, made from what every installation holds.

    python tests/benchmarks/ppo_assets.py FOLDER {small,full_length,135m}

Writes ``FOLDER/<name>`` with

    policy/          the policy, its tokenizer beside it
    prompts/         the prompts as the stages read them
    prompt_ids.json  the same as token ids
    reward_model/    a reward model in our format, as stage reward_model writes it
    classifier/      the same function as a classifier of transformers, as TRL reads it
    probes.json      a few replies with the scores that ours gives them

small: a Llama of 4.2 million parameters, pretrained on docstrings for some minutes, so that it ends
most replies itself and at all lengths. full_length: the same weights, but what ends a reply is a
token that the model never samples. 135m: the shape of SmolLM2-135M with random weights.
"""

import argparse
import ast
import json
import random
import re
import shutil
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from peft import PeftModel
from transformers import (
    AutoModelForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from stages import pretrain, reward_model
from stages.core.artifacts import Artifact, make_artifact
from stages.core.chat import encode_completion, encode_prompt, encode_text
from stages.core.config import Compute, PretrainConfig, RewardModelConfig, TokenizerConfig
from stages.core.contracts import PretrainInputs, RewardModelInputs
from stages.core.models import load_model, load_tokenizer, save_model
from stages.core.schemas import read_jsonl, write_jsonl
from stages.core.scoring import load_reward_model, read_manifest
from stages.tokenizer import END_OF_TEXT, TURN_END, TURN_START, train_tokenizer

PACKAGES = ("transformers", "mlflow", "prefect", "matplotlib", "pydantic", "datasets", "accelerate")
NEVER = "<|never|>"
VOCABULARY = 4096
NUM_PROMPTS = 2000
PROMPT_LENGTHS = range(4, 41)
LIKED_INITIALS = tuple("tacTAC")
"""The reward model likes words that begin with these."""

COMPUTE = Compute(device="cpu", micro_batch_size=16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where all assets lie")
    parser.add_argument("name", choices=("small", "full_length", "135m"))
    options = parser.parse_args()
    torch.manual_seed(0)
    folder: Path = options.folder / options.name
    shutil.rmtree(folder, ignore_errors=True)  # what an interrupted build left
    folder.mkdir(parents=True)
    if options.name == "small":
        make_small(folder)
    elif options.name == "full_length":
        make_full_length(folder, options.folder / "small")
    else:
        make_135m(folder, options.folder / "small")
    shutil.rmtree(folder / "stages")


def make_small(folder: Path) -> None:
    """Tokenizer, pretrained policy, prompts and reward model."""
    texts = list(paragraphs())
    random.Random(0).shuffle(texts)
    tokenizer = make_tokenizer(texts)
    tokenizer.save_pretrained(folder / "tokenizer")
    held_out, training = texts[: 2 * NUM_PROMPTS], texts[2 * NUM_PROMPTS :]
    config = PretrainConfig(
        model_overrides={
            "hidden_size": 256,
            "intermediate_size": 688,
            "num_hidden_layers": 4,
            "num_attention_heads": 8,
            "num_key_value_heads": 8,
            "tie_word_embeddings": True,
        },
        sequence_length=128,
        global_batch_size=8,
        max_steps=360,
        eval_steps=180,
        save_steps=10_000,
    )
    inputs = PretrainInputs(
        documents=dataset("documents", folder, training, held_out[:100]),
        tokenizer=make_artifact("tokenizer", folder / "tokenizer"),
    )
    outputs, metrics = pretrain.run(config, inputs, COMPUTE, stage_folder(folder, "pretrain"))
    print(f"pretrained: {metrics}")
    outputs.model.locate().rename(folder / "policy")
    prompts = [beginning(tokenizer, text, number) for number, text in enumerate(held_out)]
    write_prompts(folder, tokenizer, [prompt for prompt in prompts if prompt][:NUM_PROMPTS])
    make_reward_models(folder, training)


def make_full_length(folder: Path, small: Path) -> None:
    """The small model, but with ``NEVER`` as the end of a reply."""
    tokenizer = load_tokenizer(small / "policy")
    tokenizer.eos_token = NEVER
    tokenizer.add_special_tokens({"additional_special_tokens": [TURN_END]})
    model = load_model(small / "policy", torch.device("cpu"))
    for config in (model.config, model.generation_config):
        config.eos_token_id = tokenizer.eos_token_id
    save_model(model, tokenizer, folder / "policy")
    write_prompts(folder, tokenizer, column(small / "prompts", "prompt"))
    make_reward_models(folder, column(small / "documents", "text"))


def make_135m(folder: Path, small: Path) -> None:
    """SmolLM2-135M's shape. Only its memory is of interest: the weights stay random, and the
    tokenizer is the small one."""
    tokenizer = load_tokenizer(small / "policy")
    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        tie_word_embeddings=True,
        max_position_embeddings=2048,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    save_model(LlamaForCausalLM(config), tokenizer, folder / "policy")
    write_prompts(folder, tokenizer, column(small / "prompts", "prompt"))
    texts = column(small / "documents", "text")
    make_reward_models(folder, texts, num_pairs=16, num_samples=4)


def paragraphs() -> Iterator[str]:
    """Sentences of some length from the docstrings of installed packages, each once."""
    seen: set[str] = set()
    warnings.simplefilter("ignore")  # what the parser has to say about their code
    for package in PACKAGES:
        folder = Path(sysconfig.get_paths()["purelib"]) / package
        for path in sorted(folder.rglob("*.py")):
            for docstring in docstrings(path):
                for paragraph in re.split(r"\n\s*\n", docstring):
                    text = " ".join(paragraph.split())
                    is_prose = text[:1].isupper() and text[-1:] in (".", "!") and ">>>" not in text
                    if 60 <= len(text) <= 300 and is_prose and text not in seen:
                        seen.add(text)
                        yield text


def docstrings(path: Path) -> Iterator[str]:
    """All docstrings of a source file, none where it is no Python of this version."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            yield ast.get_docstring(node) or ""


def make_tokenizer(texts: list[str]) -> PreTrainedTokenizerBase:
    """Byte-level BPE whose beginning, end and padding are three tokens: TRL takes every padding
    token in a prompt for padding. The chat template adds but the beginning, so that a reply goes on
    with the prompt's text."""
    learned = train_tokenizer(iter(texts), TokenizerConfig(vocab_size=VOCABULARY - 1))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=learned,
        bos_token=TURN_START,
        eos_token=TURN_END,
        pad_token=END_OF_TEXT,
        chat_template="{{ bos_token }}{% for message in messages %}{{ message.content }}"
        "{% endfor %}",
    )
    tokenizer.add_special_tokens({"additional_special_tokens": [NEVER]})
    assert len(tokenizer) == VOCABULARY
    return tokenizer


def beginning(tokenizer: PreTrainedTokenizerBase, text: str, seed: int) -> str:
    """The first tokens of a text, as many as a prompt may have and at least one is left for the
    reply; empty where the text is too short for that."""
    ids = encode_text(tokenizer, text)
    longest = min(PROMPT_LENGTHS[-1], len(ids)) - 1  # the beginning token comes on top
    if longest < PROMPT_LENGTHS[0]:
        return ""
    length = random.Random(seed).randint(PROMPT_LENGTHS[0], longest)
    prompt: str = tokenizer.decode(ids[:length])
    return prompt if len(encode_prompt(tokenizer, prompt)) in PROMPT_LENGTHS else ""


def write_prompts(folder: Path, tokenizer: PreTrainedTokenizerBase, prompts: list[str]) -> None:
    """The prompts for both sides."""
    dataset("prompts", folder, prompts, [])
    ids = [encode_prompt(tokenizer, prompt) for prompt in prompts]
    (folder / "prompt_ids.json").write_text(json.dumps(ids))


def make_reward_models(
    folder: Path, texts: list[str], num_pairs: int = 800, num_samples: int = 128
) -> None:
    """A reward model by our stage, and the same function as a whole classifier for TRL."""
    base = folder / "policy"
    tokenizer = load_tokenizer(base)
    pairs = list(preference_pairs(tokenizer, texts, num_pairs))
    config = RewardModelConfig(
        learning_rate=2e-3,
        global_batch_size=16,
        max_length=128,
        max_over_length_share=0.5,
        num_statistics_samples=num_samples,
        max_completion_length=32,
        eval_steps=10_000,
        save_steps=10_000,
    )
    preferences = dataset("preferences", folder, pairs[num_pairs // 8 :], pairs[: num_pairs // 8])
    inputs = RewardModelInputs(
        model=make_artifact("model", base),
        preferences=preferences,
        prompts=make_artifact("prompts", folder / "prompts"),
    )
    outputs, metrics = reward_model.run(
        config, inputs, COMPUTE, stage_folder(folder, "reward_model")
    )
    print(f"reward model: {metrics}")
    outputs.reward_model.locate().rename(folder / "reward_model")

    classifier = AutoModelForSequenceClassification.from_pretrained(
        base, num_labels=1, dtype=torch.float32
    )
    merged = PeftModel.from_pretrained(classifier, folder / "reward_model").merge_and_unload()
    merged.config.pad_token_id = tokenizer.pad_token_id
    merged.save_pretrained(folder / "classifier")

    ours = load_reward_model(folder / "reward_model", base, torch.device("cpu"))
    probes = read_manifest(folder / "reward_model").probes
    scores = ours.score([probe.prompt for probe in probes], [probe.completion for probe in probes])
    rows = [
        {
            "prompt_ids": encode_prompt(tokenizer, probe.prompt),
            "reply_ids": encode_completion(tokenizer, probe.completion),
            "score": score,
        }
        for probe, score in zip(probes, scores, strict=True)
    ]
    (folder / "probes.json").write_text(json.dumps(rows))


def preference_pairs(
    tokenizer: PreTrainedTokenizerBase, texts: list[str], number: int
) -> Iterator[dict[str, str]]:
    """Two ends for the beginning of a text; the one with the larger share of words that begin with
    a liked letter is chosen."""
    chance = random.Random(1)
    while number:
        prompt = beginning(tokenizer, chance.choice(texts), chance.randrange(2**32))
        ends = [" ".join(chance.choice(texts).split()[-chance.randint(4, 20) :]) for _ in range(2)]
        low, high = sorted(ends, key=liked_share)
        if prompt and liked_share(high) - liked_share(low) > 0.1:
            yield {"prompt": prompt, "chosen": " " + high, "rejected": " " + low}
            number -= 1


def liked_share(text: str) -> float:
    """Share of the words that begin with a liked letter."""
    words = text.split()
    return sum(word.startswith(LIKED_INITIALS) for word in words) / len(words)


def stage_folder(folder: Path, name: str) -> Path:
    """An empty folder for a stage to work in."""
    place = folder / "stages" / name
    place.mkdir(parents=True)
    return place


def dataset(kind: str, folder: Path, train: list, held_out: list) -> Artifact:
    """A data set as the stages read it; plain texts become rows of their kind's one column."""
    name_of_column = {"documents": "text", "prompts": "prompt"}.get(kind)
    place = folder / kind
    place.mkdir(exist_ok=True)
    for name, rows in (("train", train), ("held_out", held_out)):
        rows = [{name_of_column: row} if name_of_column else row for row in rows]
        write_jsonl(place / f"{name}.jsonl", rows)
    return make_artifact(kind, place)


def column(folder: Path, name: str) -> list[str]:
    """One column of a data set's training rows."""
    return [row[name] for row in read_jsonl(folder / "train.jsonl")]


if __name__ == "__main__":
    main()
