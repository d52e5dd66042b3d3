"""Does the active choice of pairs teach the reward model more than a random one, at equal labels?

    python tests/benchmarks/feedback_choice.py [--seeds 0 1 2 3 4] [--labels 150]

For each seed: a reward model and a guard model learn from a few of the demo's pairs. The stage
``sample_pairs`` then lets SFT model and policy of a finished demo reply to the training prompts,
and chooses pairs by disagreement, by margin and at random. The demo's oracle labels them with the
errors that the demo's annotators make; replies that it finds equal are a tie, which costs a label
and teaches nothing, as on the review page. From the first pairs and the new ones a reward model
learns anew, with several seeds of training whose accuracies are averaged. It is measured on all
pairs of replies to held-out prompts, against the oracle without errors, ties left out.

Needs a finished ``make demo``; run with the same RLHF_DATA_ROOT. Prints a table and, as the last
line, one JSON object.
"""

import argparse
import contextlib
import functools
import json
import multiprocessing
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "data" / "samples"))

import torch
from generate import prefers_first
from oracle import score

from flows.profiles import cpu_demo
from stages import reward_model
from stages.core.artifacts import Artifact, data_root, make_artifact
from stages.core.config import Compute, SamplePairsConfig
from stages.core.contracts import RewardModelInputs, SamplePairsInputs
from stages.core.feedback.pairs import CandidatePair
from stages.core.schemas import read_jsonl, write_jsonl
from stages.core.scoring import load_reward_model
from stages.sample_pairs.candidates import Reply, candidate_pairs
from stages.sample_pairs.choice import choose
from stages.sample_pairs.prompts import read_prompts
from stages.sample_pairs.replies import sample_replies
from stages.sample_pairs.scores import scored_replies

CHOICES = ("disagreement", "margin", "random")
NO_CHOICE = "first pairs"
COMPUTE = Compute(device="cpu", micro_batch_size=32)
MAX_LENGTH = 40
"""Of a reply, tokens, as in the demo."""
GUARD_SEED = 1000
CHOICE_SEED = 2000
"""Added to the seed: what draws the pairs must not draw the errors of their labels as well."""
T_975 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
"""Quantile of Student's t by degrees of freedom: what the mean of so few seeds is told by."""

Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--first", type=int, default=100, help="pairs that both models begin with")
    parser.add_argument("--labels", type=int, default=150, help="labels of each choice")
    parser.add_argument("--prompts", type=int, default=300, help="prompts to choose from")
    parser.add_argument("--trainings", type=int, default=2, help="seeds of training to average")
    parser.add_argument("--processes", type=int, default=2, help="seeds at once")
    parser.add_argument("--epochs", type=float, default=4.0)
    options = parser.parse_args()
    context = multiprocessing.get_context("fork")  # the libraries are loaded once
    with ProcessPoolExecutor(options.processes, mp_context=context) as processes:
        rows = list(processes.map(measure, options.seeds, [options] * len(options.seeds)))
    show(rows)


def measure(seed: int, options: argparse.Namespace) -> Row:
    """What the reward models of one seed get right: with the first pairs alone, and with each
    choice's labels added to them."""
    # Two threads on cores that others use as well would wait for each other most of the time.
    torch.set_num_threads(1)
    began = time.process_time()
    with tempfile.TemporaryDirectory() as name:
        folder, count = Path(name), options.first
        first, for_guard = (
            random.Random(seed).sample(list(read_jsonl(made("clean", kind) / "train.jsonl")), count)
            for kind in ("preferences", "guard_preferences")
        )
        begin = train(first, seed, options.epochs, folder / "begin")
        guard = train(for_guard, seed + GUARD_SEED, options.epochs, folder / "guard")
        held_out = held_out_pairs(seed, folder / "held_out")
        candidates = pool(seed, options.prompts, begin, guard, folder / "pool")
        labels = {
            choice: [
                oracle_label(pair, seed)
                for pair in choose(candidates, options.labels, choice, seed + CHOICE_SEED)
            ]
            for choice in CHOICES
        }
        accuracies: dict[str, list[float]] = {NO_CHOICE: [accuracy(begin, held_out)]}
        for number in range(options.trainings):
            for choice in CHOICES:
                rows = [*first, *filter(None, labels[choice])]
                trained = train(rows, 100 * seed + number, options.epochs, folder / choice)
                accuracies.setdefault(choice, []).append(accuracy(trained, held_out))
                print(f"seed {seed}: {accuracies}", file=sys.stderr, flush=True)
    return {
        "seed": seed,
        **{name: statistics.mean(values) for name, values in accuracies.items()},
        "trainings": accuracies,
        "ties": {choice: labels[choice].count(None) for choice in CHOICES},
        "held_out_pairs": len(held_out),
        "candidates": len(candidates),
        "cpu_seconds": round(time.process_time() - began, 1),
    }


def pool(seed: int, count: int, begin: Path, guard: Path, folder: Path) -> list[CandidatePair]:
    """The pairs that all choices choose from, with what both reward models make of them: what the
    stage ``sample_pairs`` does before it chooses."""
    folder.mkdir()
    config = SamplePairsConfig(
        max_prompts=count, random_share=0.0, max_completion_length=MAX_LENGTH, seed=seed
    )
    inputs = SamplePairsInputs(
        models=models(),
        prompts=(make_artifact("prompts", made("clean", "prompts") / "train.jsonl"),),
        base=models()["sft"],
        reward_model=make_artifact("reward_model", begin),
        guard_model=make_artifact("reward_model", guard),
    )
    prompts = read_prompts(config, inputs).prompts
    with contextlib.redirect_stdout(sys.stderr):
        texts = sample_replies(inputs.models, prompts, config, COMPUTE, folder)
        replies = scored_replies(inputs, COMPUTE, prompts, texts)
    return [
        pair
        for prompt, of_prompt in zip(prompts, replies, strict=True)
        for pair in candidate_pairs(prompt, of_prompt)
    ]


