"""DiGA's idea at the scale at hand: edit the spurious attribute of real training faces and train on them as well."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from aimfair.environment import AimfairError
from aimfair.faces import FaceSet
from aimfair.methods import Bench, Fitted, Method
from aimfair.methods.erm import from_scratch
from aimfair.training import Order, binary_cross_entropy


def fit(bench: Bench, hyper: Mapping[str, Any]) -> Fitted:
    """ERM from scratch on each training face and two edits of it, which ask for opposite protected values.

    consistency         weight of the squared difference between the logits of a face's two edits
    weakest, strongest  range of the edits' strength, of which each edit draws one; 0 is the face, 1 text to image

    This is a simplification. In the original a StyleGAN2 is inverted; the spurious direction is the difference of the
    normals of two logistic regressions of the target on the latents, one strongly and one weakly regularised; each face
    is moved to both sides of it; an encoder learns by BYOL that the two sides are one face; and a linear classifier is
    trained on the frozen encoder. Here the diffusion model at hand edits, image to image; the prompts say which attribute
    is spurious, as AIM-Fair has it too; and ``consistency`` stands for BYOL within one training. Neither reads a group
    label of a real face. An epoch holds three images per face, so a run costs three of ERM.
    """
    edits, n = two_edits(bench, hyper), len(bench.train)

    def loss(logits: Tensor, target: Tensor, index: Tensor) -> Tensor:
        pairs = pair_difference(logits, index, n)
        return binary_cross_entropy(logits, target, index) + hyper["consistency"] * pairs

    every = bench.train.without_protected() + edits[0] + edits[1]
    fitted = from_scratch(replace(bench, train=every), "DiGA-style editing", loss=loss, order=families(n))
    changed = [(edit.images.float() - bench.train.images.float()).abs().mean().item() for edit in edits]
    fitted.scores["mean_change"] = [round(value, 2) for value in changed]
    return fitted


def two_edits(bench: Bench, hyper: Mapping[str, Any]) -> list[FaceSet]:
    """The training faces twice, in their order, redrawn at ``hyper``'s strengths towards opposite protected values."""
    if bench.edited is None:
        raise AimfairError("no edited faces: give the bench a function that redraws the training faces (edited)")
    return [bench.edited(draw, hyper["weakest"], hyper["strongest"]) for draw in (0, 1)]


def families(n: int) -> Order:
    """All 3n images, the real faces in random order and each followed by its edits (at n and 2n places behind it)."""
    places = torch.tensor([0, n, 2 * n])
    return lambda generator: (torch.randperm(n, generator=generator)[:, None] + places).flatten()


def pair_difference(logits: Tensor, index: Tensor, n: int) -> Tensor:
    """Mean squared difference of the logits of neighbours that are edits of one face; 0 for a batch without such a pair.

    Beyond a difference of 1 it goes on as a straight line (Huber): squares of large logits would blow up a training
    from scratch.
    """
    pair = (index[:-1] >= n) & (index[1:] >= n) & (index[:-1] % n == index[1:] % n)
    return (pair * 2 * F.huber_loss(logits[:-1], logits[1:], reduction="none")).sum() / pair.sum().clamp(min=1)


METHOD = Method(
    name="diga",
    title="Generative editing (DiGA-style)",
    source="after Zhang et al., CVPR 2024, arXiv 2403.06606; simplified",
    start="scratch",
    fit=fit,
    needs=frozenset({"synthetic"}),
    defaults={"consistency": 0.1, "weakest": 0.4, "strongest": 0.8},
    search={"consistency": (0.0, 0.03, 0.1, 0.3, 1.0)},
)
