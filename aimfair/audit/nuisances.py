"""Nuisances: what a face shows beside its labels. Is it spread evenly over the groups of a synthetic set?

A classifier learns whatever tells the target. What counts is therefore the difference between target 0 and target 1
within one protected value; that men have more beards than women is no fault of the set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from scipy.special import ndtri
from torch import Tensor

from aimfair.faces import FaceSet
from aimfair.generate.classifier import Judge

LOOKS = ("brightness", "contrast", "saturation", "sharpness")
"""What is measured of every picture; see :func:`looks`."""

KINDS = {"said": "points", "seen": "points", "measured": "standard deviations"}
"""Where a nuisance was found: in the prompts, by a judge in the pictures, in their pixels; and the unit of its gap."""

GROUP_COLUMNS = ("0_0", "0_1", "1_0", "1_1")
GAPS = ("gap 0", "gap 1")
CHANCE = ("chance 0", "chance 1")


def balance(faces: FaceSet, said: Sequence[set[str]] = (), seen: Mapping[str, Tensor] | None = None) -> pd.DataFrame:
    """A row per nuisance: kind, nuisance, its amount in the four groups, gaps; the largest of each kind first.

    said  what the prompt of each face mentions (:func:`aimfair.study.audit.mentions`); empty where the prompts are not known
    seen  attribute that is no label of the task -> (N,) whether a judge sees it in each face (:func:`look_for`)

    The amount is a share in per cent, of :data:`LOOKS` a mean. ``gap 0`` is the difference between target 0 and 1 within
    protected 0, ``gap 1`` within protected 1, ``gap`` the larger: in points, of :data:`LOOKS` in standard deviations of the
    whole set. ``chance 0`` and ``chance 1`` are what each gap may be where nothing differs: of all the gaps of a table the
    largest passes its bound in one even set of twenty (Bonferroni), if faces are independent. Those of one prompt
    resemble each other, so the bounds are rather too low.
    """
    counts = np.array(faces.counts(), dtype=float)
    values: dict[tuple[str, str], Tensor] = {}
    for phrase in sorted(set().union(*said)):
        values["said", phrase] = 100 * torch.tensor([phrase in what for what in said]).double()
    values |= {("seen", name): 100 * there.double() for name, there in (seen or {}).items()}
    values |= {("measured", name): value for name, value in looks(faces.images).items()}
    rows = []
    with np.errstate(divide="ignore"):  # of an empty group nothing is known
        spread = np.sqrt(1 / counts[:2] + 1 / counts[2:]) * ndtri(1 - 0.05 / (4 * len(values)))
    for (kind, name), value in values.items():
        means = [float(value[faces.groups == g].mean()) for g in range(4)]  # NaN for an empty group
        unit = float(value.std(correction=0)) or 1.0 if kind == "measured" else 1.0
        gaps = [abs(means[p] - means[2 + p]) / unit for p in (0, 1)]
        chance = spread if kind == "measured" else spread * [_deviation(value[faces.protected == p]) for p in (0, 1)]
        numbers = zip([*GROUP_COLUMNS, *GAPS, *CHANCE], [*means, *gaps, *chance], strict=True)
        rows.append({"kind": kind, "nuisance": name} | dict(numbers))
    table = pd.DataFrame(rows).astype({"kind": pd.CategoricalDtype(list(KINDS), ordered=True)})
    table["gap"] = table[list(GAPS)].max(axis=1)
    return table.sort_values(["kind", "gap"], ascending=[True, False], kind="stable", ignore_index=True)


def _deviation(value: Tensor) -> float:
    """Standard deviation of (N,) per cent of which each is 0 or 100; half a face of each kind more keeps it above 0."""
    share = (float(value.sum()) / 100 + 0.5) / (len(value) + 1)
    return 100 * (share * (1 - share)) ** 0.5


def looks(images: Tensor) -> dict[str, Tensor]:
    """:data:`LOOKS` of (N, 3, H, W) uint8 images, (N,) float64 each, in grey levels.

    Mean and standard deviation of the grey picture; mean difference of the strongest and the weakest colour; mean
    difference of neighbouring grey pixels.
    """
    parts = [torch.empty(0, len(LOOKS), dtype=torch.float64)]
    for batch in images.split(1024):
        x = batch.float()
        grey = x.mean(1)
        down, across = (grey.diff(dim=d).abs().mean((1, 2)) for d in (1, 2))
        colour = (x.amax(1) - x.amin(1)).mean((1, 2))
        found = (grey.mean((1, 2)), grey.std((1, 2)), colour, (down + across) / 2)
        parts.append(torch.stack(found, 1).double())
    return dict(zip(LOOKS, torch.cat(parts).T.contiguous(), strict=True))


def look_for(judges: Sequence[Judge], images: Tensor, task: tuple[str, str]) -> dict[str, Tensor]:
    """(N,) bool for each attribute that one of ``judges`` knows and that is no label of the task."""
    labels = {*task} | ({"Male", "Female"} if {"Male", "Female"} & {*task} else set())
    seen: dict[str, Tensor] = {}
    for judge in judges:
        logits = judge.logits(images)
        seen |= {name: logits[:, judge.column(name)] >= 0 for name in judge.attributes if name not in labels}
    return seen
