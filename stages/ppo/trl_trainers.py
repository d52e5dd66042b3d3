"""RLOO, GRPO and DPO through TRL's trainers, with PPO's inputs and outputs.

- RLOO (Ahmadian et al. 2024, section 3.3): a reply's advantage is its reward less the mean reward
  of the other replies to the same prompt. The KL penalty (k1, summed over the reply) is part of the
  reward, as in PPO; ratio and clipping are those of whole replies.
- GRPO (Shao et al. 2024, section 4.1): advantages are scores in standard deviations from the mean
  of the replies to the same prompt. The KL penalty (k3) is part of the loss, so ``kl_coef`` weighs
  it against advantages of unit variance, whatever the scale of the score.
- DPO (Rafailov et al. 2023, equation 7): learns from the preference pairs; nothing is sampled.
"""

import contextlib
import copy
import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

from datasets import Dataset
from peft import (
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from torch import nn
from transformers import (
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainerState,
)
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from stages.core import tracking
from stages.core.artifacts import CHECKPOINTS
from stages.core.chat import (
    Prompt,
    decode_completion,
    encode_completion,
    encode_prompt,
    prompt_text,
)
from stages.core.config import Compute, PPOConfig
from stages.core.errors import UserError
from stages.core.models import max_positions, padding_id, pick_device, supports_bf16
from stages.core.scoring import Scorer
from stages.core.training import ForwardMetrics, micro_batch, train
from stages.ppo import report
from stages.ppo.actor_critic import POLICY, policy_lora
from stages.ppo.prompts import prompt_of_episode
from stages.ppo.trl_report import Report, finished_updates, num_updates, steps_per_update

Tokenizer = PreTrainedTokenizerBase

TINY_BETA = 1e-12
"""Stands for a KL coefficient of 0, at which TRL would not even measure the KL."""

ALL = ("rloo", "grpo", "dpo")
UNSUPPORTED: tuple[tuple[str, object, tuple[str, ...]], ...] = (
    ("finetuning", "lora", ALL),
    ("kl_target", 0.0, ALL),
    ("reset_reference_updates", 0, ALL),
    ("max_approx_kl", 0.0, ALL),
    ("whiten_rewards", False, ALL),
    ("guard.scorer", "", ALL),
    ("entropy_coef", 0.0, ("rloo", "dpo")),
    ("kl_estimator", "k1", ("rloo",)),
)
"""What TRL does not have: the setting, the value that asks for nothing, and with which algorithm.
Settings that only PPO could have (of the value model, say) are not asked about."""


def train_with_trl(
    config: PPOConfig,
    compute: Compute,
    model: PreTrainedModel,
    tokenizer: Tokenizer,
    scorer: Scorer,
    prompts: Sequence[Prompt],
    pairs: Sequence[dict[str, Any]],
    out_dir: Path,
) -> tuple[PeftModel, list[dict[str, float]]]:
    """Train the LoRA adapter ``policy`` on the SFT model; the reference is the model without it.

    An update samples ``batch_size`` replies, ``num_generations`` to a prompt, and takes
    ``num_mini_batches`` · ``num_ppo_epochs`` optimizer steps on them. With DPO it passes once, in
    ``num_mini_batches`` steps, over the next ``batch_size`` pairs. Continues from the last complete
    checkpoint in ``out_dir``; the result is that of the undisturbed run bit for bit.

    Args:
        model: in float32, dropout off. It comes back inside the ``PeftModel``, otherwise unchanged.
        scorer: the score that is optimised, before clipping. DPO does not call it.
        prompts: those that fit; DPO looks at none.
        pairs: rows with prompt, chosen and rejected; only DPO looks at them.

    Returns:
        The model in evaluation mode, and a row an update: ``update``, ``episodes``, ``score`` (the
        mean before the penalty for a missing EOS), ``kl`` (nats a reply), ``length``, ``eos_rate``
        and ``entropy``. The entropy, and GRPO's KL, are means over the update's optimizer steps
        instead of figures of the policy that sampled. No rows for DPO.

    Raises:
        UserError: TRL cannot do what a setting asks for, there are no pairs or too many are
            over-long, a score is not a number, or a loss is no longer finite.
    """
    _refuse_unsupported(config)
    with _lend(config, model, tokenizer) as lent_tokenizer:
        arguments = {
            "model": model,
            "processing_class": lent_tokenizer,
            "peft_config": policy_lora(config, model),
            "callbacks": [Report(config)],
        }
        settings = _settings(config, compute, out_dir)
        if config.algorithm == "dpo":
            rows = _tokenize_pairs(config, tokenizer, pairs, max_positions(model))
            trainer = _dpo_trainer(config, rows, settings, arguments)
        else:
            trainer = _sampling_trainer(config, tokenizer, scorer, prompts, settings, arguments)
        train(trainer, out_dir)
        # TRL knows no other name of an adapter than "default". Taken out and put in again, the
        # model also loses the trainer's wrappers.
        trained = trainer.accelerator.unwrap_model(trainer.model)
        state = get_peft_model_state_dict(trained, adapter_name="default")
        trained.unload()
    policy = get_peft_model(model, trained.peft_config["default"], adapter_name=POLICY)
    set_peft_model_state_dict(policy, state, adapter_name=POLICY)
    # The log is part of the checkpoints: a resumed run has the updates before, too.
    updates = finished_updates(config, trainer.state.log_history)
    sampled = config.algorithm != "dpo"
    return policy.eval(), [report.history_row(*update) for update in updates if sampled]


def _refuse_unsupported(config: PPOConfig) -> None:
    algorithm = config.algorithm
    for name, off, algorithms in UNSUPPORTED:
        value = attrgetter(name)(config)
        if algorithm in algorithms and value != off:
            raise UserError(
                f"ppo.{name} = {value} has no effect with ppo.algorithm={algorithm}; "
                f"set ppo.{name}={off}"
            )
    if algorithm != "dpo" and config.batch_size % config.num_generations:
        raise UserError(
            f"ppo.batch_size ({config.batch_size}) must be divisible by ppo.num_generations "
            f"({config.num_generations}) with ppo.algorithm={algorithm}; change one of them"
        )


@contextlib.contextmanager
def _lend(config: PPOConfig, model: PreTrainedModel, tokenizer: Tokenizer) -> Iterator[Tokenizer]:
    """Lend the model to a trainer, which changes its configuration and its forward, and put all
    back at the end. Yields a copy of the tokenizer that has a padding token."""
    before, generation_config = copy.deepcopy(vars(model.config)), model.generation_config
    # The model's own may hold a top-p, or further tokens that end a reply: PPO heeds neither.
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, bos_token_id=tokenizer.bos_token_id
    )
    lent_tokenizer = copy.deepcopy(tokenizer)
    lent_tokenizer.pad_token = tokenizer.convert_ids_to_tokens(padding_id(tokenizer))
    hook = model.register_forward_pre_hook(_add_positions, with_kwargs=True)
    try:
        yield lent_tokenizer
    finally:
        hook.remove()
        model.generation_config = generation_config
        vars(model.config).update(before)
        vars(model).pop("forward", None)
        if config.gradient_checkpointing:
            model.gradient_checkpointing_disable()
            model.disable_input_require_grads()


