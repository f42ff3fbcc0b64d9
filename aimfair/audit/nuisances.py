"""Nuisances: what a face shows beside its labels. Is it spread evenly over the groups of a synthetic set?

A classifier learns whatever tells the target. What counts is therefore the difference between target 0 and target 1
within one protected value; that men have more beards than women is no fault of the set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.special import ndtri
from torch import Tensor

from aimfair import prompts
from aimfair.audit import judge as audit
from aimfair.audit import judges
from aimfair.audit.judge import Judge
from aimfair.faces import FaceSet
from aimfair.prompts import coverage, wording
from aimfair.study.profiles import Profile

LOOKS = ("brightness", "contrast", "saturation", "sharpness")
"""What is measured of every picture; see :func:`looks`."""

KINDS = {"said": "points", "seen": "points", "measured": "standard deviations"}
"""Where a nuisance was found: in the prompts, by a judge in the pictures, in their pixels; and the unit of its gap."""

GROUP_COLUMNS = ("0_0", "0_1", "1_0", "1_1")
GAPS = ("gap 0", "gap 1")
CHANCE = ("chance 0", "chance 1")


def balance(faces: FaceSet, said: Sequence[set[str]] = (), seen: Mapping[str, Tensor] | None = None) -> pd.DataFrame:
    """A row per nuisance: kind, nuisance, its amount in the four groups, gaps; the largest of each kind first.

    said  what the prompt of each face mentions (:func:`mentions`); empty where the prompts are not known
    seen  attribute that is no label of the task -> (N,) whether a judge sees it in each face (:func:`attributes`)

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
    parts: dict[str, list[Tensor]] = {name: [] for name in LOOKS}
    for batch in images.split(1024):
        x = batch.float()
        grey = x.mean(1)
        steps = [grey.diff(dim=d).abs().mean((1, 2)) for d in (1, 2)]
        found = (grey.mean((1, 2)), grey.std((1, 2)), (x.amax(1) - x.amin(1)).mean((1, 2)), (steps[0] + steps[1]) / 2)
        for name, value in zip(LOOKS, found, strict=True):
            parts[name].append(value.double())
    return {name: torch.cat(values) if values else torch.empty(0) for name, values in parts.items()}


def mentions(manifest: pd.DataFrame, profile: Profile) -> list[set[str]]:
    """What the prompt of each image says beside its labels, by :func:`aimfair.prompts.coverage.mentioned`.

    manifest  a row per image with a column ``prompt``, or with a ``prompt_id`` of the profile's bank. The attributes
              that the bank declares for that id count as far as the text says them. Empty where neither is there.
    """
    bank = _bank(profile)
    pair = (profile.target, profile.protected)
    texts = manifest["prompt"].astype(str) if "prompt" in manifest else None
    ids = manifest["prompt_id"].astype(str) if "prompt_id" in manifest else pd.Series("", index=manifest.index)
    if texts is None:
        written = {p.id: p.text for p in prompts.bank(_task(profile), profile.prompts)} if bank else {}
        texts = ids.map(written)
    if texts.isna().any() or not len(texts):
        return []
    known: dict[tuple[str, str], set[str]] = {}
    for id, text in set(zip(ids, texts, strict=True)):
        declared = bank.get(id, {"attributes": [], "pose": ""})
        there = [what for what in (*declared["attributes"], declared["pose"]) if what and wording.says(text, what)]
        known[id, text] = coverage.mentioned({"text": text, "attributes": there, "pose": ""}, pair)
    return [known[key] for key in zip(ids, texts, strict=True)]


def attributes(judges: Sequence[Judge], images: Tensor, task: tuple[str, str]) -> dict[str, Tensor]:
    """(N,) bool for each attribute that one of ``judges`` knows and that is no label of the task."""
    labels = {*task} | ({"Male", "Female"} if {"Male", "Female"} & {*task} else set())
    seen: dict[str, Tensor] = {}
    for judge in judges:
        logits = judge.logits(images)
        names = [name for name in judge.attributes if name not in labels]
        seen |= {name: logits[:, judge.column(name)] >= 0 for name in names}
    return seen


def judges_of(profile: Profile, judge: Judge, device: str = "cpu") -> list[Judge]:
    """Who looks for attributes that are no label: ``judge``, and for FaceWorld one of its hair, glasses, beards and so on.

    That one is trained at the first call, on cartoons of another world than the generator's, and kept in ``data/cache``.
    """
    if "faceworld" not in (profile.corpus, profile.dataset):
        return [judge]
    from aimfair.datasets import faceworld

    world = faceworld.catalogue(train=0, validation=0, test=0, corpus=100).attributes
    names = [n for n in world if world[n].isin((0, 1)).all() and n not in audit.JUDGED]

    def train() -> Judge:
        return audit.train_faceworld_judge(images=8_000, attributes=names, epochs=6, seed=1)

    return [judge, judges.kept_judge("faceworld-nuisances", train, device)]


def _task(profile: Profile) -> str:
    return f"{profile.dataset}/{profile.task}"


def _bank(profile: Profile) -> dict[str, Mapping[str, Any]]:
    """Prompts of the profile's bank by their ids, also of one beside the recorded one; none where there is no bank."""
    _, at, mine = profile.prompts.partition("@")
    name = _task(profile) + at + mine
    if not prompts.path_of(name).exists():
        return {}
    groups = prompts.read(name)["groups"].values()
    return {prompt["id"]: prompt for group in groups for prompt in group["prompts"]}
