"""AIM-Fair's repair of a biased model (Algorithm 1), as plain functions of a model and sets of faces.

    gaps = gradient_gaps(model, real, biased, balanced, seed=100, mode="train")
    mask = choose_mask(*gaps, k=55)
    history = finetune(model, balanced, validation, schedule, seed=100, mask=mask)

The tensors that react to bias but hardly to the gap between real and synthetic images learn; all others stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from aimfair import masks
from aimfair.environment import AimfairError
from aimfair.faces import FaceSet
from aimfair.gradients import gap, mean_gradients
from aimfair.training import History, Schedule, fit

Gaps = tuple[dict[str, float], dict[str, float]]
"""(domain_gap, bias_gap): of each tensor, how far its mean gradients lie apart on biased real and biased synthetic faces,
and on biased and balanced synthetic faces."""


def three_gradients(
    model: nn.Module,
    real: FaceSet,
    biased: FaceSet,
    balanced: FaceSet,
    seed: int = 0,
    measure: Callable[..., Any] = mean_gradients,
    **options: Any,
) -> list[Any]:
    """Mean gradients (or another ``measure``) on the real, the biased and the balanced synthetic faces.

    options  of :func:`aimfair.gradients.mean_gradients`; the three sets are shuffled and cropped by ``seed`` and the two
             seeds after it. No protected label is read
    """
    sets = enumerate((real, biased, balanced))
    return [measure(model, faces.without_protected(), seed=seed + i, **options) for i, faces in sets]


def gradient_gaps(
    model: nn.Module,
    real: FaceSet,
    biased: FaceSet,
    balanced: FaceSet,
    seed: int = 0,
    score: str = "absolute",
    **options: Any,
) -> Gaps:
    """Both gaps of :func:`three_gradients`, measured by a ``score`` of :func:`aimfair.gradients.gap` (Eq. 1-4)."""
    on_real, on_biased, on_balanced = three_gradients(model, real, biased, balanced, seed, **options)
    return gap(on_real, on_biased, score), gap(on_biased, on_balanced, score)


def choose_mask(
    domain_gap: Mapping[str, float], bias_gap: Mapping[str, float], k: int, rankings: str = "both"
) -> set[str]:
    """The tensors to fine-tune (Eq. 5-7): :func:`aimfair.masks.select` with ``k`` counted on ResNet-18's 62 tensors, of
    another network the same share."""
    return masks.select(domain_gap, bias_gap, masks.scaled(k, len(domain_gap)), rankings)


def finetune(
    model: nn.Module,
    balanced: FaceSet,
    validation: FaceSet,
    schedule: Schedule,
    seed: int,
    device: str = "cpu",
    *,
    mask: set[str] | Mapping[str, Tensor] | None = None,
    **how: Any,
) -> History:
    """Fine-tune the model in place on the balanced synthetic faces (Eq. 8); what the mask leaves out stays bit-identical.

    seed  of the biased model. Order and crops are drawn from the next one: they are not those of the pre-training
    mask  names of the tensors that learn; or for some tensors a bool tensor of their shape, true where a single weight
          learns; None: all tensors
    how   ``loss``, ``order``, ``blend``, ``what`` and ``resume`` of :func:`aimfair.training.fit`, whose errors are raised
    """
    how = {"what": "fine-tuning", **how}
    if not isinstance(mask, Mapping):
        return fit(model, balanced, validation, schedule, seed + 1, device, trainable=mask, **how)
    elements = {name: chosen.to(device) for name, chosen in mask.items()}
    plain = replace(schedule, weight_decay=0.0)
    with only_elements(model.to(device), elements, schedule.weight_decay):
        return fit(model, balanced, validation, plain, seed + 1, device, trainable={*mask}, **how)


@contextmanager
def only_elements(model: nn.Module, elements: Mapping[str, Tensor], weight_decay: float) -> Iterator[None]:
    """Let SGD move only the weights where ``elements`` (name -> bool, shape of the tensor) are true.

    Inside the block the optimiser must have no weight decay of its own: it is added to the gradient here, where the
    mask is true. Elsewhere gradient and momentum are exactly 0, so that those weights stay bit-identical.
    """

    def keep(parameter: nn.Parameter, chosen: Tensor) -> Callable[[Tensor], Tensor]:
        return lambda gradient: torch.where(chosen, gradient + weight_decay * parameter.detach(), 0.0)

    named = dict(model.named_parameters())
    if unknown := elements.keys() - named:
        raise AimfairError(f"the mask names tensors that the model does not have: {sorted(unknown)[:3]}")
    handles = [named[name].register_hook(keep(named[name], chosen)) for name, chosen in elements.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
