"""A model of ours as the harness sees it: its tokenisation and truncation, our scoring."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lm_eval.models.huggingface import HFLM
from peft import PeftModel
from safetensors import SafetensorError
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from stages.benchmarks.scoring import TreeScorer
from stages.core.config import Compute
from stages.core.errors import UserError
from stages.core.models import load_model, load_tokenizer, padding_id, pick_device

WINDOWS_AT_ONCE = 64
"""Windows of long texts that the harness hands over together."""


class HarnessModel(HFLM):
    """The harness's interface to one model in memory."""

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, micro_batch_size: int
    ) -> None:
        super().__init__(
            pretrained=model, tokenizer=tokenizer, backend="causal", batch_size=WINDOWS_AT_ONCE
        )
        self._scorer = TreeScorer(model, micro_batch_size, padding_id(tokenizer))
        self.advance: Callable[[int], None] = lambda count: None
        """Called with the number of requests just answered."""
        self.num_truncated = 0
        """Requests whose beginning did not fit the model's positions."""

    def _loglikelihood_tokens(
        self, requests: list[tuple[Any, list[int], list[int]]], **options: Any
    ) -> list[tuple[float, bool]]:
        pairs = []
        for _, context, continuation in requests:
            if len(continuation) > self.max_length:
                raise UserError(f"an option is longer than the model's {self.max_length} positions")
            fitting = (context + continuation)[-(self.max_length + 1) :]
            self.num_truncated += len(fitting) < len(context) + len(continuation)
            pairs.append((fitting[: -len(continuation)], continuation))
        # Whether the option is the likeliest text is asked by none of the tasks here.
        return [(score, False) for score in self._scorer.score(pairs, self.advance)]


def load_harness_model(folder: Path, base: Path | None, compute: Compute) -> HarnessModel:
    """The model of a folder, or the adapter of one on its base.

    Raises:
        UserError: there is no readable model or adapter.
    """
    device = pick_device(compute)
    model = load_model(base or folder, device)
    if base is not None:
        try:
            adapted = PeftModel.from_pretrained(model, str(folder), local_files_only=True)
            model = adapted.merge_and_unload().eval()
        except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
            reason = " ".join(str(error).split())[:300]
            raise UserError(f"{folder}: no usable adapter on {base} ({reason})") from error
    return HarnessModel(model, load_tokenizer(base or folder), compute.micro_batch_size)
