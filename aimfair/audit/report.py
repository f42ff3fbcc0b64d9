"""The audit of a synthetic set, group by group: labels, variety, copies, nuisances, distance to real faces, usefulness.

Beside each row of synthetic faces stands one of as many real faces, because most of these numbers say little alone: a
judge is not always right about real faces either, and two halves of one real set have a distance too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from aimfair.audit import judges, measures, nuisances
from aimfair.faces import GROUPS, FaceSet
from aimfair.generate.classifier import Judge
from aimfair.metrics import FairnessReport

ALL = "all"
"""The row of all groups together, each with the same weight in what is compared with real faces."""


@dataclass(frozen=True)
class PoolAudit:
    """What was found.

    table       a row per group and one for all; first of the synthetic faces, then of real ones; see :func:`examine`
    nuisances   :func:`aimfair.audit.nuisances.balance` of the synthetic faces
    duplicates  near-duplicates by name: first, second, difference; ``of`` is "each other" or "real"
    wrong       (N, 2) bool: in which faces the judge sees another target, another protected label, than was asked for
    about       what a datasheet says besides: how the images were made, what was left out
    """

    table: pd.DataFrame
    nuisances: pd.DataFrame
    duplicates: pd.DataFrame
    wrong: np.ndarray
    about: dict[str, Any] = field(default_factory=dict)


def examine(
    faces: FaceSet,
    judge: Judge,
    names: Mapping[str, str],
    real: FaceSet | None = None,
    *,
    train: Tensor | None = None,
    clip: Judge | None = None,
    said: Sequence[set[str]] = (),
    seen: Mapping[str, Tensor] | None = None,
    trained: FairnessReport | None = None,
) -> PoolAudit:
    """Audit synthetic ``faces``, whose labels are what their prompts asked for.

    names    attribute behind each label, ``{"target": "Smiling", "protected": "Male"}``
    real     labelled real faces that no classifier was trained on; without them, what is compared with real is missing
    train    (M, 3, H, W) uint8 images of the real training set, of which copies are looked for
    clip     a second judge
    said, seen  see :func:`aimfair.audit.nuisances.balance`
    trained  how a classifier that was trained on such faces alone does on real ones

    Columns of the table: set ("synthetic", "real"), group ("0_0" ... or "all"), faces; in per cent how often the judge
    sees the asked-for target, protected label, both, CLIP likewise (``clip ...``), and how often a detector finds a
    ``face``; ``compared``, the number of faces behind the ``vendi`` score, the mean pairwise ``distance`` and the
    ``frechet`` distance to one half of the real faces of that group; how many faces have a near-duplicate in the set
    (``duplicates``) or in ``train`` (``copies``); the largest gap over the target of what is said, seen and measured;
    ``trained``, an accuracy in per cent.

    A real row describes the other half of the real faces, of the same number: its ``frechet`` is what the distance is
    where nothing differs, and grows as samples get small.
    """
    by = {"": judge} | ({"clip ": clip} if clip else {})
    drawn, half, other = _compared(faces, real)
    looked = _look(faces, by, names)
    looked_real = None if real is None else _look(real, by, names)
    near = [] if looked_real is None else [looked_real.features[places] for places in half]
    balance = nuisances.balance(faces, said, seen)
    twins = _named(measures.near_duplicates(faces.images), faces.names, faces.names, "each other")
    others = faces.images[:0] if train is None else train
    copies = measures.near_duplicates(faces.images, others)
    copies = _named(copies, faces.names, np.arange(len(others)).astype(str), "real")
    rows = _rows("synthetic", looked, drawn, near)
    for group, row in enumerate(rows):
        member = faces.names if group == 4 else faces.names[(faces.groups == group).numpy()]
        row["duplicates"] = int(np.isin(member, twins[["first", "second"]].to_numpy(dtype=str)).sum())
        if train is not None:
            row["copies"] = int(np.isin(member, copies["first"].to_numpy(dtype=str)).sum())
        # The largest gap between a group and that with the other target; in the row of all, the largest anywhere.
        column = nuisances.GAPS[GROUPS[group][1]] if group < 4 else "gap"
        row |= {f"{kind} gap": float(gaps[column].max()) for kind, gaps in balance.groupby("kind", observed=True)}
        if trained is not None:
            row["trained"] = trained.acc if group == 4 else float(trained.cells[group])
    if looked_real is not None:
        rows += _rows("real", looked_real, other, near)
    duplicates = pd.concat([twins, copies], ignore_index=True)
    return PoolAudit(pd.DataFrame(rows), balance, duplicates, ~looked.right[""].numpy())


@dataclass
class _Looked:
    """N faces, (N, 2) which of their labels each judge sees, (N, d) features of the first judge, (N,) whether a face is
    detected."""

    faces: FaceSet
    names: Mapping[str, str]
    right: dict[str, Tensor]
    features: Tensor
    detected: Tensor | None


def _look(faces: FaceSet, by: Mapping[str, Judge], names: Mapping[str, str]) -> _Looked:
    seen = {prefix: judge.see(faces.images) for prefix, judge in by.items()}
    right = {prefix: judges.agrees(by[prefix], logits, faces, names) for prefix, (logits, _) in seen.items()}
    return _Looked(faces, names, right, seen[""][1], measures.detect(faces.images))


def _rows(what: str, looked: _Looked, places: Sequence[Tensor], near: Sequence[Tensor]) -> list[dict[str, Any]]:
    """A row per group, then that of all.

    places  of the faces that are compared in each row
    near    features of the real faces with which they are compared; empty where there are none
    """
    rows = []
    for group, name in enumerate((*nuisances.GROUP_COLUMNS, ALL)):
        member = looked.faces.groups == group if name != ALL else torch.ones(len(looked.faces), dtype=torch.bool)
        row: dict[str, Any] = {"set": what, "group": name, "faces": int(member.sum())}
        for prefix, right in looked.right.items():
            shares = (100 * right[member].double().mean(0)).tolist()
            row |= {f"{prefix}{label}": share for label, share in zip(looked.names.values(), shares, strict=True)}
            row[f"{prefix}both"] = 100 * float(right[member].all(1).double().mean())
        if looked.detected is not None:
            row["face"] = 100 * float(looked.detected[member].double().mean())
        features = looked.features[places[group]]
        row["compared"] = len(features)
        if len(features):
            row["vendi"] = measures.vendi_score(features)
            row["distance"] = measures.mean_distance(features)
        if near and min(len(features), len(near[group])) > 1:
            row["frechet"] = measures.frechet_distance(features, near[group])
        rows.append(row)
    return rows


def _compared(faces: FaceSet, real: FaceSet | None) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Places of the synthetic faces, of one and of the other half of the real ones that are compared: for each group as
    many of each, and for all of them as many of each group."""

    def by_group(of: FaceSet) -> list[Tensor]:
        return [(of.groups == g).nonzero().flatten() for g in range(len(GROUPS))]

    own = by_group(faces)
    if real is None:
        return [*own, torch.cat([_spread(places, min(map(len, own))) for places in own])], [], []
    others = by_group(real)
    sets = (own, [places[0::2] for places in others], [places[1::2] for places in others])
    sizes = [min(map(len, parts)) for parts in zip(*sets, strict=True)]
    drawn, half, other = (
        [_spread(p, n) for p, n in zip(part, sizes, strict=True)] + [torch.cat([_spread(p, min(sizes)) for p in part])]
        for part in sets
    )
    return drawn, half, other


def _spread(places: Tensor, n: int) -> Tensor:
    """``n`` of ``places``, evenly spaced: all prompts of a pool in turn."""
    return places[(torch.arange(n) * len(places)) // n] if n else places[:0]


def _named(pairs: pd.DataFrame, first: np.ndarray, second: np.ndarray, of: str) -> pd.DataFrame:
    return pairs.assign(first=first[pairs["first"]], second=second[pairs["second"]], of=of)
