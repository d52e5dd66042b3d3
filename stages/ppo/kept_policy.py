"""The policy that a stop returns to."""

from collections import deque
from typing import Any

import torch
from torch import nn


class KeptPolicy:
    """Copies of the policy's weights: of the one to return to, and of those behind the last
    scorings. A window of scorings says most about the policy in its middle: where the score has
    begun to fall, the one at the window's end is already worse than the mean. The copies lie in the
    main memory: with all weights trained, they would fill a GPU."""

    def __init__(self, parameters: list[nn.Parameter], window: int) -> None:
        self._parameters = parameters
        self._scored: deque[tuple[int, list[torch.Tensor]]] = deque(maxlen=window // 2 + 1)
        self._kept = self._copies()

    def keep(self) -> None:
        """Keep the present policy."""
        self._kept = self._copies()

    def note_scoring(self, update: int) -> None:
        """Remember that the present policy, the one after ``update`` updates, was scored."""
        self._scored.append((update, self._copies()))

    def keep_middle(self) -> int:
        """Keep the policy in the middle of the window that ends now; returns the updates before
        it."""
        update, self._kept = self._scored[0]
        return update

    @torch.no_grad()
    def restore(self) -> None:
        """The policy becomes the one that was kept."""
        for parameter, kept in zip(self._parameters, self._kept, strict=True):
            parameter.copy_(kept)

    def state(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"kept": self._kept, "scored": list(self._scored)}

    def load_state(self, state: dict[str, Any]) -> None:
        """What ``state`` returned."""
        self._kept = state["kept"]
        self._scored.clear()
        self._scored.extend(state["scored"])

    def _copies(self) -> list[torch.Tensor]:
        return [parameter.detach().to("cpu", copy=True) for parameter in self._parameters]