def _add_positions(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """TRL pads prompts on the left but counts the padding as positions, other than in sampling.
    Where positions are learned (GPT-2), the log-probabilities would be those of another text."""
    if (
        "position_ids" in inspect.signature(type(model).forward).parameters
        and kwargs.get("position_ids") is None
        and kwargs.get("attention_mask") is not None
        and kwargs["attention_mask"].shape == kwargs["input_ids"].shape
    ):
        kwargs["position_ids"] = (kwargs["attention_mask"].cumsum(-1) - 1).clamp(min=0)
    return args, kwargs


# --------------------------------------------------------------------------------------- trainers


def _settings(config: PPOConfig, compute: Compute, out_dir: Path) -> dict[str, Any]:
    """Keyword arguments for the configuration classes of all three trainers."""
    device = pick_device(compute)
    mini_batch_size = config.batch_size // config.num_mini_batches
    micro_batch_size = micro_batch(mini_batch_size, compute)
    num_steps = steps_per_update(config)
    return {
        "output_dir": str(out_dir / CHECKPOINTS),
        "per_device_train_batch_size": micro_batch_size,
        "gradient_accumulation_steps": mini_batch_size
        // (micro_batch_size * compute.num_processes),
        "num_train_epochs": 1,  # the data sets hold every episode
        "learning_rate": config.learning_rate,
        "lr_scheduler_type": "linear",
        "warmup_steps": math.ceil(config.warmup_share * num_updates(config) * num_steps),
        "weight_decay": 0.0,
        "adam_epsilon": config.adam_epsilon,
        "max_grad_norm": config.max_grad_norm,
        "gradient_checkpointing": config.gradient_checkpointing,
        "disable_dropout": True,
        # Only between updates: the replies of a rollout are not part of a checkpoint.
        "save_steps": config.save_updates * num_steps,
        "save_total_limit": 2,
        "logging_steps": num_steps,
        "logging_nan_inf_filter": False,  # else a loss that is no number never shows in the logs
        "seed": config.seed,
        "data_seed": config.seed,
        "bf16": supports_bf16(device),
        "use_cpu": device.type == "cpu",
        "report_to": "none",
        "disable_tqdm": True,
    }


class _Reported:
    """A trainer whose figures only ``_Report`` reports."""

    def train(self, *args: Any, **kwargs: Any) -> Any:
        self.remove_callback(ForwardMetrics)  # ``training.train`` adds it; it reports every step
        return super().train(*args, **kwargs)


class _TokenIds(_Reported):
    """Prompts are numbers, and their tokens ours: TRL would tokenize a text without the chat
    template, and render messages so that special tokens written in them become special."""

    prompt_ids: list[list[int]]

    def _tokenize_prompts(self, prompts: list[int]) -> tuple[list[list[int]], None, dict[str, Any]]:
        return [self.prompt_ids[number] for number in prompts], None, {}


class _RLOO(_TokenIds, RLOOTrainer):
    pass


class _GRPO(_TokenIds, GRPOTrainer):
    pass


class _DPO(_Reported, DPOTrainer):
    """Takes prompt_ids, chosen_ids and rejected_ids as they are."""

    def _prepare_dataset(self, dataset: Dataset, *args: Any) -> Dataset:
        return dataset


def _sampling_trainer(
    config: PPOConfig,
    tokenizer: Tokenizer,
    scorer: Scorer,
    prompts: Sequence[Prompt],
    settings: dict[str, Any],
    arguments: dict[str, Any],
) -> _RLOO | _GRPO:
    settings = settings | {
        "beta": config.kl_coef or TINY_BETA,
        "epsilon": config.cliprange,
        "num_generations": config.num_generations,
        "num_iterations": config.num_ppo_epochs,
        "steps_per_generation": settings["gradient_accumulation_steps"] * config.num_mini_batches,
        "max_completion_length": config.max_completion_length,
        "temperature": config.temperature,
        # Let a broken model sample on, so that its loss shows what is wrong.
        "generation_kwargs": {"remove_invalid_values": True},
        "shuffle_dataset": False,
    }
    num_groups = num_updates(config) * (config.batch_size // config.num_generations)
    # In an order of our own: TRL would leave out the prompts that do not fill an update, all of
    # them where there are too few, and resume in another order.
    numbers = [prompt_of_episode(group, len(prompts), config.seed) for group in range(num_groups)]
    arguments = arguments | {
        "reward_funcs": _reward_function(config, scorer, tokenizer, prompts),
        "train_dataset": Dataset.from_dict({"prompt": numbers}),
    }
    trainer: _RLOO | _GRPO
    if config.algorithm == "rloo":
        trainer = _RLOO(args=RLOOConfig(**settings), **arguments)
    else:
        args = GRPOConfig(
            **settings,
            # The paper's loss; TRL's default is that of later papers (DAPO, DeepSeek-V3.2).
            loss_type="grpo",
            scale_rewards="group",
            use_bias_correction_kl=False,
            entropy_coef=config.entropy_coef,
        )
        trainer = _GRPO(args=args, **arguments)
    trainer.prompt_ids = [encode_prompt(tokenizer, prompt) for prompt in prompts]
    return trainer


def _dpo_trainer(
    config: PPOConfig,
    rows: list[dict[str, list[int]]],
    settings: dict[str, Any],
    arguments: dict[str, Any],
) -> _DPO:
    num_pairs = num_updates(config) * config.batch_size
    order = [prompt_of_episode(pair, len(rows), config.seed) for pair in range(num_pairs)]
    args = DPOConfig(
        **settings,
        beta=config.dpo_beta,
        max_length=None,  # nothing is cut behind our back: _tokenize_pairs decided
        train_sampling_strategy="sequential",
    )
    return _DPO(args=args, train_dataset=Dataset.from_list(rows).select(order), **arguments)


def _tokenize_pairs(
    config: PPOConfig, tokenizer: Tokenizer, pairs: Sequence[dict[str, Any]], max_positions: int
) -> list[dict[str, list[int]]]:
    """Token ids of the pairs that fit into the model's positions, and into ``max_prompt_length``
    and ``max_completion_length`` together."""
    if not pairs:
        raise UserError("ppo.algorithm=dpo needs preference pairs; set collect.preferences.paths")
    rows = []
    longest = min(config.max_prompt_length + config.max_completion_length, max_positions)
    for pair in pairs:
        row = {
            "prompt_ids": encode_prompt(tokenizer, pair["prompt"]),
            "chosen_ids": encode_completion(tokenizer, pair["chosen"]),
            "rejected_ids": encode_completion(tokenizer, pair["rejected"]),
        }
        longer = max(len(row["chosen_ids"]), len(row["rejected_ids"]))
        if len(row["prompt_ids"]) + longer <= longest:
            rows.append(row)
    num_long = len(pairs) - len(rows)
    if not rows or num_long > config.max_over_length_share * len(pairs):
        raise UserError(
            f"{num_long} of {len(pairs)} preference pairs exceed {longest} tokens "
            f"(ppo.max_prompt_length + ppo.max_completion_length, at most the model's "
            f"{max_positions} positions); raise them, or allow more with ppo.max_over_length_share"
        )
    if num_long:
        print(f"{num_long} of {len(pairs)} preference pairs over-long, dropped", flush=True)
    return rows


def _reward_function(
    config: PPOConfig, scorer: Scorer, tokenizer: Tokenizer, all_prompts: Sequence[Prompt]
) -> Callable[..., list[float]]:
    def reward(
        prompts: list[int],
        completion_ids: list[list[int]],
        log_metric: Callable[[str, float], None],
        trainer_state: TrainerState,
        **_: Any,
    ) -> list[float]:
        """Clipped scores, less the penalty for a missing EOS."""
        asked = [all_prompts[number] for number in prompts]
        replies = [decode_completion(tokenizer, ids) for ids in completion_ids]
        scores = scorer(asked, replies)
        if any(map(math.isnan, scores)):  # TRL would learn from the other replies, and say nothing
            raise UserError("a score is not a number; look at the reward model and ppo.scorers")
        scores = [min(max(score, -config.clip_score), config.clip_score) for score in scores]
        ended = [ids[-1] == tokenizer.eos_token_id for ids in completion_ids]
        log_metric("objective/scores", sum(scores) / len(scores))
        log_metric("val/eos_rate", sum(ended) / len(ended))
        update = trainer_state.global_step // steps_per_update(config) + 1
        if update % config.sample_updates == 0 or update == num_updates(config):
            samples = [
                {
                    "update": update,
                    "prompt": prompt_text(asked[row]),
                    "response": replies[row],
                    "score": round(scores[row], 4),
                    "tokens": len(completion_ids[row]),
                    "ended": ended[row],
                }
                for row in range(0, len(asked), config.num_generations)
            ]
            tracking.log_table(samples[: report.SAMPLES_SHOWN], "samples")
        return [
            score - config.missing_eos_penalty * (not end)
            for score, end in zip(scores, ended, strict=True)
        ]

    return reward
