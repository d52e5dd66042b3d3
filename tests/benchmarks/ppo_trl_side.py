"""TRL's side of the PPO benchmark: ``trl.experimental.ppo`` as TRL 1.12.0 ships it.

One process, one job, in a virtual environment of its own that holds TRL 1.12.0 and not this
project. TRL's loop is one long function, so its phases are told apart from outside: an update's
generation ends when ``batch_generation`` returns, its scoring when the advantages are whitened (the
last thing before the first epoch), and its optimisation when the callbacks hear of the step's end.
"""

import json
import time
from pathlib import Path
from typing import Any

import torch
import trl.experimental.ppo.ppo_trainer as implementation
from datasets import Dataset
from peft import LoraConfig
from ppo_job import Answer, Job, Update, peak_memory_mb, read_job, write_answer
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    TrainerCallback,
)
from trl.experimental.ppo import PPOConfig, PPOTrainer
from trl.experimental.utils import get_reward

SCORE_TOLERANCE = 1e-3


class Recorder(TrainerCallback):
    """Stands around the functions that end TRL's phases and keeps the figures of each update."""

    def __init__(self, pad_token_id: int) -> None:
        self.updates: list[Update] = []
        self._pad = pad_token_id
        self._metrics: dict[str, float] = {}
        self._times = {"end": time.process_time()}
        self._prompt_lengths: list[int] = []
        self._reply_lengths: list[int] = []
        self._generate = implementation.batch_generation
        self._whiten = implementation.masked_whiten
        implementation.batch_generation = self.batch_generation
        implementation.masked_whiten = self.masked_whiten

    def batch_generation(self, model: Any, queries: torch.Tensor, *args: Any) -> Any:
        self._times["begin"] = time.process_time()
        result = self._generate(model, queries, *args)
        self._times["generated"] = time.process_time()
        self._prompt_lengths = (queries != self._pad).sum(-1).tolist()
        return result

    def masked_whiten(self, values: torch.Tensor, mask: torch.Tensor, **options: Any) -> Any:
        result = self._whiten(values, mask, **options)
        self._times["scored"] = time.process_time()
        self._reply_lengths = mask.sum(-1).tolist()
        return result

    def on_log(self, args, state, control, logs: dict[str, float] | None = None, **rest) -> None:
        self._metrics |= logs or {}

    def on_step_end(self, args, state, control, **rest) -> None:
        before, self._times["end"] = self._times["end"], time.process_time()
        times = self._times
        update = Update(
            generate=times["generated"] - times["begin"],
            score=times["scored"] - times["generated"],
            optimize=times["end"] - times["scored"],
            other=times["begin"] - before,
            num_tokens=sum(self._reply_lengths),
            mean_score=self._metrics["objective/scores"],
            kl=self._metrics["objective/kl"],
            prompt_lengths=tuple(self._prompt_lengths),
            reply_lengths=tuple(self._reply_lengths),
        )
        self.updates.append(update)
        print(f"update {len(self.updates)}: {update}", flush=True)


def make_config(job: Job) -> PPOConfig:
    """TRL's configuration of a job; what is not named keeps TRL's default."""
    return PPOConfig(
        output_dir=job.scratch,
        per_device_train_batch_size=job.micro_batch_size,
        gradient_accumulation_steps=job.batch_size // job.micro_batch_size,
        num_mini_batches=1,
        num_ppo_epochs=job.num_epochs,
        total_episodes=job.num_updates * job.batch_size,
        response_length=job.response_length,
        stop_token="eos",
        temperature=1.0,
        learning_rate=job.learning_rate,
        lr_scheduler_type="linear",  # to zero over the updates, as ours
        kl_coef=job.kl_coef,
        missing_eos_penalty=None,
        seed=job.seed,
        # On a CPU in float32, and nothing but training.
        bf16=False,
        use_cpu=True,
        gradient_checkpointing=False,
        num_sample_generations=0,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        logging_steps=1,
    )


def load_classifier(folder: Path) -> Any:
    """The reward model in the format that TRL takes, also the value model's start."""
    return AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)


@torch.no_grad()
def check_scores(reward_model: Any, probes: list[dict[str, Any]], pad_token_id: int) -> float:
    """Largest difference between the scores that TRL's code gives the probes and ours."""
    differences = []
    for probe in probes:
        ids = torch.tensor([probe["prompt_ids"] + probe["reply_ids"]])
        _, scores, _ = get_reward(reward_model, ids, pad_token_id, len(probe["prompt_ids"]))
        differences.append(abs(scores.item() - probe["score"]))
    if not max(differences) < SCORE_TOLERANCE:
        raise SystemExit(f"the reward models differ: a probe's score by {max(differences):.2g}")
    return max(differences)


def main() -> None:
    job = read_job()
    imports_mb = peak_memory_mb()
    torch.set_num_threads(1)
    torch.manual_seed(job.seed)
    assets = Path(job.assets)
    tokenizer = AutoTokenizer.from_pretrained(assets / "policy", padding_side="left")
    prompts = Dataset.from_dict(
        {"input_ids": json.loads((assets / "prompt_ids.json").read_text(encoding="utf-8"))}
    )
    policy = AutoModelForCausalLM.from_pretrained(assets / "policy", dtype=torch.float32)
    policy.generation_config.pad_token_id = tokenizer.pad_token_id
    reference, adapter = None, None
    if job.finetuning == "full":
        reference = AutoModelForCausalLM.from_pretrained(assets / "policy", dtype=torch.float32)
    else:  # the reference is the policy without its adapter
        adapter = LoraConfig(
            r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"
        )
    reward_model = load_classifier(assets / "classifier")
    probes = json.loads((assets / "probes.json").read_text(encoding="utf-8"))
    difference = check_scores(reward_model, probes, tokenizer.pad_token_id)
    recorder = Recorder(tokenizer.pad_token_id)
    trainer = PPOTrainer(
        args=make_config(job),
        processing_class=tokenizer,
        model=policy,
        ref_model=reference,
        reward_model=reward_model,
        value_model=load_classifier(assets / "classifier"),
        train_dataset=prompts,
        eval_dataset=prompts.select(range(8)),
        callbacks=[recorder],
        peft_config=adapter,
    )
    trainer.train()
    training_mb = peak_memory_mb()
    trainer.save_model(job.scratch)  # ours ends by writing the policy, too
    note = f"both reward models score {len(probes)} replies alike to {difference:.1g}"
    write_answer(job, Answer(recorder.updates, imports_mb, training_mb, peak_memory_mb(), note))


if __name__ == "__main__":
    main()
