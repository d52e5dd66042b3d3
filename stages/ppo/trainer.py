"""Proximal policy optimisation of a language model, from the rollout to the update.

One backbone in memory: the policy and the value model are LoRA adapters on it, the reference is
the backbone with adapters off. Follows Ziegler et al. 2019 and Huang et al. 2024 ("The N+
Implementation Details of RLHF with PPO"); names of metrics are TRL's.
"""

import json
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy
import torch
from peft import PeftModel
from torch import nn
from transformers import PreTrainedTokenizerBase, get_linear_schedule_with_warmup

from stages.core import tracking
from stages.core.chat import Prompt, prompt_text
from stages.core.config import PPOConfig
from stages.core.errors import UserError
from stages.core.logprobs import collate, token_logprobs
from stages.core.models import active_adapter, adapter_parameters, autocast, padding_id
from stages.core.scoring import Scorer
from stages.ppo.losses import policy_loss, value_loss
from stages.ppo.rollout import (
    POLICY,
    VALUE,
    Rollout,
    ValueModel,
    collect_rollout,
    micro_batches,
    summarize,
)

CHECKPOINTS_KEPT = 2
SAMPLES_SHOWN = 8


@dataclass
class Progress:
    """How far the training is. Everything here goes into the checkpoint."""

    num_updates: int = 0
    stopped_by_kl: bool = False
    history: list[dict[str, float]] = field(default_factory=list)


