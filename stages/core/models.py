"""Devices, tokenizers, models, LoRA adapters: loading, saving and switching."""

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from peft import LoraConfig, PeftModel, get_peft_model_state_dict
from peft.tuners.lora.layer import ParamWrapper
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from stages.core.artifacts import Artifact, json_digest
from stages.core.config import Compute, LoRAConfig
from stages.core.errors import UserError


def pick_device(compute: Compute) -> torch.device:
    """The configured device; ``auto`` takes a GPU when there is one.

    Raises:
        UserError: cuda is asked for where there is none.
    """
    available = torch.cuda.is_available()
    if compute.device == "cuda" and not available:
        raise UserError("compute.device is cuda but torch sees no GPU; set compute.device=auto")
    return torch.device("cuda" if available and compute.device != "cpu" else "cpu")


def supports_bf16(device: torch.device) -> bool:
    """Whether to train in bfloat16: on GPUs that have it; on CPUs it is slower than float32."""
    # Older GPUs emulate it, slower than float32.
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def autocast(device: torch.device) -> torch.autocast:
    """Forward passes in bfloat16 where the device supports it, unchanged elsewhere."""
    return torch.autocast(device.type, torch.bfloat16, enabled=supports_bf16(device))


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a model folder.

    Raises:
        UserError: there is none, or it has no EOS token, without which replies cannot end.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{folder}: no usable tokenizer ({first_line(error)})") from error
    if tokenizer.eos_token_id is None:
        raise UserError(f"{folder}: the tokenizer has no eos_token; set one in its configuration")
    return tokenizer


def load_model(folder: Path, device: torch.device) -> PreTrainedModel:
    """The causal language model of a folder, in float32, evaluation mode, all dropout off (also
    where the model is trained later, and in its configuration).

    Raises:
        UserError: there is no readable model.
    """
    try:
        model, loading = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, output_loading_info=True, trust_remote_code=False
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise UserError(f"{folder}: no usable model ({first_line(error)})") from error
    if loading["missing_keys"]:  # transformers would fill them with random numbers
        missing = ", ".join(sorted(loading["missing_keys"])[:3])
        raise UserError(f"{folder}: no usable model (weights are missing: {missing})")
    _switch_off_dropout(model)
    return model.to(device).eval()


def _switch_off_dropout(model: PreTrainedModel) -> None:
    """Set every probability to 0: in modules of its own, in attributes as OPT's ``dropout`` and
    ``layerdrop``, and in the configuration, which Falcon reads in each forward pass."""
    modules = list(model.modules())
    # Parts of a multimodal model have configurations of their own.
    configs = [module.config for module in modules if isinstance(module, PreTrainedModel)]
    for module in modules:
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    for holder in (*modules, *configs):
        for name, value in list(vars(holder).items()):
            if isinstance(value, float) and ("dropout" in name or "layerdrop" in name):
                setattr(holder, name, 0.0)


def save_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write model and tokenizer to ``folder``, the weights in the precision that they have.

    The files do not depend on where the model came from, so that equal models have equal digests.
    """
    model.config._name_or_path = ""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def padding_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """A token to pad with that is never the last token of a sequence.

    Many tokenizers pad with EOS. transformers' classifiers take the last token that is not padding,
    so EOS as padding would silently move the score to the token before.
    """
    candidates = [tokenizer.pad_token_id, *tokenizer.all_special_ids, tokenizer.unk_token_id, 0, 1]
    return next(int(id) for id in candidates if id is not None and id != tokenizer.eos_token_id)


def max_positions(model: PreTrainedModel) -> int:
    """Longest sequence the model was made for, tokens; a large number where it does not say."""
    config = model.config.get_text_config()  # a multimodal model's own says nothing
    return int(getattr(config, "max_position_embeddings", None) or 2**31)


def check_length(model: PreTrainedModel, length: int, setting: str) -> None:
    """Refuse sequences longer than the model's positions.

    Raises:
        UserError: naming the setting.
    """
    if length > max_positions(model):
        raise UserError(
            f"{setting} = {length} exceeds the model's {max_positions(model)} positions; lower it"
        )


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """Digest of vocabulary, merges, special tokens and chat template."""
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    # Padding and truncation are set anew by whoever encodes.
    backend |= {"padding": None, "truncation": None}
    return json_digest([backend, tokenizer.special_tokens_map, tokenizer.chat_template])


def check_same_tokenizer(tokenizer: PreTrainedTokenizerBase, digest: str, what: str) -> None:
    """Refuse to go on with a tokenizer or chat template other than an earlier stage used.

    Raises:
        UserError: they differ.
    """
    if tokenizer_digest(tokenizer) != digest:
        raise UserError(f"tokenizer or chat template differs from the one of {what}")


# ------------------------------------------------------------------------------------- adapters


def peft_config(lora: LoRAConfig, **changes: object) -> LoraConfig:
    """PEFT's configuration of an adapter on all linear layers but the output's."""
    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        target_modules="all-linear",
        **{"lora_dropout": lora.dropout, **changes},
    )


_adapted_layers: WeakKeyDictionary[Any, tuple[tuple[str, ...], list[Any]]] = WeakKeyDictionary()


def adapted_layers(model: PeftModel) -> list[Any]:
    """The layers that adapters were added to. Remembered until there is another adapter: the search
    through all modules takes as long as a layer of a small model."""
    names = tuple(model.peft_config)
    known = _adapted_layers.get(model)
    if known is None or known[0] != names:
        layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
        known = _adapted_layers[model] = (names, layers)
    return known[1]


def adapted_weight(layer: Any) -> nn.Parameter:
    """What an adapted layer adds to; of a mixture's experts one tensor for all of them."""
    weight: nn.Parameter = (
        layer.get_param() if isinstance(layer, ParamWrapper) else layer.get_base_layer().weight
    )
    return weight


