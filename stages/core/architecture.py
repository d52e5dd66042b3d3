"""Whether this pipeline can train a model's architecture, asked before hours of training.

Most decoders of transformers can be trained. What stands in the way of the others would show late
(the reward model and PPO come after SFT) or never: a policy would be saved that is not the one that
was trained.
"""

import torch
from peft import get_peft_model
from torch import nn
from transformers import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    MODEL_MAPPING,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.modeling_layers import GenericForSequenceClassification

from stages.core.chat import encode_prompt
from stages.core.config import LoRAConfig
from stages.core.errors import UserError
from stages.core.generation import generate
from stages.core.logprobs import completion_logprobs
from stages.core.models import (
    adapted_layers,
    adapted_weight,
    first_line,
    padding_id,
    peft_config,
    transformer_layers,
)

PROMPTS = ("Why?", "Where does the last train of the evening stop, and when?")
"""Of unlike lengths, so that there is padding."""
NUM_TOKENS = 6
MAX_DIFFERENCE = {torch.float32: 0.01, torch.bfloat16: 0.3}
"""Between log-probabilities of one token, mean over some, in nats. In bfloat16 sound models reach
some hundredths, and mixtures of experts more where a token takes another expert."""


def check_architecture(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Try on ``model`` what the stages will do with it; afterwards its precision may be another.

    Raises:
        UserError: one of them cannot be done, or gives wrong numbers without saying so.
    """
    transformer_layers(model)
    with torch.device("meta"):  # no memory
        classifier = classifier_class(model.config)(model.config)
    if not isinstance(getattr(classifier, "score", None), nn.Linear):
        raise _unsupported(model, "transformers' classifier on it has another head than others")
    if model.dtype != torch.float32:
        model.to(torch.bfloat16)  # CPUs know no float16
    _check_sampling(model, tokenizer)
    _check_adapters(model)


def classifier_class(config: PreTrainedConfig) -> type[PreTrainedModel]:
    """A sequence classifier on the architecture's decoder, its head called ``score``:
    transformers' own, or for the half of all architectures that lacks one, what transformers makes
    those from."""
    if type(config) in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        own: type[PreTrainedModel] = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(config)]
        return own
    decoder = MODEL_MAPPING[type(config)]
    family = next(base for base in decoder.__mro__ if PreTrainedModel in base.__bases__)
    return type(
        family.__name__.replace("PreTrainedModel", "ForSequenceClassification"),
        (GenericForSequenceClassification, family),
        {
            "config_class": type(config),  # a family's may be that of its multimodal model
            "base_model_prefix": family.base_model_prefix,
            # transformers reads the source of a model's module to learn what the model can do.
            "__module__": family.__module__,
        },
    )


def _check_sampling(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """PPO takes the log-probabilities of sampling for those of training. They are not where a
    model's cache or padding is not what it is elsewhere (RWKV, RecurrentGemma)."""
    prompt_ids = [encode_prompt(tokenizer, prompt) for prompt in PROMPTS]
    pad = padding_id(tokenizer)
    uniforms = torch.rand(len(PROMPTS), NUM_TOKENS, generator=torch.Generator().manual_seed(0))
    try:
        replies = generate(
            model,
            prompt_ids,
            eos_token_id=-1,  # none ends early
            pad_token_id=pad,
            temperature=1.0,
            uniforms=uniforms,
            batch_size=len(PROMPTS),
        )
    except Exception as error:  # whatever an architecture does with a cache that is not its own
        raise _unsupported(model, f"sampling from it fails ({first_line(error)})") from error
    logprobs = completion_logprobs(
        model,
        prompt_ids,
        replies.ids,
        temperature=1.0,
        max_tokens_per_batch=len(PROMPTS) * (max(map(len, prompt_ids)) + NUM_TOKENS),
        pad_token_id=pad,
    )
    difference = float((torch.cat(logprobs) - torch.cat(replies.logprobs)).abs().mean())
    if not difference <= MAX_DIFFERENCE[model.dtype]:  # nor where it is no number
        raise _unsupported(
            model,
            f"log-probabilities of sampled tokens are off by {difference:.2g} nats when computed "
            "again",
        )


def _check_adapters(model: PreTrainedModel) -> None:
    try:
        adapted = get_peft_model(model, peft_config(LoRAConfig(rank=1)))
    except ValueError as error:
        raise _unsupported(model, f"no LoRA adapter for it ({first_line(error)})") from error
    weights = [id(adapted_weight(layer)) for layer in adapted_layers(adapted)]
    if len(set(weights)) < len(weights):
        # Merged, each layer's adapter would change the others, too.
        raise _unsupported(model, "its layers share weights, into which no adapter can be merged")


def _unsupported(model: PreTrainedModel, reason: str) -> UserError:
    name = type(model).__name__
    return UserError(f"architecture {name} is not supported: {reason}; take another base model")
