"""Dataset-mean gradients of the biased model, one tensor per parameter (section 3.2 of the paper, Eq. 1-4)."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from aimfair.augment import augment
from aimfair.environment import AimfairError
from aimfair.faces import Batches, FaceSet
from aimfair.models import as_input, logits_of
from aimfair.training import Loss, Step, batch_steps, batches, binary_cross_entropy

Gradients = dict[str, Tensor]

BALANCED = (0.25, 0.25, 0.25, 0.25)


def mean_gradients(
    model: nn.Module,
    faces: FaceSet | Batches,
    *,
    mode: str = "eval",
    batch_size: int = 128,
    seed: int = 0,
    crop_scale: tuple[float, float] = (0.08, 1.0),
    device: str = "cpu",
    loss: Loss = binary_cross_entropy,
) -> Gradients:
    """Mean gradient of the ``loss`` over ``faces``: name of the tensor -> gradient of its shape.

    mode "eval"   the exact mean over all faces: whole images, running batch-norm statistics. Deterministic, the same
                  for any batch size up to summation order, and linear in the group shares (see :func:`combine`).
    mode "train"  the official form: batch statistics, random crops and flips drawn from ``seed``, shuffled batches,
                  the last incomplete one dropped, mean over batches of the batch means.
    A user's own batches are taken as they are: of "train" they have the batch statistics alone. Tensors that the model
    does not use have no gradient. The model itself, its batch-norm buffers, its mode and its gradients are left as they were. float32 on the CPU.
    Raises AimfairError for an empty set or an unknown mode.
    """
    if isinstance(faces, FaceSet) and len(faces) == 0:
        raise AimfairError("no faces to take gradients of")
    if mode not in ("eval", "train"):
        raise AimfairError(f"mode must be eval or train, got {mode!r}")
    model = copy.deepcopy(model).to(device)
    model.train(mode == "train")
    model.requires_grad_(True)
    model.zero_grad(set_to_none=True)
    total = 0.0
    for (inputs, target, index), weight in _weighted(faces, mode, batch_size, seed, crop_scale, device):
        (weight * loss(logits_of(model, inputs), target, index)).backward()
        total += weight
    scale = 1.0 if isinstance(faces, FaceSet) else total
    named = model.named_parameters()
    return {name: parameter.grad.div_(scale).cpu() for name, parameter in named if parameter.grad is not None}


def _weighted(
    faces: FaceSet | Batches, mode: str, batch_size: int, seed: int, crop_scale: tuple[float, float], device: str
) -> Iterator[tuple[Step, float]]:
    """The batches, each with its weight in the mean: of faces they sum to 1, of a user's batches to their number."""
    if isinstance(faces, Batches):
        for step in batch_steps(faces, seed, device):
            yield step, len(step[1]) if mode == "eval" else 1
        return
    generator = torch.Generator().manual_seed(seed)
    if mode == "train":
        parts = list(batches(torch.randperm(len(faces), generator=generator), batch_size))
    else:
        parts = list(torch.arange(len(faces)).split(batch_size))
    for index in parts:
        batch = faces.images[index].to(device)
        inputs = augment(batch, generator, crop_scale) if mode == "train" else as_input(batch)
        weight = 1 / len(parts) if mode == "train" else len(index) / len(faces)
        yield (inputs, faces.target[index].float().to(device), index), weight


def group_gradients(model: nn.Module, faces: FaceSet, **options: object) -> list[Gradients]:
    """:func:`mean_gradients` of each of the four groups of ``faces``, in group order.

    Four passes give the gradient at every bias ratio and direction (:func:`combine`), so that a sweep over
    ratios costs nothing more. Raises AimfairError where a group is empty.
    """
    counts = faces.counts()
    if min(counts) == 0:
        raise AimfairError(f"every group needs faces; the counts are {counts}")
    groups = faces.groups
    return [
        mean_gradients(model, faces.subset(torch.nonzero(groups == g).squeeze(1)), **options)  # type: ignore[arg-type]
        for g in range(4)
    ]


def combine(by_group: Sequence[Gradients], shares: Sequence[float]) -> Gradients:
    """Mean gradient over a set with the given group shares: exact in mode "eval", where the mean is linear.

    ``g_D = sum_g share_g * G_g``. Raises AimfairError unless there are four shares that sum to 1.
    """
    if len(shares) != 4 or abs(sum(shares) - 1) > 1e-9:
        raise AimfairError(f"four group shares that sum to 1 are needed, got {tuple(shares)}")
    return {name: sum(s * g[name] for s, g in zip(shares, by_group, strict=True)) for name in by_group[0]}  # type: ignore[misc]


def gap(first: Mapping[str, Tensor], second: Mapping[str, Tensor], score: str = "absolute") -> dict[str, float]:
    """How far two gradients lie apart, per tensor; larger means further.

    "absolute"  mean over the elements of |first - second| (Eq. 4, averaged per tensor as in the released code)
    "relative"  the same over the sum of their mean absolute values, 0 to 1: the length of gradients does not count
    "cosine"    1 - cosine similarity (the variant of Table 4); a zero gradient counts as similarity 0
    Raises AimfairError for different tensors or an unknown score.
    """
    if first.keys() != second.keys():
        raise AimfairError("the two gradients do not name the same tensors")
    if score == "absolute":
        return {name: (first[name] - second[name]).abs().mean(dtype=torch.float64).item() for name in first}
    if score == "relative":
        sizes = {name: (first[name].abs() + second[name].abs()).mean(dtype=torch.float64).item() for name in first}
        return {name: value / (sizes[name] or 1) for name, value in gap(first, second).items()}
    if score == "cosine":
        return {name: 1 - _cosine(first[name].double().flatten(), second[name].double().flatten()) for name in first}
    raise AimfairError(f"score must be absolute, relative or cosine, got {score!r}")


def _cosine(a: Tensor, b: Tensor) -> float:
    norm = (a.norm() * b.norm()).item()
    return (a @ b).item() / norm if norm > 0 else 0.0
