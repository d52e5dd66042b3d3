"""What one process of the PPO benchmark is asked to do, and what it answers.

Both sides import this module, each in an environment of its own, so it needs nothing but Python's
standard library.
"""

import json
import resource
import sys
from dataclasses import asdict, dataclass, fields
from pathlib import Path


@dataclass(frozen=True)
class Job:
    """One training run of one side; equal jobs ask both sides for the same."""

    assets: str
    """Folder written by ``ppo_assets.py``."""
    scratch: str
    """Folder that the run may fill; it is removed afterwards."""
    answer: str
    """File that the answer is written to."""
    finetuning: str
    """full: all weights of policy and value model; lora: what the side calls its LoRA training."""
    num_updates: int
    batch_size: int
    micro_batch_size: int
    response_length: int
    """Longest reply, tokens."""
    learning_rate: float
    kl_coef: float
    seed: int
    num_epochs: int = 4

    def to_argument(self) -> str:
        """The job as the one argument of a side's command line."""
        return json.dumps(asdict(self))


@dataclass(frozen=True)
class Update:
    """One PPO update: CPU-seconds of its phases, and what came out of it."""

    generate: float
    score: float
    """Scoring by the reward model and all other forward passes before the first epoch."""
    optimize: float
    other: float
    """The rest up to the next update: reports, garbage collection, the next prompts."""
    num_tokens: int
    """Tokens of the replies, EOS included."""
    mean_score: float
    kl: float
    """Nats a reply."""
    prompt_lengths: tuple[int, ...] = ()
    reply_lengths: tuple[int, ...] = ()

    @property
    def total(self) -> float:
        return self.generate + self.score + self.optimize + self.other


@dataclass(frozen=True)
class Answer:
    """What a side's process found."""

    updates: list[Update]
    imports_mb: float
    """Peak resident set before the first model was loaded, MB."""
    training_mb: float
    """The same at the end of the last update, before anything is written."""
    peak_mb: float
    """The same of the whole process, which ends by writing the policy."""
    note: str = ""
    """Shown in the progress lines."""


def read_job() -> Job:
    """The job on the command line."""
    if len(sys.argv) != 2:
        raise SystemExit("one side of the benchmark; run tests/benchmarks/ppo_vs_trl.py instead")
    return Job(**json.loads(sys.argv[1]))


def write_answer(job: Job, answer: Answer) -> None:
    """Write the answer where the job wants it."""
    Path(job.answer).write_text(json.dumps(asdict(answer)), encoding="utf-8")


def read_answer(job: Job) -> Answer:
    """The answer to a job that is done."""
    body = json.loads(Path(job.answer).read_text(encoding="utf-8"))
    assert body.keys() == {field.name for field in fields(Answer)}
    return Answer(**body | {"updates": [Update(**update) for update in body["updates"]]})


def peak_memory_mb() -> float:
    """Peak resident set of this process so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
