"""Our side of the PPO benchmark: the stage's own ``run``, told to do what TRL does.

One process, one job. The trainer's clock is set to the process's CPU time, and the figures are read
where the trainer reports them. Settings in which our defaults differ from TRL are set to TRL's.
"""

import sys
import time
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from ppo_job import Answer, Job, Update, peak_memory_mb, read_job, write_answer

import stages.ppo.trainer
from stages.core import tracking
from stages.core.artifacts import make_artifact
from stages.core.config import Compute, GuardConfig, PPOConfig
from stages.core.contracts import PPOInputs

NEVER = 1e9


def make_config(job: Job) -> PPOConfig:
    """Our configuration of a job."""
    return PPOConfig(
        finetuning=job.finetuning,  # with lora: rank and frozen layers as by default
        total_episodes=job.num_updates * job.batch_size,
        batch_size=job.batch_size,
        num_mini_batches=1,
        num_ppo_epochs=job.num_epochs,
        max_completion_length=job.response_length,
        learning_rate=job.learning_rate,
        value_learning_rate=job.learning_rate,  # TRL has one for both
        kl_coef=job.kl_coef,
        seed=job.seed,
        # As TRL: raw scores, Adam's usual epsilon, no clipping of gradients, no guard.
        warmup_share=0,
        missing_eos_penalty=0,
        normalize_scores=False,
        clip_score=NEVER,
        adam_epsilon=1e-8,
        max_grad_norm=NEVER,
        guard=GuardConfig(action="warn", kl_ceiling=NEVER),
        # Nothing but training is measured.
        save_updates=job.num_updates + 1,
        sample_updates=job.num_updates + 1,
    )


class Recorder:
    """Takes the place of ``tracking.log_metrics`` and keeps the figures of each update."""

    def __init__(self) -> None:
        self.updates: list[Update] = []
        self.training_mb = 0.0
        self._ended = time.process_time()

    def __call__(self, metrics: Mapping[str, float], step: int) -> None:
        if "time/generate" not in metrics:
            return
        phases = [float(metrics[f"time/{name}"]) for name in ("generate", "score", "optimize")]
        now = time.process_time()
        update = Update(
            *phases,
            other=max(0.0, now - self._ended - sum(phases)),
            num_tokens=int(metrics["val/num_tokens"]),
            mean_score=metrics["objective/scores"],
            kl=metrics["objective/kl"],
        )
        self._ended = now
        self.training_mb = peak_memory_mb()
        self.updates.append(update)
        print(f"update {step}: {update}", flush=True)


def main() -> None:
    job = read_job()
    imports_mb = peak_memory_mb()
    torch.set_num_threads(1)
    if not hasattr(stages.ppo.trainer, "clock"):
        raise SystemExit("stages.ppo.trainer has no clock any more: adapt ppo_our_side.py")
    stages.ppo.trainer.clock = time.process_time
    recorder = Recorder()
    tracking.log_metrics = recorder
    assets = Path(job.assets)
    inputs = PPOInputs(
        model=make_artifact("model", assets / "policy"),
        reward_model=make_artifact("reward_model", assets / "reward_model"),
        prompts=make_artifact("prompts", assets / "prompts"),
    )
    compute = Compute(device="cpu", micro_batch_size=job.micro_batch_size, num_threads=1)
    stages.ppo.run(make_config(job), inputs, compute, Path(job.scratch))
    if len(recorder.updates) != job.num_updates:
        raise SystemExit(f"{len(recorder.updates)} of {job.num_updates} updates were reported")
    write_answer(job, Answer(recorder.updates, imports_mb, recorder.training_mb, peak_memory_mb()))


if __name__ == "__main__":
    main()
