"""Our PPO against TRL's: CPU time a token, memory, and what is learned from as many episodes.

    python tests/benchmarks/ppo_vs_trl.py [--cases …] [--rounds 3] [--learning-seeds 3]

Compares the stage ppo with ``trl.experimental.ppo`` of TRL 1.12.0, the last release that has it.
Makes a virtual environment for TRL, models and prompts (once, in --work), runs both sides by turns,
each run in a process of its own on one thread, and prints tables and, as the last line, one JSON
object. A ratio is TRL's figure over ours: 2 means that ours takes half; only the memory ratios of
that object are ours over TRL's.

CPU-seconds are counted, not the clock, since they suffer less from what else the machine does, and
an update's are divided by the tokens of its replies, since each side samples its own. The first
update of a process warms up and is left out; figures are medians over the others of all rounds.

Both sides get the same weights, prompts, batches, epochs, learning rate (falling linearly to 0), KL
coefficient and reward model (TRL's code must give some replies the scores that ours gives; the run
ends if it does not).
``separate`` trains all weights of a policy and of a value model, as TRL does; ``default`` is what
users get: TRL's LoRA policy with a full value model against our adapters. These differences remain:

* TRL forms micro-batches of 8 replies at random and averages their losses; ours sorts replies by
  length, lets as many tokens as 8 replies of full length share a micro-batch, and divides by the
  tokens of all. TRL rates a whole rollout at once (its default).
* TRL gives the score at the position after EOS, where it also fits a value; ours at EOS.
* TRL rates the sampled tokens; ours the reply's text, encoded anew and ended by EOS.

The floor is the arithmetic that an update of ``separate`` needs at least (``ppo_floor.py``) at the
rate that large matrix products reach on the same core in the same minutes. No training reaches that
rate: what transformers' own model and loss reach without padding is measured beside it.
"""

import argparse
import hashlib
import importlib.metadata
import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

# Not torch: a process starts with its parent's peak memory as its own.
from ppo_figures import (
    LEARNING_CASES,
    SIDES,
    Answers,
    estimate_floor,
    milliseconds_a_token,
    print_floor,
    print_learning,
    print_memory,
    print_timings,
    summarize,
    to_json,
)
from ppo_job import Answer, Job, read_answer

from flows.environment import STAGE_ENVIRONMENT
from stages.core.artifacts import data_root

HERE = Path(__file__).resolve().parent
REQUIREMENTS = (
    f"torch=={importlib.metadata.version('torch')}",  # the same build on both sides
    "trl==1.12.0",
    "transformers==5.23.0",
    "peft==0.21.2",
    "accelerate==1.15.0",
    "datasets==5.2.0",
)
ENVIRONMENT = {
    **STAGE_ENVIRONMENT,
    "HF_HUB_OFFLINE": "1",
    "TRL_EXPERIMENTAL_SILENCE": "1",
    "MPLBACKEND": "agg",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}


@dataclass(frozen=True)
class Case:
    """One comparison."""

    assets: str
    finetuning: str
    batch_size: int = 32
    micro_batch_size: int = 8
    response_length: int = 64
    is_timed: bool = True
    """Else only its memory counts: one round of one update."""


CASES = {
    "separate": Case("small", "full"),
    "separate_full_length": Case("full_length", "full"),
    "default": Case("small", "lora"),
    "memory_135m": Case("135m", "full", 8, 4, 32, is_timed=False),
    "memory_135m_default": Case("135m", "lora", 8, 4, 32, is_timed=False),
}
LEARNING_RATES = {"full": 2e-4, "lora": 2e-3}
"""Of the reward curves, policy and value model alike: TRL has one for both."""
TIMING_LEARNING_RATE = 3e-6  # TRL's default; the replies stay as long as they are
KL_COEF = 0.05


def main() -> None:
    options = parse_options()
    bench = Bench(options.work.resolve(), options.sides)
    bench.prepare([CASES[name].assets for name in options.cases])
    timed: Answers = {}
    rates: list[dict[str, float]] = []
    for round_ in range(options.rounds):
        if "separate" in options.cases:
            rates.append(bench.rates())
        for name in options.cases:
            if CASES[name].is_timed or round_ == 0:
                answers = bench.run(name, round_, options.updates + 1, TIMING_LEARNING_RATE)
                collect(timed, name, answers)
    learned: Answers = {}
    for seed in range(options.learning_seeds):
        for name in LEARNING_CASES:
            if name in options.cases:
                rate = LEARNING_RATES[CASES[name].finetuning]
                answers = bench.run(name, seed, options.learning_updates, rate, "learning")
                collect(learned, name, answers)

    summaries = {key: summarize(answers) for key, answers in timed.items()}
    small = bench.assets / CASES["separate"].assets / "policy"
    floor = estimate_floor(small, timed, summaries, rates)
    print_timings({key: value for key, value in summaries.items() if CASES[key[0]].is_timed}, timed)
    print_memory(summaries)
    print_floor(floor)
    print_learning(learned)
    print(json.dumps(to_json(summaries, timed, floor, learned)))


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--cases", nargs="+", choices=CASES, default=list(CASES), help="what to compare"
    )
    parser.add_argument(
        "--sides", nargs="+", choices=SIDES, default=list(SIDES), help="which side to run"
    )
    parser.add_argument(
        "--rounds", type=int, default=3, help="processes of each side and timed case, by turns"
    )
    parser.add_argument(
        "--updates", type=int, default=3, help="measured updates of a process, after one to warm up"
    )
    parser.add_argument(
        "--learning-seeds", type=int, default=0, help="seeds of the reward curves; 0: none, long"
    )
    parser.add_argument(
        "--learning-updates", type=int, default=20, help="updates of a reward curve"
    )
    parser.add_argument(
        "--work",
        type=Path,
        default=data_root() / "cache" / "ppo_vs_trl",
        help="folder for TRL's environment and the models, kept for the next run (2.5 GB); "
        "default: %(default)s",
    )
    return parser.parse_args()