def oracle_label(pair: CandidatePair, seed: int) -> Row | None:
    """The pair as a preference; None for a tie. A pair has the same label whoever chose it."""
    replies = sorted((pair.reply_a, pair.reply_b))
    gap = oracle_gap(pair.prompt, *replies)
    if gap == 0:
        return None
    chance = random.Random(f"{seed}/{pair.pair_id}")
    chosen, rejected = replies if prefers_first(chance, *replies, gap) else reversed(replies)
    return {"prompt": pair.prompt, "chosen": chosen, "rejected": rejected}


def oracle_gap(prompt: str, first: str, second: str) -> float:
    one, two = score([prompt, prompt], [first, second])
    return round(one - two, 4)


def held_out_pairs(seed: int, folder: Path) -> list[tuple[str, str, str]]:
    """Prompt, better and worse reply: all pairs of the models' replies to the held-out prompts."""
    folder.mkdir()
    config = SamplePairsConfig(num_replies=3, max_completion_length=MAX_LENGTH, seed=seed)
    prompts = [row["prompt"] for row in read_jsonl(made("clean", "prompts") / "held_out.jsonl")]
    texts = sample_replies(models(), prompts, config, COMPUTE, folder)
    found = []
    for number, prompt in enumerate(prompts):
        replies = [Reply(name, text) for name in texts for text in texts[name][number]]
        for pair in candidate_pairs(prompt, replies):
            gap = oracle_gap(prompt, pair.reply_a, pair.reply_b)
            if gap:
                better, worse = pair.reply_a, pair.reply_b
                found.append((prompt, better, worse) if gap > 0 else (prompt, worse, better))
    return found


def train(rows: Sequence[Row], seed: int, epochs: float, folder: Path) -> Path:
    """The folder of a reward model that learned from these preferences."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "preferences").mkdir(parents=True)
    held_out = list(read_jsonl(made("clean", "preferences") / "held_out.jsonl"))[:32]
    write_jsonl(folder / "preferences" / "train.jsonl", rows)
    write_jsonl(folder / "preferences" / "held_out.jsonl", held_out)
    changes = {"seed": seed, "num_epochs": epochs, "num_statistics_samples": 32}
    rarely = {"eval_steps": 100_000, "save_steps": 100_000}
    config = cpu_demo().reward_model.model_copy(update=changes | rarely)
    inputs = RewardModelInputs(
        model=models()["sft"],
        preferences=make_artifact("preferences", folder / "preferences"),
        prompts=make_artifact("prompts", made("clean", "prompts")),
    )
    with contextlib.redirect_stdout(sys.stderr):
        outputs, _ = reward_model.run(config, inputs, COMPUTE, folder)
    return outputs.reward_model.locate()


def accuracy(folder: Path, pairs: Sequence[tuple[str, str, str]]) -> float:
    """Share of the pairs whose better reply gets the higher score."""
    model = load_reward_model(folder, models()["sft"].locate(), torch.device("cpu"))
    replies = [(prompt, reply) for prompt, *both in pairs for reply in both]
    different = list(dict.fromkeys(replies))
    scores = model.score([prompt for prompt, _ in different], [reply for _, reply in different])
    by_reply = dict(zip(different, scores, strict=True))
    right = [by_reply[prompt, one] > by_reply[prompt, two] for prompt, one, two in pairs]
    return statistics.mean(right)


@functools.cache
def made(stage: str, output: str) -> Path:
    """What a stage of the demo has made, the newest where there are several."""
    results = sorted(
        (data_root() / "runs" / stage).glob("*/result.json"), key=lambda path: path.stat().st_mtime
    )
    if not results:
        raise SystemExit(f"no finished stage {stage} below {data_root()}: run `make demo` first")
    return results[-1].parent / output


@functools.cache
def models() -> dict[str, Artifact]:
    places = {"policy": made("ppo", "model"), "sft": made("sft", "model")}
    return {name: make_artifact("model", folder) for name, folder in places.items()}


# ------------------------------------------------------------------------------------- figures


def show(rows: Sequence[Row]) -> None:
    """Print the table, the paired differences with their intervals, and the JSON object."""
    names = (NO_CHOICE, *CHOICES)
    print("seed  " + "  ".join(f"{name:>12}" for name in names) + "  ties of the labels")
    for row in rows:
        ties = " / ".join(str(row["ties"][choice]) for choice in CHOICES)
        print(
            f"{row['seed']:>4}  " + "  ".join(f"{row[name]:>12.3f}" for name in names) + f"  {ties}"
        )
    spreads = {name: mean_and_spread([row[name] for row in rows]) for name in names}
    print("mean  " + "  ".join(f"{mean:>5.3f} ± {spread:.3f}" for mean, spread in spreads.values()))
    differences = {
        name: interval([row[name] - row["random"] for row in rows]) for name in names[:-1]
    }
    for name, (mean, low, high) in differences.items():
        print(f"{name} - random: {mean:+.3f} (95 % {low:+.3f} to {high:+.3f})")
    better = [name for name, (_, low, _) in differences.items() if low > 0]
    print(f"clearly better than random: {', '.join(better) or 'none'}")
    print(json.dumps({"seeds": rows, "minus_random": differences, "better": better}))


def mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation."""
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean of paired differences with its 95 % interval by Student's t."""
    mean, spread = mean_and_spread(values)
    half = T_975[len(values) - 1] * spread / len(values) ** 0.5 if len(values) > 1 else float("inf")
    return mean, mean - half, mean + half


if __name__ == "__main__":
    main()
