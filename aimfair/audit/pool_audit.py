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

from aimfair.audit import clip_judge, feature_metrics, judges, nuisances
from aimfair.audit.clip_judge import ClipJudge
from aimfair.audit.detection import detected
from aimfair.audit.judge import Judge
from aimfair.faces import GROUPS, FaceSet
from aimfair.metrics import FairnessReport
from aimfair.study import Study, synthetic

ALL = "all"
"""The row of all groups together, each with the same weight in what is compared with real faces."""


@dataclass(frozen=True)
class PoolAudit:
    """What was found.

    table       a row per group and one for all; first of the synthetic faces, then of real ones; see :func:`examine`
    nuisances   :func:`aimfair.audit.nuisances.balance` of the synthetic faces
    duplicates  near-duplicates by name: first, second, difference; ``of`` is "each other" or "real"
    wrong       (N, 2) bool: in which faces the judge sees another target, another protected label, than was asked for
    about       what a datasheet tells beside: how the images were made, what was left out
    """

    table: pd.DataFrame
    nuisances: pd.DataFrame
    duplicates: pd.DataFrame
    wrong: np.ndarray
    about: dict[str, Any] = field(default_factory=dict)


def examine(
    faces: FaceSet,
    judge: Judge | ClipJudge,
    names: Mapping[str, str],
    real: FaceSet | None = None,
    *,
    train: Tensor | None = None,
    clip: ClipJudge | None = None,
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
    sees the asked-for target, protected label, both, and CLIP likewise (``clip ...``), and how often a detector finds a
    ``face`` (where one is installed: :mod:`aimfair.audit.detection`); ``compared``, the number of
    faces behind the next three: ``vendi`` score, mean pairwise ``distance``, ``frechet`` distance to one half of the
    real faces of that group; faces with a near-duplicate in the set (``duplicates``), faces all but the same as one of
    ``train`` (``copies``); the largest gap over the target of what is said, seen and measured; ``trained``: accuracy in
    per cent.

    A real row describes the other half of the real faces, of the same number: its ``frechet`` is what the distance is
    where nothing differs, and grows as samples get small.
    """
    labels, seeing = list(names.values()), [("", judge)] + ([("clip ", clip)] if clip else [])
    found = {prefix: _look(who, faces, names) for prefix, who in seeing}
    found_real = {prefix: _look(who, real, names) for prefix, who in seeing} if real is not None else {}
    there = {"synthetic": detected(faces.images), "real": None if real is None else detected(real.images)}
    balance = nuisances.balance(faces, said, seen)
    twins = _named(feature_metrics.near_duplicates(faces.images), faces.names, faces.names, "each other")
    twins_of_real = pd.DataFrame() if train is None else feature_metrics.near_duplicates(faces.images, train)
    copies = _named(twins_of_real, faces.names, np.arange(0 if train is None else len(train)).astype(str), "real")
    drawn, half, other = _compared(faces, real)

    def described(what: str, who: FaceSet, results: Mapping[str, tuple], parts: list, group: int) -> dict[str, Any]:
        """One row; ``group`` 4 is all of them."""
        member = who.groups == group if group < 4 else torch.ones(len(who), dtype=torch.bool)
        row: dict[str, Any] = {"set": what, "group": nuisances.GROUP_COLUMNS[group] if group < 4 else ALL}
        row["faces"] = int(member.sum())
        for prefix, (right, _) in results.items():
            shares = 100 * right[member].double().mean(0)
            row |= {f"{prefix}{name}": float(share) for name, share in zip(labels, shares, strict=True)}
            row[f"{prefix}both"] = 100 * float(right[member].all(1).double().mean())
        if (found_face := there[what]) is not None:
            row["face"] = 100 * float(found_face[member].double().mean())
        features = results[""][1]
        row["compared"] = len(parts[group])
        if len(parts[group]):
            row["vendi"] = feature_metrics.vendi_score(features[parts[group]])
            row["distance"] = feature_metrics.mean_distance(features[parts[group]])
        if real is not None and min(len(parts[group]), len(half[group])) > 1:
            row["frechet"] = feature_metrics.frechet_distance(features[parts[group]], found_real[""][1][half[group]])
        return row

    rows = []
    for group in range(5):
        row = described("synthetic", faces, found, drawn, group)
        member = faces.names if group == 4 else faces.names[(faces.groups == group).numpy()]
        row["duplicates"] = int(np.isin(member, twins[["first", "second"]].to_numpy(dtype=str)).sum())
        if train is not None:
            row["copies"] = int(np.isin(member, copies["first"].to_numpy(dtype=str)).sum())
        row |= _gaps(balance, group)
        if trained is not None:
            row["trained"] = trained.acc if group == 4 else float(trained.cells[group])
        rows.append(row)
    if real is not None:
        rows += [described("real", real, found_real, other, group) for group in range(5)]
    duplicates = pd.concat([twins, copies], ignore_index=True)
    return PoolAudit(pd.DataFrame(rows), balance, duplicates, ~found[""][0].numpy())


def of_study(opened: Study, clip: str = "", training: bool = True, skip_broken: bool = False) -> PoolAudit:
    """Audit what ``opened`` draws its synthetic sets from; see :func:`examine`. With a rule that selects, what is selected.

    clip         folder or hub name of a CLIP model: a second judge, and the only one where there is no corpus for another
    training     also train a classifier on the synthetic faces alone, unless such a run of the study's seed is there
    skip_broken  images that cannot be decoded are left out of the study's pool and listed, in place of ending the audit

    The real faces are the validation set, so that the test set is not read before the end: also ``trained`` is told for
    it, a little too high, because its best epoch was chosen there.
    """
    p, device = opened.profile, opened.device
    task = (p.target, p.protected)
    judge, second = judges_for(opened, clip)
    catalogue = synthetic.catalogue(p, device, opened.data_root, on_error="skip" if skip_broken else "raise")
    if skip_broken:
        opened.pool = synthetic.taken(p, catalogue)
    faces = opened.selected(opened.seed)
    places = pd.Index(catalogue.names).get_indexer(faces.names)
    manifest = catalogue.attributes.iloc[places].reset_index(drop=True)
    several: Any = nuisances.judges_of(p, judge, device) if isinstance(judge, Judge) else [judge]
    found = examine(
        faces,
        judge,
        {"target": p.target, "protected": p.protected},
        opened.faces("validation"),
        train=opened.faces("train").images,
        clip=second,
        said=nuisances.mentions(manifest, p),
        seen=nuisances.attributes(several, faces.images, task),
        trained=opened.run("synthetic-only").report("validation") if training else None,
    )
    told = "CLIP" if isinstance(judge, ClipJudge) else "classifier"
    found.about.update(_about(opened, manifest, catalogue.skipped, clip, told))
    return found


def judges_for(opened: Study, clip: str = "") -> tuple[Judge | ClipJudge, ClipJudge | None]:
    """The judge of a study's synthetic faces, and CLIP as the second one; CLIP alone where there is no other.

    Raises AimfairError where there is neither.
    """
    second = clip_judge.load(clip, opened.device) if clip else None
    try:
        return judges.judge_of(opened.profile, opened.device, opened.data_root), second
    except judges.NoJudge:
        if second is None:
            raise
        return second, None


def _about(opened: Study, manifest: pd.DataFrame, skipped: list[str], clip: str, judge: str) -> dict[str, Any]:
    p = opened.profile
    told = ("model", "revision", "scheduler", "steps", "guidance", "drawn", "size", "negative_prompt", "arguments")
    made = {name: sorted(map(str, manifest[name].dropna().unique())) for name in told if name in manifest}
    if "prompt" in manifest:
        made["distinct prompts"] = [str(manifest["prompt"].nunique())]
    return {
        "folder": str(synthetic.pool_folder(p)),
        "profile": p.profile,
        "dataset": p.dataset,
        "target": p.target,
        "protected": p.protected,
        "corpus": p.corpus,
        "image_size": p.image_size,
        "selection": p.selection,
        "seed": opened.seed,
        "made": made,
        "skipped": skipped,
        "clip": clip,
        "judge": judge,
    }


def _look(judge: Judge | ClipJudge, faces: FaceSet, names: Mapping[str, str]) -> tuple[Tensor, Tensor]:
    """(N, 2) whether the judge sees each label, and (N, d) features."""
    logits, features = judge.see(faces.images)
    wanted = [getattr(faces, label).bool() for label in names]
    right = [(logits[:, judge.column(a)] >= 0) == want for a, want in zip(names.values(), wanted, strict=True)]
    return torch.stack(right, 1), features


def _compared(faces: FaceSet, real: FaceSet | None) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Places of the synthetic faces, of one and of the other half of the real ones that are compared: for each group as
    many of each, and for all of them as many of each group."""
    own = [(faces.groups == g).nonzero().flatten() for g in range(len(GROUPS))]
    if real is None:
        level = min(map(len, own))
        return [*own, torch.cat([_spread(o, level) for o in own])], [], []
    there = [(real.groups == g).nonzero().flatten() for g in range(len(GROUPS))]
    sets = (own, [t[0::2] for t in there], [t[1::2] for t in there])
    sizes = [min(len(part[g]) for part in sets) for g in range(len(GROUPS))]
    drawn, half, other = (
        [_spread(p, n) for p, n in zip(part, sizes, strict=True)] + [torch.cat([_spread(p, min(sizes)) for p in part])]
        for part in sets
    )
    return drawn, half, other


def _spread(places: Tensor, n: int) -> Tensor:
    """``n`` of ``places``, evenly spaced: all prompts of a pool in turn."""
    return places[(torch.arange(n) * len(places)) // n] if n else places[:0]


def _named(pairs: pd.DataFrame, first: np.ndarray, second: np.ndarray, of: str) -> pd.DataFrame:
    if pairs.empty:
        return pd.DataFrame(columns=["first", "second", "difference", "of"])
    return pairs.assign(first=first[pairs["first"]], second=second[pairs["second"]], of=of)


def _gaps(balance: pd.DataFrame, group: int) -> dict[str, float]:
    """The largest gap of each kind between a group and that with the other target; of all groups the largest anywhere."""
    column = nuisances.GAPS[GROUPS[group][1]] if group < 4 else "gap"
    return {f"{kind} gap": float(rows[column].max()) for kind, rows in balance.groupby("kind", observed=True)}