# ------------------------------------------------------------------------------------ running


class Bench:
    """Prepares the working folder and runs one side's processes in it."""

    def __init__(self, work: Path, sides: Sequence[str]) -> None:
        self.work = work
        self.assets = work / "assets"
        self.sides = sides
        self.environment = {**os.environ, **ENVIRONMENT, "RLHF_DATA_ROOT": str(work)}
        self.environment.pop("PYTHONPATH", None)
        self.trl_python = work / "trl" / "bin" / "python"
        (work / "logs").mkdir(parents=True, exist_ok=True)

    def prepare(self, assets: Sequence[str]) -> None:
        """Make what is missing of TRL's environment and the assets."""
        if "trl" in self.sides:
            self._make_once(self.work / "trl", "\n".join(REQUIREMENTS), self._install_trl)
        recipe = hashlib.sha256((HERE / "ppo_assets.py").read_bytes()).hexdigest()
        for name in dict.fromkeys(["small", *assets]):  # the others are made from the small ones
            folder = self.assets / name
            command = [sys.executable, HERE / "ppo_assets.py", self.assets, name]
            self._make_once(
                folder,
                recipe,
                lambda command=command, name=name: self._process(command, f"assets-{name}"),
            )

    def run(
        self, name: str, seed: int, num_updates: int, learning_rate: float, kind: str = "timing"
    ) -> dict[str, Answer]:
        """One process of each side, one after the other."""
        case = CASES[name]
        answers = {}
        for side in self.sides:
            label = f"{kind}-{name}-{side}-{seed}"
            scratch = self.work / "scratch" / label
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir(parents=True)
            job = Job(
                assets=str(self.assets / case.assets),
                scratch=str(scratch),
                answer=str(self.work / "logs" / f"{label}.json"),
                finetuning=case.finetuning,
                num_updates=num_updates if case.is_timed else 1,
                batch_size=case.batch_size,
                micro_batch_size=case.micro_batch_size,
                response_length=case.response_length,
                learning_rate=learning_rate,
                kl_coef=KL_COEF,
                seed=seed,
            )
            python = self.trl_python if side == "trl" else sys.executable
            script = HERE / ("ppo_trl_side.py" if side == "trl" else "ppo_our_side.py")
            self._process([python, script, job.to_argument()], label)
            shutil.rmtree(scratch)
            answers[side] = read_answer(job)
            progress(f"{label}: {describe(answers[side])}")
        return answers

    def rates(self) -> dict[str, float]:
        """Floating-point operations a CPU-second, by kind of work (``ppo_floor.py``)."""
        model = self.assets / CASES["separate"].assets / "policy"
        line = self._process([sys.executable, HERE / "ppo_floor.py", model], "rates")
        rates: dict[str, float] = json.loads(line)
        return rates

    def _install_trl(self) -> None:
        folder = self.work / "trl"
        self._process([sys.executable, "-m", "venv", folder], "trl-venv")
        install = [self.trl_python, "-m", "pip", "install", "--disable-pip-version-check"]
        self._process([*install, *REQUIREMENTS], "trl-install")

    def _make_once(self, folder: Path, recipe: str, make: Callable[[], object]) -> None:
        """Call ``make`` unless the folder was made by the same recipe, and to its end."""
        mark = folder / "made_by.txt"
        if mark.is_file() and mark.read_text() == recipe:
            return
        progress(f"making {folder} (once)")
        shutil.rmtree(folder, ignore_errors=True)
        make()
        mark.write_text(recipe)

    def _process(self, command: Sequence[Any], label: str) -> str:
        """Run a command to its end, its output in a log; return the last line of the output.

        Raises:
            SystemExit: it failed; with the end of its output.
        """
        log = self.work / "logs" / f"{label}.log"
        with log.open("w", encoding="utf-8") as file:
            done = subprocess.run(
                list(map(str, command)),
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                cwd=self.work,
            )
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        if done.returncode:
            tail = "\n".join(f"    {line[:200]}" for line in lines[-15:])
            raise SystemExit(f"{label} failed with code {done.returncode}; see {log}\n{tail}")
        return lines[-1] if lines else ""


def progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def describe(answer: Answer) -> str:
    """An answer in a line."""
    last = answer.updates[-1]
    speed = statistics.median(milliseconds_a_token(answer.updates[-3:]))
    parts = [
        f"{len(answer.updates)} updates",
        f"{speed:.1f} ms a token",
        f"{answer.peak_mb:.0f} MB",
        f"score {last.mean_score:.2f}",
        f"KL {last.kl:.2f}",
        answer.note,
    ]
    return ", ".join(part for part in parts if part)


def collect(answers: Answers, name: str, found: dict[str, Answer]) -> None:
    for side, answer in found.items():
        answers.setdefault((name, side), []).append(answer)


if __name__ == "__main__":
    main()
