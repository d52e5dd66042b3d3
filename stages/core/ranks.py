"""Several processes of one stage, started by torchrun: who is who, and what they exchange."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather_object

from stages.core.config import Compute
from stages.core.models import pick_device


class Ranks:
    """The processes of this run; one where the stage was started alone."""

    def __init__(self, compute: Compute) -> None:
        """
        Raises:
            UserError: see ``pick_device``.
        """
        is_cpu = pick_device(compute).type == "cpu"
        self._state = PartialState(cpu=is_cpu)
        self.device = torch.device("cpu") if is_cpu else self._state.device
        self.count: int = self._state.num_processes
        self.index: int = self._state.process_index

    @property
    def is_main(self) -> bool:
        """Whether this process writes and reports."""
        return self.index == 0

    def share(self, rows: Iterable[int]) -> list[int]:
        """Those of the rows that are this rank's; always the same ones, so that what a rank knows
        of a row, it need not send."""
        return [row for row in rows if row % self.count == self.index]

    def wait(self) -> None:
        """Until all have come this far."""
        self._state.wait_for_everyone()

    def gather(self, items: list[Any]) -> list[Any]:
        """The items of all ranks, rank 0's first, on every rank."""
        return items if self.count == 1 else list(gather_object(items))

    def add_up(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replace each tensor by its sum over the ranks."""
        if self.count == 1:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        torch.distributed.all_reduce(flat)
        parts = flat.split_with_sizes([tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))
