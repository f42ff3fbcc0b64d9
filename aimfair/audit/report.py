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
    real: FaceSet,
    train: Tensor,
    *,
    clip: Judge | None = None,
    said: Sequence[set[str]] = (),
    seen: Mapping[str, Tensor] | None = None,
    trained: FairnessReport | None = None,
) -> PoolAudit:
    """Audit synthetic ``faces``, whose labels are what their prompts asked for.

    names    attribute behind each label, ``{"target": "Smiling", "protected": "Male"}``
    real     labelled real faces that no classifier was trained on
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
    (looked, features), (looked_real, features_real) = (_look(some, by, names) for some in (faces, real))
    near = [features_real[places] for places in half]
    balance = nuisances.balance(faces, said, seen)
    twins, copies = measures.near_duplicates(faces.images), measures.near_duplicates(faces.images, train)
    twins = twins.assign(first=faces.names[twins["first"]], second=faces.names[twins["second"]], of="each other")
    copies = copies.assign(first=faces.names[copies["first"]], second=copies["second"].astype(str), of="real")
    alike = {
        "duplicates": twins[["first", "second"]].to_numpy(dtype=str),
        "copies": copies["first"].to_numpy(dtype=str),
    }
    rows = _rows("synthetic", faces, looked, [features[places] for places in drawn], near)
    for group, row in enumerate(rows):
        member = faces.names if group == 4 else faces.names[(faces.groups == group).numpy()]
        row |= {what: int(np.isin(member, names).sum()) for what, names in alike.items()}
        # The largest gap between a group and that with the other target; in the row of all, the largest anywhere.
        column = nuisances.GAPS[GROUPS[group][1]] if group < 4 else "gap"
        row |= {f"{kind} gap": float(gaps[column].max()) for kind, gaps in balance.groupby("kind", observed=True)}
        if trained is not None:
            row["trained"] = trained.acc if group == 4 else float(trained.cells[group])
    rows += _rows("real", real, looked_real, [features_real[places] for places in other], near)
    duplicates = pd.concat([twins, copies], ignore_index=True)
    wrong = ~looked[list(names.values())].to_numpy()
    return PoolAudit(pd.DataFrame(rows), balance, duplicates, wrong, dict(names))


def _look(faces: FaceSet, by: Mapping[str, Judge], names: Mapping[str, str]) -> tuple[pd.DataFrame, Tensor]:
    """A row per face: does each judge see the labels that it has, does a detector find a face? Features of the first judge."""
    table: dict[str, Any] = {}
    features = []
    for prefix, judge in by.items():
        logits, seen = judge.see(faces.images)
        features.append(seen)
        right = judges.agrees(judge, logits, faces, names).numpy()
        table |= {f"{prefix}{name}": right[:, i] for i, name in enumerate(names.values())}
        table[f"{prefix}both"] = right.all(1)
    detected = measures.detect(faces.images)
    if detected is not None:
        table["face"] = detected.numpy()
    return pd.DataFrame(table), features[0]


def _rows(
    what: str, faces: FaceSet, looked: pd.DataFrame, compared: Sequence[Tensor], near: Sequence[Tensor]
) -> list[dict[str, Any]]:
    """A row per group, then that of all; ``compared`` and ``near`` are the features that are compared in each row."""
    groups, rows = faces.groups.numpy(), []
    for group, (name, features) in enumerate(zip((*nuisances.GROUP_COLUMNS, ALL), compared, strict=True)):
        member = looked[groups == group] if name != ALL else looked
        row: dict[str, Any] = {"set": what, "group": name, "faces": len(member)}
        row |= (100 * member.mean()).to_dict() | {"compared": len(features)}
        if len(features):
            row["vendi"] = measures.vendi_score(features)
            row["distance"] = measures.mean_distance(features)
        if min(len(features), len(near[group])) > 1:
            row["frechet"] = measures.frechet_distance(features, near[group])
        rows.append(row)
    return rows


def _compared(faces: FaceSet, real: FaceSet) -> list[list[Tensor]]:
    """Places of the synthetic faces, of one and of the other half of the real ones that are compared: for each group as
    many of each, and for all of them as many of each group."""
    own, others = ([(of.groups == g).nonzero().flatten() for g in range(len(GROUPS))] for of in (faces, real))
    sets = [own, [places[0::2] for places in others], [places[1::2] for places in others]]
    sizes = [min(map(len, parts)) for parts in zip(*sets, strict=True)]
    return [[*map(_spread, part, sizes), torch.cat([_spread(p, min(sizes)) for p in part])] for part in sets]


def _spread(places: Tensor, n: int) -> Tensor:
    """``n`` of ``places``, evenly spaced: all prompts of a pool in turn."""
    return places[(torch.arange(n) * len(places)) // n] if n else places[:0]
