"""The stage ppo: load the SFT model once, train policy and value adapters, merge the policy."""

import json
from pathlib import Path

import torch
from matplotlib.figure import Figure
from peft import PeftModel, get_peft_model
from torch import nn
from transformers import PreTrainedTokenizerBase, set_seed

from stages.core import tracking
from stages.core.artifacts import CHECKPOINTS, make_artifact, write_atomically
from stages.core.chat import Prompt, encode_prompt
from stages.core.config import Compute, PPOConfig, PPOInputs, PPOOutputs
from stages.core.errors import UserError
from stages.core.models import (
    check_length,
    load_model,
    load_tokenizer,
    peft_config,
    pick_device,
    save_adapter,
    save_model,
)
from stages.core.schemas import read_jsonl
from stages.core.scoring import REWARD_ADAPTER, RewardModel, attach_reward_model, read_manifest
from stages.ppo.rollout import POLICY, VALUE, ValueModel
from stages.ppo.trainer import PPOTrainer

HISTORY_FILE = "history.jsonl"


def run(
    config: PPOConfig, inputs: PPOInputs, compute: Compute, out_dir: Path
) -> tuple[PPOOutputs, dict[str, float]]:
    """Optimise the SFT model against the reward model.

    Raises:
        UserError: the reward model belongs to another model, no prompt fits, or a loss is no longer
            finite.
    """
    set_seed(config.seed)
    device = pick_device(compute)
    base = inputs.model.locate()
    reward_folder = inputs.reward_model.locate()
    if read_manifest(reward_folder).base_digest != inputs.model.digest:
        raise UserError(
            "the reward model was trained on another SFT model than the policy starts from; run "
            "the stage reward_model on this one"
        )
    tokenizer = load_tokenizer(base)
    prompts, prompt_ids = read_prompts(inputs.prompts.locate() / "train.jsonl", tokenizer, config)
    backbone = load_model(base, device)
    check_length(
        backbone,
        max(map(len, prompt_ids)) + config.max_completion_length,
        "longest prompt + ppo.max_completion_length",
    )
    model = get_peft_model(
        backbone, peft_config(config.lora, lora_dropout=0.0), adapter_name=POLICY
    )
    reward_model = attach_reward_model(model, reward_folder, tokenizer)
    value_model = make_value_model(model, reward_model, normalize=config.normalize_scores)
    trainer = PPOTrainer(
        config,
        model,
        value_model,
        lambda prompts, completions: _scores(config, reward_model, prompts, completions),
        tokenizer,
        prompts,
        prompt_ids,
        compute.micro_batch_size,
        out_dir / CHECKPOINTS,
    )
    progress = trainer.train()

    lines = [json.dumps(row) + "\n" for row in progress.history]
    write_atomically(out_dir / HISTORY_FILE, "".join(lines))
    tracking.log_figure(_curves(progress.history), "training", out_dir)
    save_adapter(model, POLICY, inputs.model, out_dir / "adapter")
    save_adapter(model, VALUE, inputs.model, out_dir / "value_model")
    torch.save(value_model.head.state_dict(), out_dir / "value_model" / "head.pt")
    merged = model.merge_and_unload(adapter_names=[POLICY])
    save_model(merged, tokenizer, out_dir / "model")
    last = progress.history[-5:]
    metrics = {
        "updates": float(progress.num_updates),
        "stopped_by_kl": float(progress.stopped_by_kl),
        "score_first": progress.history[0]["score"],
        "score_last": sum(row["score"] for row in last) / len(last),
        "kl_last": last[-1]["kl"],
    }
    outputs = PPOOutputs(
        adapter=make_artifact("adapter", out_dir / "adapter"),
        model=make_artifact("model", out_dir / "model"),
        history=make_artifact("history", out_dir / HISTORY_FILE),
    )
    return outputs, metrics


def read_prompts(
    path: Path, tokenizer: PreTrainedTokenizerBase, config: PPOConfig
) -> tuple[list[Prompt], list[list[int]]]:
    """The prompts of a file that fit into ``max_prompt_length``, and their token ids.

    Raises:
        UserError: none fits.
    """
    prompts = [row["prompt"] for row in read_jsonl(path)]
    encoded = [encode_prompt(tokenizer, prompt) for prompt in prompts]
    fitting = [
        (prompt, ids)
        for prompt, ids in zip(prompts, encoded, strict=True)
        if len(ids) <= config.max_prompt_length
    ]
    if not fitting:
        raise UserError(
            f"{path.name}: none of {len(prompts)} prompts fits into ppo.max_prompt_length = "
            f"{config.max_prompt_length} tokens; raise it"
        )
    if len(fitting) < len(prompts):
        print(f"{len(prompts) - len(fitting)} of {len(prompts)} prompts over-long, dropped")
    return [prompt for prompt, _ in fitting], [ids for _, ids in fitting]


def make_value_model(model: PeftModel, reward_model: RewardModel, *, normalize: bool) -> ValueModel:
    """A value model that starts as a copy of the reward model (Ouyang et al. 2022, appendix C.4):
    its adapter, and its head on the scale of the normalised score."""
    model.add_adapter(VALUE, model.peft_config[REWARD_ADAPTER])
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, parameter in parameters.items():
            if f".{VALUE}." in name:
                parameter.copy_(parameters[name.replace(f".{VALUE}.", f".{REWARD_ADAPTER}.")])
        head = nn.Linear(reward_model.head.in_features, 1).to(model.device)
        scale, shift = 1.0, 0.0
        if normalize:
            scale = 1.0 / reward_model.score_std
            shift = -reward_model.score_mean * scale
        head.weight.copy_(reward_model.head.weight * scale)
        head.bias.fill_(shift)
    return ValueModel(model, head)


def _scores(
    config: PPOConfig, reward_model: RewardModel, prompts: list[Prompt], completions: list[str]
) -> list[float]:
    scores = reward_model.score(prompts, completions)
    return reward_model.normalized(scores) if config.normalize_scores else scores


def _curves(history: list[dict[str, float]]) -> Figure:
    figure = Figure(figsize=(9, 6))
    panels = (
        ("score", "mean score"),
        ("kl", "KL to the SFT model, nats a reply"),
        ("length", "reply length, tokens"),
        ("entropy", "entropy, nats a token"),
    )
    episodes = [row["episodes"] for row in history]
    for axes, (name, label) in zip(figure.subplots(2, 2).flat, panels, strict=True):
        axes.plot(episodes, [row[name] for row in history], color="#0072b2")
        axes.set(xlabel="episodes", ylabel=label)
        axes.grid(alpha=0.3)
    figure.tight_layout()
    return figure