class PPOTrainer:
    """Trains the adapters ``policy`` and ``value`` of ``model`` and the value head."""

    def __init__(
        self,
        config: PPOConfig,
        model: PeftModel,
        value_model: ValueModel,
        scorer: Scorer,
        tokenizer: PreTrainedTokenizerBase,
        prompts: list[Prompt],
        prompt_ids: list[list[int]],
        micro_batch_size: int,
        folder: Path,
    ) -> None:
        """
        Args:
            scorer: rates (prompts, completions) on the scale of the reward.
            prompt_ids: the prompts as token ids.
            micro_batch_size: replies that go through the model at once; no effect on the result
                but rounding.
            folder: where checkpoints are kept.
        """
        self.config = config
        self.model = model
        self.value_model = value_model
        self.scorer = scorer
        self.tokenizer = tokenizer
        self.prompts = prompts
        self.prompt_ids = prompt_ids
        self.micro_batch_size = micro_batch_size
        self.folder = folder
        self.num_updates = config.total_episodes // config.batch_size

        self.policy_parameters = adapter_parameters(model, POLICY)
        self.value_parameters = [
            *adapter_parameters(model, VALUE),
            *value_model.head.parameters(),
        ]
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        for parameter in [*self.policy_parameters, *self.value_parameters]:
            parameter.requires_grad_(True)
        self.optimizer = torch.optim.AdamW(
            [
                {"params": self.policy_parameters, "lr": config.learning_rate},
                {"params": self.value_parameters, "lr": config.value_learning_rate},
            ],
            eps=config.adam_epsilon,
            weight_decay=0.0,
        )
        self.scheduler = get_linear_schedule_with_warmup(
            self.optimizer, math.ceil(config.warmup_share * self.num_updates), self.num_updates
        )
        self.generator = torch.Generator().manual_seed(config.seed)
        self.progress = Progress()
        # The policy whose KL was last seen below the ceiling.
        self.accepted_policy = [parameter.detach().clone() for parameter in self.policy_parameters]

    def train(self) -> Progress:
        """Run all updates that are left; continues from the last checkpoint in ``folder``.

        Raises:
            UserError: a loss or gradient is no longer finite.
        """
        self._load_checkpoint()
        while self.progress.num_updates < self.num_updates and not self.progress.stopped_by_kl:
            rollout = self._collect_rollout()
            figures = summarize(rollout, self.config.kl_coef)
            if figures["objective/kl"] > self.config.kl_ceiling:
                self._return_to_accepted_policy(figures["objective/kl"])
                break
            self.accepted_policy = [p.detach().clone() for p in self.policy_parameters]
            figures |= self._update(rollout)
            self.progress.num_updates += 1
            self._report(rollout, figures)
            if self.progress.num_updates % self.config.save_updates == 0:
                self._save_checkpoint()
        return self.progress

    # ------------------------------------------------------------------------------- rollout

    def _collect_rollout(self) -> Rollout:
        first = self.progress.num_updates * self.config.batch_size
        rows = [self._prompt_index(first + episode) for episode in range(self.config.batch_size)]
        return collect_rollout(
            self.config,
            self.model,
            self.value_model,
            self.scorer,
            self.tokenizer,
            [self.prompts[row] for row in rows],
            [self.prompt_ids[row] for row in rows],
            self.generator,
            self.micro_batch_size,
        )

    def _prompt_index(self, episode: int) -> int:
        """The prompt of an episode: each pass over the prompts goes in a new random order, which
        depends on the seed and the number of the pass alone."""
        round_, position = divmod(episode, len(self.prompts))
        order = list(range(len(self.prompts)))
        random.Random(f"{self.config.seed}/{round_}").shuffle(order)
        return order[position]

    # -------------------------------------------------------------------------------- update

    def _update(self, rollout: Rollout) -> dict[str, float]:
        """Several epochs of mini-batch steps on one rollout."""
        config = self.config
        steps = []
        for _ in range(config.num_ppo_epochs):
            order = torch.randperm(config.batch_size, generator=self.generator).tolist()
            size = config.batch_size // config.num_mini_batches
            mini_batches = (order[start : start + size] for start in range(0, len(order), size))
            steps += [self._step(rollout, rows) for rows in mini_batches]
        self.scheduler.step()
        return {name: sum(step[name] for step in steps) / len(steps) for name in steps[0]}

    def _step(self, rollout: Rollout, rows: list[int]) -> dict[str, float]:
        """One optimizer step on a mini-batch, accumulated over micro batches."""
        config = self.config
        num_tokens = int(rollout.lengths[rows].sum())
        figures: dict[str, float] = {}
        self.optimizer.zero_grad(set_to_none=True)
        for micro in micro_batches(
            rows, rollout.prompt_ids, rollout.completion_ids, self.micro_batch_size
        ):
            policy, value = self._losses(rollout, micro, num_tokens)
            (policy.loss + config.vf_coef * value.loss).backward()
            for name, part in (
                ("loss/policy_avg", policy.loss),
                ("loss/value_avg", value.loss),
                ("policy/clipfrac_avg", policy.clip_fraction),
                ("policy/approxkl_avg", policy.approx_kl),
                ("val/clipfrac_avg", value.clip_fraction),
                ("val/ratio", policy.ratio),
            ):
                figures[name] = figures.get(name, 0.0) + part.item()
        for name, parameters in (
            ("policy/grad_norm", self.policy_parameters),
            ("val/grad_norm", self.value_parameters),
        ):
            norm = float(nn.utils.clip_grad_norm_(parameters, config.max_grad_norm))
            if not math.isfinite(norm):
                raise UserError(
                    f"the gradient became {norm} at update {self.progress.num_updates + 1}; lower "
                    "ppo.learning_rate or ppo.value_learning_rate"
                )
            figures[name] = norm
        self.optimizer.step()
        return figures

    def _losses(self, rollout: Rollout, rows: list[int], num_tokens: int) -> tuple[Any, Any]:
        device = self.model.device
        batch = collate(
            [rollout.prompt_ids[row] for row in rows],
            [rollout.completion_ids[row] for row in rows],
            padding_id(self.tokenizer),
            device,
        )
        mask = batch.completion_mask
        columns = slice(mask.shape[1])
        with autocast(device):
            with active_adapter(self.model, POLICY):
                logprobs, _ = token_logprobs(self.model, batch, self.config.temperature)
            values = self.value_model(batch)
        policy = policy_loss(
            logprobs,
            rollout.logprobs[rows, columns],
            rollout.advantages[rows, columns],
            mask,
            self.config.cliprange,
            num_tokens,
        )
        value = value_loss(
            values,
            rollout.values[rows, columns],
            rollout.returns[rows, columns],
            mask,
            self.config.cliprange_value,
            num_tokens,
        )
        return policy, value

    def _return_to_accepted_policy(self, kl: float) -> None:
        print(
            f"stopped after update {self.progress.num_updates}: the KL of {kl:.1f} nats a reply "
            f"exceeds ppo.kl_ceiling = {self.config.kl_ceiling:g}; the policy before it is kept",
            flush=True,
        )
        with torch.no_grad():
            for parameter, kept in zip(self.policy_parameters, self.accepted_policy, strict=True):
                parameter.copy_(kept)
        self.progress.stopped_by_kl = True

    # ------------------------------------------------------------------------------- reports

    def _report(self, rollout: Rollout, figures: dict[str, float]) -> None:
        update = self.progress.num_updates
        episodes = update * self.config.batch_size
        figures["lr"] = self.optimizer.param_groups[0]["lr"]
        self.progress.history.append(
            {
                "update": update,
                "episodes": episodes,
                "score": figures["objective/scores"],
                "kl": figures["objective/kl"],
                "length": figures["val/completion_length"],
                "eos_rate": figures["val/eos_rate"],
                "entropy": figures["objective/entropy"],
            }
        )
        tracking.log_metrics({"episode": episodes, **figures}, update)
        score, kl = figures["objective/scores"], figures["objective/kl"]
        tracking.report_progress(update, self.num_updates, score=round(score, 2), kl=round(kl, 2))
        print(
            f"update {update}/{self.num_updates}  score {score:.3f}  kl {kl:.2f}  "
            f"length {figures['val/completion_length']:.1f}  eos {figures['val/eos_rate']:.2f}  "
            f"entropy {figures['objective/entropy']:.2f}  ratio {figures['val/ratio']:.4f}  "
            f"clipped {figures['policy/clipfrac_avg']:.3f}",
            flush=True,
        )
        if update % self.config.sample_updates == 0 or update == self.num_updates:
            tracking.log_table(list(_samples(rollout, update)), "samples")

    # --------------------------------------------------------------------------- checkpoints

    def _state(self) -> dict[str, Any]:
        """Everything that the next update depends on."""
        python_state = random.getstate()
        numpy_state = numpy.random.get_state(legacy=True)
        return {
            "policy": [parameter.detach() for parameter in self.policy_parameters],
            "value": [parameter.detach() for parameter in self.value_parameters],
            "accepted_policy": self.accepted_policy,
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "generator": self.generator.get_state(),
            "torch_rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            "other_rng": json.dumps(
                {
                    "python": python_state,
                    "numpy": [
                        item if isinstance(item, str | int | float) else item.tolist()
                        for item in numpy_state
                    ],
                }
            ),
            "num_updates": self.progress.num_updates,
            "history": self.progress.history,
        }

    def _save_checkpoint(self) -> None:
        """Write by temporary file and rename, then drop the oldest."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"update-{self.progress.num_updates:06d}.pt"
        part = path.with_suffix(".part")
        torch.save(self._state(), part)
        part.replace(path)
        for old in sorted(self.folder.glob("update-*.pt"))[:-CHECKPOINTS_KEPT]:
            old.unlink()

    def _load_checkpoint(self) -> None:
        checkpoints = sorted(self.folder.glob("update-*.pt"))
        if not checkpoints:
            return
        state = torch.load(checkpoints[-1], map_location="cpu", weights_only=True)
        with torch.no_grad():
            for parameters, saved in (
                (self.policy_parameters, state["policy"]),
                (self.value_parameters, state["value"]),
                (self.accepted_policy, state["accepted_policy"]),
            ):
                for parameter, tensor in zip(parameters, saved, strict=True):
                    parameter.copy_(tensor)
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.generator.set_state(state["generator"])
        torch.set_rng_state(state["torch_rng"])
        if state["cuda_rng"]:
            torch.cuda.set_rng_state_all(state["cuda_rng"])
        other = json.loads(state["other_rng"])
        version, internal, gauss = other["python"]
        random.setstate((version, tuple(internal), gauss))
        numpy.random.set_state(tuple(other["numpy"]))
        self.progress = Progress(num_updates=state["num_updates"], history=state["history"])
        print(f"continuing after update {self.progress.num_updates}", flush=True)


def _samples(rollout: Rollout, update: int) -> Iterator[dict[str, Any]]:
    kl = rollout.kl.sum(-1)
    for row in range(min(SAMPLES_SHOWN, len(rollout.prompts))):
        yield {
            "update": update,
            "prompt": prompt_text(rollout.prompts[row]),
            "response": rollout.completions[row],
            "score": round(float(rollout.scores[row]), 4),
            "kl": round(float(kl[row]), 4),
            "tokens": int(rollout.lengths[row]),
            "ended": bool(rollout.has_eos[row]),
        }
