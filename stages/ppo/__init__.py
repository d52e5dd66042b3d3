"""The stage ppo: optimise the SFT model against scorers, and merge the policy."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed

from stages.core import tracking
from stages.core.artifacts import CHECKPOINTS, make_artifact, write_atomically
from stages.core.chat import Prompt
from stages.core.config import Compute, PPOConfig
from stages.core.contracts import PPOInputs, PPOOutputs
from stages.core.errors import UserError
from stages.core.models import load_model, load_tokenizer, max_positions, save_adapter, save_model
from stages.core.ranks import Ranks
from stages.core.schemas import read_jsonl
from stages.core.scoring import load_reward_model, read_manifest
from stages.ppo import report
from stages.ppo.actor_critic import POLICY, VALUE, ActorCritic, load_actor_critic
from stages.ppo.guard import Alarm
from stages.ppo.prompts import Prompts, read_prompts
from stages.ppo.scores import load_scorers, weighted_sum
from stages.ppo.trainer import PPOTrainer

HISTORY_FILE = "history.jsonl"
SAMPLED_ROWS = 8
"""Replies sampled at once for each row of a micro batch: sampling keeps a row's keys and values,
training all of its activations."""
CPU_TOKENS = 512
"""Tokens of a micro batch on CPUs: more no longer fit their caches."""


class Trained(NamedTuple):
    """What an algorithm leaves behind."""

    policy: PreTrainedModel
    """With the adapter merged, where there was one."""
    history: list[dict[str, float]]
    metrics: dict[str, float]
    alarms: Sequence[Alarm] = ()


def run(
    config: PPOConfig, inputs: PPOInputs, compute: Compute, out_dir: Path
) -> tuple[PPOOutputs, dict[str, float]]:
    """Optimise the SFT model against the weighted scorers, or on the pairs (DPO).

    Raises:
        UserError: there are more processes than replies in a batch, the reward model belongs to
            another model, too many prompts do not fit, a scorer fails, or a loss is no longer
            finite.
    """
    if compute.num_processes > config.batch_size:
        raise UserError(
            f"compute.num_processes ({compute.num_processes}) exceeds ppo.batch_size "
            f"({config.batch_size}), so that a process would have no reply to sample; lower the "
            "one or raise the other"
        )
    set_seed(config.seed)
    ranks = Ranks(compute)
    base = inputs.model.locate()
    if read_manifest(inputs.reward_model.locate()).base_digest != inputs.model.digest:
        raise UserError(
            "the reward model was trained on another SFT model than the policy starts from; run "
            "the stage reward_model on this one"
        )
    tokenizer = load_tokenizer(base)
    if config.algorithm == "ppo":
        trained = _train_with_ppo(config, inputs, compute, out_dir, tokenizer, ranks)
    else:
        trained = _train_with_trl(config, inputs, compute, out_dir, tokenizer, ranks)
    if ranks.is_main:
        lines = [json.dumps(row) + "\n" for row in trained.history]
        write_atomically(out_dir / HISTORY_FILE, "".join(lines))
        if trained.history:
            figure = report.curves(trained.history, trained.alarms)
            tracking.log_figure(figure, "training", out_dir)
        save_model(trained.policy, tokenizer, out_dir / "model")
    ranks.wait()
    adapter = out_dir / "adapter"
    outputs = PPOOutputs(
        adapter=make_artifact("adapter", adapter) if adapter.exists() else None,
        model=make_artifact("model", out_dir / "model"),
        history=make_artifact("history", out_dir / HISTORY_FILE),
    )
    return outputs, trained.metrics


def _train_with_ppo(
    config: PPOConfig,
    inputs: PPOInputs,
    compute: Compute,
    out_dir: Path,
    tokenizer: PreTrainedTokenizerBase,
    ranks: Ranks,
) -> Trained:
    actor_critic, reward_model = load_actor_critic(
        config, inputs.model.locate(), inputs.reward_model.locate(), tokenizer, ranks.device
    )
    prompts = _prompts_that_fit(config, inputs, tokenizer, reward_model.model)
    trainer = PPOTrainer(
        config,
        actor_critic,
        load_scorers(config, inputs, reward_model, ranks.device, tokenizer),
        tokenizer,
        prompts,
        _tokens_at_once(config, compute, prompts, ranks),
        SAMPLED_ROWS * compute.micro_batch_size,
        out_dir / CHECKPOINTS,
        ranks,
    )
    progress = trainer.train()
    last = progress.history[-5:]
    metrics = {
        "updates": float(progress.num_updates),
        "stopped_early": float(bool(progress.stopped)),
        "guard_alarms": float(len(trainer.guard.alarms)),
        "policy_update": float(progress.kept_update if progress.stopped else progress.num_updates),
    }
    if last:
        metrics |= {
            "score_first": progress.history[0]["score"],
            "score_last": sum(row["score"] for row in last) / len(last),
            "kl_last": last[-1]["kl"],
        }
    policy = _save_parts(actor_critic, inputs, out_dir, tokenizer, ranks)
    return Trained(policy, progress.history, metrics, trainer.guard.alarms)


def _prompts_that_fit(
    config: PPOConfig,
    inputs: PPOInputs,
    tokenizer: PreTrainedTokenizerBase,
    model: PreTrainedModel,
) -> Prompts:
    """Those that leave room for a reply within the model's positions, and for the EOS that scorers
    add to a reply without one."""
    longest = max_positions(model) - config.max_completion_length - 1
    return read_prompts(inputs.prompts.locate() / "train.jsonl", tokenizer, config, longest)


def _tokens_at_once(config: PPOConfig, compute: Compute, prompts: Prompts, ranks: Ranks) -> int:
    """What ``micro_batch_size`` sequences of full length take."""
    longest = max(map(len, prompts.ids)) + config.max_completion_length
    tokens = compute.micro_batch_size * longest
    return min(tokens, CPU_TOKENS) if ranks.device.type == "cpu" else tokens


def _save_parts(
    actor_critic: ActorCritic,
    inputs: PPOInputs,
    out_dir: Path,
    tokenizer: PreTrainedTokenizerBase,
    ranks: Ranks,
) -> PreTrainedModel:
    """Write what is smaller than the whole policy: its adapter, and the value model, for whoever
    trains on. Returns the policy with the adapter merged."""
    policy, value = actor_critic.policy, actor_critic.value
    if ranks.is_main:
        folder = out_dir / "value_model"
        if value.adapter:
            save_adapter(policy.model, POLICY, inputs.model, out_dir / "adapter")
            save_adapter(value.model, VALUE, inputs.model, folder)
        else:
            save_model(value.model, tokenizer, folder)
        torch.save(actor_critic.value_head.state_dict(), folder / "head.pt")
    if policy.adapter:
        return policy.model.merge_and_unload(adapter_names=[POLICY])
    return policy.model


def _train_with_trl(
    config: PPOConfig,
    inputs: PPOInputs,
    compute: Compute,
    out_dir: Path,
    tokenizer: PreTrainedTokenizerBase,
    ranks: Ranks,
) -> Trained:
    from stages.ppo.trl_trainers import train_with_trl  # slow to import

    base = inputs.model.locate()
    model = load_model(base, ranks.device)
    prompts = _prompts_that_fit(config, inputs, tokenizer, model)
    reward_model = load_reward_model(inputs.reward_model.locate(), base, ranks.device)
    scorers = load_scorers(config, inputs, reward_model, ranks.device, tokenizer)
    optimized = [name for name, weight in config.scorer_weights.items() if weight]

    def score(prompts: Sequence[Prompt], completions: Sequence[str]) -> list[float]:
        scores = {name: scorers[name](prompts, completions) for name in optimized}
        return weighted_sum(scores, config.scorer_weights)

    pairs = inputs.preferences.locate() / "train.jsonl" if inputs.preferences else None
    adapted, history = train_with_trl(
        config,
        compute,
        model,
        tokenizer,
        score,
        prompts.prompts,
        list(read_jsonl(pairs)) if pairs else [],
        out_dir,
    )
    if ranks.is_main:
        save_adapter(adapted, POLICY, inputs.model, out_dir / "adapter")
    metrics = {"updates": float(history[-1]["update"])} if history else {}
    return Trained(adapted.merge_and_unload(adapter_names=[POLICY]), history, metrics)