@contextlib.contextmanager
def active_adapter(model: PeftModel, name: str | None) -> Iterator[None]:
    """Route forward passes through adapter ``name``, or through the bare model for None.

    PEFT's ``set_adapter`` also flips ``requires_grad`` of the adapters, so that a backward pass
    through two adapters after it would give the first no gradient, silently. This switches the
    routing alone.

    Raises:
        KeyError: there is no such adapter; PEFT's layers would silently act as the bare model.
    """
    if name is not None and name not in model.peft_config:
        raise KeyError(f"no adapter {name!r}; there are {', '.join(model.peft_config)}")
    layers = adapted_layers(model)
    before = [(layer._active_adapter, layer._disable_adapters) for layer in layers]
    for layer in layers:
        layer._disable_adapters = name is None
        if name is not None:
            layer._active_adapter = [name]
    try:
        yield
    finally:
        for layer, (active, disabled) in zip(layers, before, strict=True):
            layer._active_adapter, layer._disable_adapters = active, disabled


@contextlib.contextmanager
def merged_adapter(model: PeftModel, name: str) -> Iterator[None]:
    """Run the bare model with adapter ``name`` added into its weights: faster than beside them.

    The weights before are put back, not computed back: that would drift by rounding, which a
    resumed run could not repeat. Needs memory for a second copy of the adapted weights.

    Raises:
        KeyError: there is no such adapter.
    """
    if name not in model.peft_config:
        raise KeyError(f"no adapter {name!r}; there are {', '.join(model.peft_config)}")
    layers = [layer for layer in adapted_layers(model) if name in getattr(layer, "lora_A", {})]
    weights = [adapted_weight(layer) for layer in layers]
    originals = [weight.data for weight in weights]
    try:
        with torch.no_grad():
            for layer, weight in zip(layers, weights, strict=True):
                weight.data = weight.data + layer.get_delta_weight(name)
        with active_adapter(model, None):
            yield
    finally:
        for weight, original in zip(weights, originals, strict=True):
            weight.data = original


def transformer_layers(model: PreTrainedModel) -> nn.ModuleList:
    """The decoder's layers from the bottom to the top.

    Raises:
        UserError: the architecture keeps them elsewhere.
    """
    count = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    for child in model.get_decoder().children():
        if isinstance(child, nn.ModuleList) and len(child) == count:
            return child
    raise UserError(
        f"architecture {type(model).__name__} is not supported: its list of layers was not found; "
        "take another base model"
    )


@contextlib.contextmanager
def replaced_forward(module: nn.Module, forward: Callable[..., object]) -> Iterator[None]:
    """Let ``module`` compute ``forward`` for a while, hooks around it unchanged."""
    before = vars(module).get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if before is None:
            del module.forward  # the class's own shows again
        else:
            module.forward = before


def adapter_parameters(model: PeftModel, name: str) -> list[nn.Parameter]:
    """The trainable tensors of one adapter, in the model's order."""
    marker = f".{name}."
    return [parameter for key, parameter in model.named_parameters() if marker in key]


def save_adapter(model: PeftModel, name: str, base: Artifact, folder: Path) -> None:
    """Write one adapter in PEFT's format; its base is named by the path below the data root."""
    folder.mkdir(parents=True, exist_ok=True)
    state = get_peft_model_state_dict(model, adapter_name=name)
    save_file(
        {key: tensor.detach().cpu().contiguous() for key, tensor in state.items()},
        folder / "adapter_model.safetensors",
        metadata={"format": "pt"},
    )
    config = model.peft_config[name].to_dict()
    config |= {"base_model_name_or_path": base.path, "inference_mode": True}
    config = {key: sorted(item) if isinstance(item, set) else item for key, item in config.items()}
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2, default=str))
    (folder / "base.json").write_text(json.dumps(base.model_dump(), indent=2))


def first_line(error: Exception) -> str:
    """What an error of a library says, or what it is called where it says nothing."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
