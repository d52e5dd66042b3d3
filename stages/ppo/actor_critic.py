"""The models of PPO: who shares which weights.

With LoRA one backbone is in memory: the policy and the value model are adapters on it, the
reference is the backbone with adapters off. In full fine-tuning policy and value model have weights
of their own, and the reference is the backbone that also carries the reward model's adapter.
"""

import contextlib
import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from stages.core.config import PPOConfig
from stages.core.fused_lora import fused_adapter
from stages.core.last_layer import last_layer_at
from stages.core.logprobs import SequenceBatch
from stages.core.models import (
    adapter_parameters,
    autocast,
    load_model,
    merged_adapter,
    peft_config,
    transformer_layers,
)
from stages.core.scoring import REWARD_ADAPTER, RewardModel, attach_reward_model, load_reward_model
from stages.ppo.frozen_layers import FrozenLayers

POLICY = "policy"
VALUE = "value"
REFERENCE = "reference"


@dataclass(frozen=True)
class Role:
    """One way to run a model: the weights, the adapter that is on (None: the bare model), and the
    lower layers that training leaves as they are."""

    model: PreTrainedModel | PeftModel
    adapter: str | None = None
    frozen: FrozenLayers | None = None

    @contextlib.contextmanager
    def active(self) -> Iterator[PreTrainedModel]:
        """The causal language model as this role sees it. Enter once for many batches, and anew
        after the weights have changed: adapters are added up inside (``fused_adapter``)."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(autocast(self.model.device))
            if isinstance(self.model, PeftModel):
                stack.enter_context(fused_adapter(self.model, self.adapter))
                yield self.model.get_base_model()
            else:
                yield self.model

    def frozen_states(self, input_ids: torch.Tensor) -> torch.Tensor | None:
        """The output (B, L, H) of the frozen layers, None where there are none. Call it inside
        ``active``."""
        return self.frozen.hidden_states(input_ids) if self.frozen else None

    @contextlib.contextmanager
    def states(
        self, model: PreTrainedModel, batch: SequenceBatch, frozen_states: torch.Tensor | None
    ) -> Iterator[torch.Tensor]:
        """The final hidden states (N, H), in the ``model`` that ``active`` gives, in which the
        completion tokens are chosen.

        Run the backward pass inside: layers with gradient checkpointing are computed once more
        then, and must find the same adapter and the same replaced layers.
        """
        with contextlib.ExitStack() as stack:
            if self.frozen is not None and frozen_states is not None:
                stack.enter_context(
                    self.frozen.replaced_by(frozen_states.to(batch.input_ids.device))
                )
            stack.enter_context(last_layer_at(model, batch.predictors))
            hidden = model.get_decoder()(input_ids=batch.input_ids, use_cache=False)
            yield batch.select(hidden.last_hidden_state)


@dataclass(frozen=True)
class ActorCritic:
    """Policy, reference and value model with its head, and what of them is trained."""

    policy: Role
    reference: Role
    value: Role
    value_head: nn.Linear
    policy_parameters: list[nn.Parameter]
    value_parameters: list[nn.Parameter]
    """Those of the value model and of its head."""

    @property
    def device(self) -> torch.device:
        """Where all of them are."""
        return self.value_head.weight.device

    @contextlib.contextmanager
    def sampling(self) -> Iterator[PreTrainedModel]:
        """The policy in the form that decodes fastest."""
        if isinstance(self.policy.model, PeftModel):
            with merged_adapter(self.policy.model, POLICY):
                yield self.policy.model.get_base_model()
        else:
            yield self.policy.model

    @contextlib.contextmanager
    def training(self) -> Iterator[None]:
        """Training mode, without which transformers ignores gradient checkpointing. There is no
        dropout that it could switch on."""
        models = {id(role.model): role.model for role in (self.policy, self.value)}.values()
        for model in models:
            model.train()
        try:
            yield
        finally:
            for model in models:
                model.eval()

    def values(self, hidden: torch.Tensor) -> torch.Tensor:
        """Values (N,) of the value model's hidden states (N, H)."""
        with torch.autocast(hidden.device.type, enabled=False):  # small, and worth the precision
            return self.value_head(hidden.float()).squeeze(-1)

    @torch.no_grad()
    def reset_reference(self) -> None:
        """The reference becomes the present policy. Needs ``reset_reference_updates``, for which
        the reference has weights of its own."""
        for parameter, source in zip(
            self.reference_parameters(), self.policy_parameters, strict=True
        ):
            parameter.copy_(source)

    def reference_parameters(self) -> list[nn.Parameter]:
        """The reference's counterparts of ``policy_parameters``; none where it never changes."""
        if isinstance(self.reference.model, PeftModel):
            return (
                adapter_parameters(self.reference.model, REFERENCE)
                if self.reference.adapter
                else []
            )
        return list(self.reference.model.parameters())


