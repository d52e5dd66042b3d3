"""Proximal policy optimisation of a language model, from the rollout to the update.

Read ``train`` first: one turn of its loop is one update. Follows Ziegler et al. 2019 and Huang et
al. 2024 ("The N+ Implementation Details of RLHF with PPO"); names of metrics are TRL's.
"""

import functools
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from stages.core import tracking
from stages.core.batching import token_budget_batches
from stages.core.config import PPOConfig
from stages.core.errors import UserError
from stages.core.launch import WARNING_PREFIX
from stages.core.logprobs import token_entropies, token_logprobs
from stages.core.models import padding_id
from stages.core.ranks import Ranks
from stages.core.scoring import Scorer
from stages.ppo import report
from stages.ppo.actor_critic import ActorCritic
from stages.ppo.checkpoint import load_checkpoint, save_checkpoint
from stages.ppo.guard import Alarm, Guard
from stages.ppo.kept_policy import KeptPolicy
from stages.ppo.losses import adapt_kl_coef, policy_loss, value_loss
from stages.ppo.prompts import Prompts, prompt_of_episode
from stages.ppo.rollout import (
    FrozenStates,
    Reply,
    Rollout,
    collate_replies,
    collect_rollout,
    sample_replies,
)

STEPS_SKIPPED_BEFORE_STOP = 5
"""Optimizer steps in a row without a finite gradient that end the run."""
VALUE_FIGURES = ("loss/value_avg", "val/clipfrac_avg")
POLICY_FIGURES = ("loss/policy_avg", "policy/clipfrac_avg", "policy/approxkl_avg", "val/ratio")
"""Names of what the losses return, in their order."""
clock = time.perf_counter
"""Times the phases of an update."""

Flatten = Callable[[torch.Tensor], torch.Tensor]
"""Takes what a rollout knows of each token (B, T) to the N tokens of a micro batch."""


@dataclass
class Progress:
    """How far the training is. Everything here goes into the checkpoint."""

    num_updates: int = 0
    kl_coef: float = 0.0
    steps_skipped: int = 0
    """Optimizer steps in a row whose gradient was not finite."""
    stopped: str = ""
    """Why the run ended before its last update."""
    kept_update: int = 0
    """Updates behind the policy that a stop returns to."""
    history: list[dict[str, float]] = field(default_factory=list)
    figures: list[dict[str, float]] = field(default_factory=list)
    """All metrics of each update."""


