"""Measures that may fail without the rest: what failed is left out of the report and named."""

from collections.abc import Callable
from typing import TypeVar

import torch

from stages.core.launch import WARNING_PREFIX
from stages.evaluate.measurements import Missing

Result = TypeVar("Result")
MAX_REASON_CHARACTERS = 300


def attempt(what: str, function: Callable[[], Result], missing: list[Missing]) -> Result | None:
    """What ``function`` returns; None where it fails, which is then added to ``missing``.

    Raises:
        MemoryError, torch.OutOfMemoryError: the stage is to be tried with less at once.
    """
    try:
        return function()
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        if "can't allocate memory" in str(error):  # torch on the CPU
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        if len(reason) > MAX_REASON_CHARACTERS:
            reason = reason[:MAX_REASON_CHARACTERS] + "…"
        print(f"{WARNING_PREFIX}not measured: {what}: {reason}", flush=True)
        missing.append(Missing(what, reason, failed=True))
        return None