def load_actor_critic(
    config: PPOConfig,
    base: Path,
    reward_folder: Path,
    tokenizer: PreTrainedTokenizerBase,
    device: torch.device,
) -> tuple[ActorCritic, RewardModel]:
    """All models of a run: from the SFT model in ``base`` and the reward model trained on it.

    Raises:
        UserError: see ``load_model`` and ``attach_reward_model``.
    """
    load = _adapters_on_one_backbone if config.finetuning == "lora" else _separate_models
    actor_critic, reward_model = load(config, base, reward_folder, tokenizer, device)
    roles = (actor_critic.policy, actor_critic.reference, actor_critic.value)
    for model in (reward_model.model, *(role.model for role in roles)):
        model.requires_grad_(False)
    for parameter in [*actor_critic.policy_parameters, *actor_critic.value_parameters]:
        parameter.requires_grad_(True)
    if config.gradient_checkpointing:
        for role in (actor_critic.policy, actor_critic.value):
            with role.active() as model:
                model.gradient_checkpointing_enable({"use_reentrant": False})
    return actor_critic, reward_model


def num_frozen_layers(config: PPOConfig, model: PreTrainedModel) -> int:
    """Layers below the adapters; at least the highest one is trained."""
    num_layers = len(transformer_layers(model))
    return min(int(config.frozen_layer_share * num_layers), num_layers - 1)


def policy_lora(config: PPOConfig, model: PreTrainedModel) -> LoraConfig:
    """The policy's adapter, which leaves the frozen layers out."""
    layers = transformer_layers(model)
    place = next(name for name, module in model.named_modules() if module is layers)
    frozen = "|".join(map(str, range(num_frozen_layers(config, model))))
    in_frozen_layer = rf"(.*\.)?{re.escape(place)}\.({frozen})\..*" if frozen else None
    return peft_config(config.lora, lora_dropout=0.0, exclude_modules=in_frozen_layer)


def _adapters_on_one_backbone(
    config: PPOConfig,
    base: Path,
    reward_folder: Path,
    tokenizer: PreTrainedTokenizerBase,
    device: torch.device,
) -> tuple[ActorCritic, RewardModel]:
    backbone = load_model(base, device)
    num_frozen = num_frozen_layers(config, backbone)
    lora = policy_lora(config, backbone)
    model = get_peft_model(backbone, lora, adapter_name=POLICY)
    reward_model = attach_reward_model(model, reward_folder, tokenizer)
    if config.reset_reference_updates:
        model.add_adapter(REFERENCE, lora)
    if config.value_init == "zero":
        model.add_adapter(VALUE, lora)
    else:
        model.add_adapter(VALUE, model.peft_config[REWARD_ADAPTER])
        _copy_adapter(model, REWARD_ADAPTER, VALUE)
    head = value_head(config, reward_model)
    frozen = FrozenLayers(backbone, num_frozen) if num_frozen else None
    trained = [
        parameter
        for name, parameter in model.named_parameters()
        if f".{VALUE}." in name
        and not (lora.exclude_modules and re.fullmatch(lora.exclude_modules, name))
    ]
    actor_critic = ActorCritic(
        policy=Role(model, POLICY, frozen),
        reference=Role(model, REFERENCE if config.reset_reference_updates else None, frozen),
        value=Role(model, VALUE, frozen),
        value_head=head,
        policy_parameters=adapter_parameters(model, POLICY),
        value_parameters=[*trained, *head.parameters()],
    )
    return actor_critic, reward_model


def _separate_models(
    config: PPOConfig,
    base: Path,
    reward_folder: Path,
    tokenizer: PreTrainedTokenizerBase,
    device: torch.device,
) -> tuple[ActorCritic, RewardModel]:
    reward_model = load_reward_model(reward_folder, base, device)
    policy = load_model(base, device)
    if config.value_init == "zero":
        value = load_model(base, device)
    else:
        value = copy.deepcopy(reward_model.model).merge_and_unload(adapter_names=[REWARD_ADAPTER])
    head = value_head(config, reward_model)
    reference = (
        Role(load_model(base, device))
        if config.reset_reference_updates
        else Role(reward_model.model)
    )
    actor_critic = ActorCritic(
        policy=Role(policy),
        reference=reference,
        value=Role(value),
        value_head=head,
        policy_parameters=list(policy.parameters()),
        # Not the language model's head, which values do not pass through.
        value_parameters=[*value.get_decoder().parameters(), *head.parameters()],
    )
    return actor_critic, reward_model


@torch.no_grad()
def value_head(config: PPOConfig, reward_model: RewardModel) -> nn.Linear:
    """A head on the scale of the score that is optimised: the reward model's own, normalised and
    weighted (Ouyang et al. 2022, appendix C.4), or zero."""
    head = nn.Linear(reward_model.head.in_features, 1).to(reward_model.model.device)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    if config.value_init == "reward_model":
        scale = config.scorer_weights.get("reward_model", 0.0)
        shift = 0.0
        if config.normalize_scores:
            scale /= reward_model.score_std
            shift = -reward_model.score_mean * scale
        head.weight.copy_(reward_model.head.weight * scale)
        head.bias.fill_(shift)
    return head


@torch.no_grad()
def _copy_adapter(model: PeftModel, source: str, target: str) -> None:
    parameters = dict(model.named_parameters())
    for name, parameter in parameters.items():
        if f".{target}." in name:
            parameter.copy_(parameters[name.replace(f".{target}.", f".{source}.")])