class PPOTrainer:
    """Trains policy and value model of ``actor_critic``."""

    def __init__(
        self,
        config: PPOConfig,
        actor_critic: ActorCritic,
        scorers: Mapping[str, Scorer],
        tokenizer: PreTrainedTokenizerBase,
        prompts: Prompts,
        max_tokens: int,
        max_sampled: int,
        folder: Path,
        ranks: Ranks,
    ) -> None:
        """
        Args:
            scorers: by the names in ``scorer_weights`` and of the guard's scorer.
            max_tokens: tokens that go through a model at once, padding included; no effect on the
                result but rounding.
            max_sampled: replies that are sampled at once; no effect on them.
            folder: where checkpoints are kept.
        """
        self.config = config
        self.actor_critic = actor_critic
        self.scorers = scorers
        self.tokenizer = tokenizer
        self.prompts = prompts
        self.max_tokens = max_tokens
        self.max_sampled = max_sampled
        self.folder = folder
        self.ranks = ranks
        self.num_updates = config.total_episodes // config.batch_size
        self.optimizer = torch.optim.AdamW(
            [
                {"params": actor_critic.policy_parameters, "lr": config.learning_rate},
                {"params": actor_critic.value_parameters, "lr": config.value_learning_rate},
            ],
            eps=config.adam_epsilon,
            weight_decay=0.0,
            fused=True,
        )
        self.scheduler = LambdaLR(self.optimizer, self._learning_rate_factor)
        self.generator = torch.Generator().manual_seed(config.seed)
        self.guard = Guard(config.guard)
        self.progress = Progress(kl_coef=config.kl_coef)
        self.kept_policy: KeptPolicy | None = None
        if config.guard.action == "stop":
            self.kept_policy = KeptPolicy(actor_critic.policy_parameters, config.guard.window)
        self._started = time.monotonic()
        self._updates_before = 0

    def train(self) -> Progress:
        """Run all updates that are left; continues from the last checkpoint in ``folder``.

        Raises:
            UserError: a scorer fails, or gradients are not finite and there is no policy to return
                to.
        """
        self._load_checkpoint()
        while self.progress.num_updates < self.num_updates:
            started = clock()
            replies = self._sample_replies()
            sampled = clock()
            rollout, frozen = self._rate(replies)
            rated = clock()
            figures = report.summarize(rollout, self.progress.kl_coef)
            self._consult_guard(rollout)
            if self.progress.stopped:
                break
            figures["lr"] = self.optimizer.param_groups[0]["lr"]
            figures |= self._update(rollout, frozen)
            if self.progress.stopped:
                break
            figures["time/generate"] = sampled - started
            figures["time/score"] = rated - sampled
            figures["time/optimize"] = clock() - rated
            self._finish_update(rollout, figures)
        else:  # the guard has not yet seen what the last update made of the policy
            self._consult_guard(self._rate(self._sample_replies())[0])
        return self.progress

    def _learning_rate_factor(self, update: int) -> float:
        """Linear warm-up and linear decay, never down to a step of nothing."""
        warmup = math.ceil(self.config.warmup_share * self.num_updates)
        left = (self.num_updates - update) / max(self.num_updates - warmup, 1)
        return min((update + 1) / (warmup + 1), left)

    # ------------------------------------------------------------------------------- rollout

    def _sample_replies(self) -> list[Reply]:
        """This rank's share of the rollout."""
        config = self.config
        first = self.progress.num_updates * config.batch_size
        uniforms = torch.rand(
            config.batch_size, config.max_completion_length, generator=self.generator
        )
        rows = self.ranks.share(range(config.batch_size))
        count = len(self.prompts.ids)
        indices = {row: prompt_of_episode(first + row, count, config.seed) for row in rows}
        return sample_replies(
            config,
            self.actor_critic,
            self.tokenizer,
            {row: self.prompts.prompts[index] for row, index in indices.items()},
            {row: self.prompts.ids[index] for row, index in indices.items()},
            uniforms,
            self.max_sampled,
        )

    def _rate(self, replies: list[Reply]) -> tuple[Rollout, FrozenStates]:
        weights = self.config.scorer_weights
        names = [name for name in self.scorers if weights.get(name) or self._is_watched()]
        return collect_rollout(
            self.config,
            self.actor_critic,
            {name: self.scorers[name] for name in names},
            replies,
            self.tokenizer,
            self.progress.kl_coef,
            self.max_tokens,
            self.ranks,
        )

    # -------------------------------------------------------------------------------- update

    def _update(self, rollout: Rollout, frozen: FrozenStates) -> dict[str, float]:
        """Several epochs of mini-batch steps on one rollout; the means of the steps' figures."""
        steps: list[dict[str, float]] = []
        num_taken = 0
        with self.actor_critic.training():
            for rows in self._mini_batches():
                figures = self._step(rollout, frozen, rows)
                if figures:
                    steps.append(figures)
                if self.progress.stopped or self._is_too_far(figures):
                    break
                num_taken += bool(figures)
        self.scheduler.step()
        names = steps[0] if steps else {}
        means = {name: sum(step[name] for step in steps) / len(steps) for name in names}
        return means | {"policy/num_steps": float(num_taken)}

    def _mini_batches(self) -> Iterator[torch.Tensor]:
        size = self.config.batch_size // self.config.num_mini_batches
        for _ in range(self.config.num_ppo_epochs):
            yield from torch.randperm(self.config.batch_size, generator=self.generator).split(size)

    def _is_too_far(self, figures: dict[str, float]) -> bool:
        """Whether the policy has left the one that sampled further than allowed."""
        limit = self.config.max_approx_kl
        return bool(limit) and figures.get("policy/approxkl_avg", 0.0) > limit

    def _step(self, rollout: Rollout, frozen: FrozenStates, rows: torch.Tensor) -> dict[str, float]:
        """One optimizer step on a mini-batch, accumulated over micro batches and ranks. Returns its
        figures, none where the step was skipped."""
        self.optimizer.zero_grad(set_to_none=True)
        num_tokens = int(rollout.lengths[rows].sum())
        totals = self._backward(rollout, frozen, self.ranks.share(rows.tolist()), num_tokens)
        self._add_up_gradients()
        self.ranks.add_up(list(totals.values()))
        figures = {name: float(total) for name, total in totals.items()}
        limit = self.config.max_grad_norm
        policy_norm = nn.utils.clip_grad_norm_(self.actor_critic.policy_parameters, limit)
        value_norm = nn.utils.clip_grad_norm_(self.actor_critic.value_parameters, limit)
        if not math.isfinite(policy_norm + value_norm):
            self._skip_step()
            return {}
        self.progress.steps_skipped = 0
        if not self._is_too_far(figures):
            self.optimizer.step()
        return figures | {
            "policy/grad_norm": float(policy_norm),
            "val/grad_norm": float(value_norm),
        }

    def _policy_waits(self) -> bool:
        """Whether the value model still learns alone."""
        return self.progress.num_updates < self.config.value_warmup_updates

    def _backward(
        self, rollout: Rollout, frozen: FrozenStates, rows: list[int], num_tokens: int
    ) -> dict[str, torch.Tensor]:
        """Add the gradients of this rank's rows of a mini-batch, the value model's and the
        policy's; returns the rows' share of the mini-batch's figures."""
        config, actor_critic = self.config, self.actor_critic
        figures = torch.zeros(len(VALUE_FIGURES), device=actor_critic.device)
        for _, states, flat, _ in self._micro_batches("value", rollout, frozen, rows):
            value = value_loss(
                actor_critic.values(states),
                flat(rollout.values),
                flat(rollout.returns),
                config.cliprange_value,
                num_tokens,
            )
            (config.vf_coef * value.loss).backward()
            figures += torch.stack(value).detach()
        totals = dict(zip(VALUE_FIGURES, figures, strict=True))
        if self._policy_waits():
            return totals
        figures = torch.zeros(len(POLICY_FIGURES), device=actor_critic.device)
        for model, states, flat, ids in self._micro_batches("policy", rollout, frozen, rows):
            policy = policy_loss(
                token_logprobs(model, states, ids, config.temperature),
                flat(rollout.logprobs),
                flat(rollout.advantages),
                config.cliprange,
                num_tokens,
            )
            loss = policy.loss
            if config.entropy_coef:
                entropies = token_entropies(model, states, config.temperature)
                loss = loss - config.entropy_coef * entropies.sum() / num_tokens
            loss.backward()
            figures += torch.stack(policy).detach()
        return totals | dict(zip(POLICY_FIGURES, figures, strict=True))

    def _micro_batches(
        self,
        name: Literal["policy", "value"],
        rollout: Rollout,
        frozen: FrozenStates,
        rows: list[int],
    ) -> Iterator[tuple[PreTrainedModel, torch.Tensor, Flatten, torch.Tensor]]:
        """For each micro batch of N tokens: the model, its states (N, H), what flattens the
        rollout's tensors, the ids of the tokens. Run the backward pass before asking for the next:
        until then the model stays as ``Role.states`` wants it."""
        role = self.actor_critic.value if name == "value" else self.actor_critic.policy
        device = self.actor_critic.device
        lengths = [len(rollout.replies[row]) for row in rows]
        with role.active() as model:
            for micro in token_budget_batches(lengths, self.max_tokens):
                part = [rows[index] for index in micro]
                replies = [rollout.replies[row] for row in part]
                batch = collate_replies(replies, padding_id(self.tokenizer), device)
                flat = functools.partial(_flat, part, rollout.mask[part], device)
                with role.states(model, batch, frozen.of(name, replies)) as states:
                    yield model, states, flat, batch.completion_ids

    def _add_up_gradients(self) -> None:
        """Over the ranks: losses are divided by the tokens of all, so their gradients add up."""
        parameters = list(self.actor_critic.value_parameters)
        if not self._policy_waits():
            parameters += self.actor_critic.policy_parameters
        for parameter in parameters:
            if parameter.grad is None:  # this rank has no row of the mini-batch
                parameter.grad = torch.zeros_like(parameter)
        self.ranks.add_up([parameter.grad for parameter in parameters])

    def _skip_step(self) -> None:
        """A gradient that is not finite: once it is bad luck, twice the steps are too long, and
        after some more there is nothing left to learn."""
        self.progress.steps_skipped += 1
        count, update = self.progress.steps_skipped, self.progress.num_updates + 1
        self._warn(f"update {update}: the gradient is not finite, step skipped")
        if count > 1:
            self.scheduler.base_lrs = [rate / 2 for rate in self.scheduler.base_lrs]
            for group in self.optimizer.param_groups:
                group["lr"] /= 2
            self._warn(f"learning rates halved to {self.optimizer.param_groups[0]['lr']:.2g}")
        if count == STEPS_SKIPPED_BEFORE_STOP:
            reason = f"{count} gradients in a row were not finite"
            if not self.progress.kept_update:
                raise UserError(
                    f"update {update}: {reason}; lower ppo.learning_rate or ppo.value_learning_rate"
                )
            self._stop(reason)

    # --------------------------------------------------------------------------------- guard

    def _is_watched(self) -> bool:
        """Whether scorers without weight rate this rollout; the one after the last update always
        has them."""
        update = self.progress.num_updates
        return update % self.config.guard.updates == 0 or update == self.num_updates

    def _consult_guard(self, rollout: Rollout) -> None:
        """Let the guard see a rollout, and do what its alarms ask for: that may end the run."""
        guard, update = self.guard, self.progress.num_updates
        alarms = [guard.observe_kl(update, float(rollout.kl.sum(-1).mean()))]
        is_good, is_best = not guard.updates_over and guard.best is None, False
        if guard.config.scorer and self._is_watched():
            watched = [reply.scores[guard.config.scorer] for reply in rollout.replies]
            alarm, is_best = guard.observe_scores(update, rollout.scores.tolist(), watched)
            alarms.append(alarm)
            if self.kept_policy:
                self.kept_policy.note_scoring(update)
        for alarm in alarms:
            if alarm is not None:
                self._act(alarm)
        if self.progress.stopped or not self.kept_policy:
            return
        if is_best:
            self.progress.kept_update = self.kept_policy.keep_middle()
        elif is_good:
            self.kept_policy.keep()
            self.progress.kept_update = update

    def _act(self, alarm: Alarm) -> None:
        self._warn(f"guard: after update {alarm.update}: {alarm.reason}")
        if self.config.guard.action == "raise_kl":
            self.progress.kl_coef *= 2
            self._warn(f"guard: the KL coefficient is now {self.progress.kl_coef:g}")
        elif self.config.guard.action == "stop":
            self._stop(alarm.reason)

    def _stop(self, reason: str) -> None:
        """End the run, with the policy that was kept."""
        self.progress.stopped = reason
        if self.kept_policy:
            self.kept_policy.restore()
        done, kept = self.progress.num_updates, self.progress.kept_update
        self._warn(f"stopped after update {done}: {reason}; the policy after update {kept} is kept")

    # ------------------------------------------------------------------- reports, checkpoints

    def _finish_update(self, rollout: Rollout, figures: dict[str, float]) -> None:
        config, progress = self.config, self.progress
        progress.num_updates += 1
        update = progress.num_updates
        if config.kl_target:
            kl = figures["objective/kl"]
            progress.kl_coef = adapt_kl_coef(
                progress.kl_coef, kl, config.kl_target, config.kl_horizon, config.batch_size
            )
        if config.reset_reference_updates and update % config.reset_reference_updates == 0:
            self.actor_critic.reset_reference()
        figures |= {"update": update, "guard/alarms": len(self.guard.alarms)}
        progress.figures.append(figures)
        progress.history.append(report.history_row(update, update * config.batch_size, figures))
        self._report(rollout)
        if update % config.save_updates == 0 or update == self.num_updates:
            self._save_checkpoint()

    def _report(self, rollout: Rollout) -> None:
        if not self.ranks.is_main:
            return
        row = self.progress.history[-1]
        update, episodes = self.progress.num_updates, int(row["episodes"])
        done = update - self._updates_before
        left = (time.monotonic() - self._started) / done * (self.num_updates - update)
        tracking.log_metrics(self.progress.figures[-1], episodes)
        tracking.report_progress(
            update, self.num_updates, score=round(row["score"], 2), kl=round(row["kl"], 2)
        )
        self._say(report.line(row, self.num_updates, left))
        if update % self.config.sample_updates == 0 or update == self.num_updates:
            tracking.log_table(list(report.samples(rollout, update)), "samples")

    def _warn(self, text: str) -> None:
        self._say(WARNING_PREFIX + text)

    def _say(self, text: str) -> None:
        if self.ranks.is_main:
            print(text, flush=True)

    def _save_checkpoint(self) -> None:
        """Everything that the next update depends on."""
        if not self.ranks.is_main:
            return
        actor_critic = self.actor_critic
        state = {
            "policy": [p.detach() for p in actor_critic.policy_parameters],
            "value": [p.detach() for p in actor_critic.value_parameters],
            "reference": [p.detach() for p in self._moving_reference()],
            "kept_policy": self.kept_policy.state() if self.kept_policy else {},
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "generator": self.generator.get_state(),
            "guard": self.guard.state(),
            "progress": asdict(self.progress),
        }
        save_checkpoint(self.folder, self.progress.num_updates, state)

    def _load_checkpoint(self) -> None:
        state = load_checkpoint(self.folder)
        if state is not None:
            self._restore(state)
        if self.ranks.is_main:  # else the updates after the checkpoint would be there twice
            rows = zip(self.progress.history, self.progress.figures, strict=True)
            tracking.restart_metrics([(int(row["episodes"]), figures) for row, figures in rows])

    def _restore(self, state: dict[str, Any]) -> None:
        _copy(state["policy"], self.actor_critic.policy_parameters)
        _copy(state["value"], self.actor_critic.value_parameters)
        _copy(state["reference"], self._moving_reference())
        if self.kept_policy:
            self.kept_policy.load_state(state["kept_policy"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.generator.set_state(state["generator"])
        self.guard.load_state(state["guard"])
        self.progress = Progress(**state["progress"])
        self._updates_before = self.progress.num_updates
        self._say(f"continuing after update {self.progress.num_updates}")

    def _moving_reference(self) -> list[nn.Parameter]:
        moves = self.config.reset_reference_updates
        return self.actor_critic.reference_parameters() if moves else []


def _flat(
    rows: list[int], mask: torch.Tensor, device: torch.device, values: torch.Tensor
) -> torch.Tensor:
    return values[rows][mask].to(device)


@torch.no_grad()
def _copy(sources: list[torch.Tensor], targets: list[torch.Tensor]) -> None:
    for source, target in zip(sources, targets, strict=True):
        target.copy_(source)
