"""Two networks in one training: the loop sees one model, the loss sees both."""

from __future__ import annotations

from torch import Tensor, nn


class Pair(nn.Module):
    """``first`` and ``second`` see the same augmented batch; the logits of ``first`` are the pair's.

    Those of ``second`` wait in ``second_logits``, with their gradient, for the loss of the same step. In evaluation
    mode only ``first`` runs, so that an epoch is chosen by the network that is kept.
    """

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second
        self.second_logits: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.second_logits = self.second(x).float() if self.training else None
        return self.first(x)

    def other(self) -> Tensor:
        """The logits (B,) of ``second`` on the batch that just passed."""
        assert self.second_logits is not None, "the pair has not seen a training batch"
        return self.second_logits
