"""Fine-tunings of this process, kept for whoever asks for the same one again.

Methods that differ only in what they do with a fine-tuned model share its training: which epoch is kept, how far to go
between the biased model and it, whose batch-norm statistics it gets.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aimfair.faces import FaceSet
from aimfair.training import History

BYTES = 512_000_000
"""Weights kept at most; the ones asked for longest ago are dropped first."""

State = dict[str, Tensor]


@dataclass(frozen=True)
class Tuned:
    """A finished fine-tuning: its history, and the weights of the best and of the last epoch."""

    history: History
    best: State
    last: State

    @property
    def bytes(self) -> int:
        """Of both sets of weights."""
        return sum(value.nbytes for state in (self.best, self.last) for value in state.values())


_kept: OrderedDict[str, Tuned] = OrderedDict()


def weights(model: nn.Module) -> State:
    """A copy of the model's weights and running statistics, in the main memory."""
    return {name: value.detach().to("cpu", copy=True) for name, value in model.state_dict().items()}


def once(key: str, tune: Callable[[], Tuned]) -> Tuned:
    """What was kept under ``key``, or else ``tune()``, which is kept now if it is no larger than :data:`BYTES`."""
    found = _kept.pop(key, None) or tune()
    _kept[key] = found
    while sum(one.bytes for one in _kept.values()) > BYTES:
        _kept.popitem(last=False)
    return found


def forget() -> None:
    """Drop all of them."""
    _kept.clear()


def digest(start: Mapping[str, Tensor], faces: tuple[FaceSet, ...], *rest: object) -> str:
    """Of everything that decides a training: the weights it starts from, the images and targets of ``faces``, and ``rest``
    by its ``repr``. By content, not by name: faces edited in two ways have the same names."""
    found = hashlib.blake2b(repr(rest).encode())
    tensors = [*start.items(), *((n, t) for one in faces for n, t in (("images", one.images), ("target", one.target)))]
    for name, tensor in tensors:
        found.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        found.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()
