"""The synthetic images of a repair: drawn or read, looked at, and shared out into a biased and a balanced set."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from aimfair.audit.measures import detect, near_duplicates
from aimfair.datasets import _images
from aimfair.environment import AimfairError, reading
from aimfair.generate import draw, manifest, presets
from aimfair.generate.pipelines import load_pipeline
from aimfair.practice.evaluation import as_classes
from aimfair.prompts import Prompt

AUDITED = 500
"""Images of each folder, and photographs, that are looked at for copies and for faces."""


def read_prompts(path: Path, classes: Sequence[str]) -> list[Prompt]:
    """The sentences of a JSON file, ``{"{class}_{group}": ["...", ...], ...}`` or a prompt bank of this book.

    Raises AimfairError for another file, and for names that begin with none of the ``classes``.
    """
    with reading(path, 'mend it: {"smiling_woman": ["Photo of a smiling woman.", ...], ...}'):
        record = json.loads(path.read_text(encoding="utf-8"))
        bank = []
        for name, given in record.get("groups", record).items():
            texts = [prompt["text"] for prompt in given["prompts"]] if isinstance(given, dict) else list(given)
            target, _, group = name.rpartition("_")
            if target not in classes or not group or not all(isinstance(text, str) for text in texts):
                raise ValueError(
                    f"{name} is no {{class}}_{{group}} with a list of sentences, of the classes {[*classes]}"
                )
            bank += [Prompt(f"{name}/{i:02d}", text, target, group) for i, text in enumerate(texts)]
        if {prompt.target for prompt in bank} != {*classes}:
            raise ValueError(f"it needs sentences for all classes, {', '.join(classes)}")
    return bank


def draw_synthetic(
    generator: str,
    bank: Sequence[Prompt],
    per_group: int,
    steps: int,
    guidance: float,
    size: int,
    folder: Path,
    device: str,
) -> Path:
    """Draw what is missing of ``per_group`` images of each group into ``{class}_{group}/`` of ``folder``, and return it.

    steps, guidance  0: what the generator's preset says. Raises AimfairError where there is none, and as
                     :func:`aimfair.generate.draw.generate`
    """
    preset = presets.find(generator)
    steps, guidance = steps or preset.steps, guidance or preset.guidance
    if not steps:
        raise AimfairError(
            f"{generator} has no preset that says in how many steps it draws: give --steps and --guidance"
        )
    todo = manifest.jobs(bank, per_group, "")
    if manifest.missing(todo, folder):
        draw.generate(load_pipeline(generator, device), todo, folder, steps=steps, guidance=guidance, size=size)
    return folder


def read_synthetic(folder: Path, classes: Sequence[str], size: int) -> tuple[Tensor, pd.DataFrame]:
    """Images (N, 3, size, size) uint8 in the folders ``{class}_{group}`` of ``folder``; a row each with both names.

    Raises AimfairError where there are none, and for a class that lacks a group which another class has.
    """
    if not folder.is_dir():
        raise AimfairError(f"--synthetic {folder}: there is no such folder")
    inside = _images.Container(folder)
    names = [name for name in inside.members if name.lower().endswith((".png", ".jpg", ".jpeg", ".webp"))]
    found = pd.Series(names, dtype=str).str.extract(r"^(?P<class>[^/]+)_(?P<group>[^/_]+)/")
    known = found["class"].isin(classes).to_numpy()
    names, found = [name for name, keep in zip(names, known, strict=True) if keep], found[known].reset_index(drop=True)
    counts = pd.crosstab(found["class"], found["group"]).reindex(classes, fill_value=0)
    if counts.size == 0 or (counts == 0).any(axis=None):
        empty = [f"{t}_{p}" for t in counts.index for p in counts.columns if counts.loc[t, p] == 0]
        raise AimfairError(
            f"{folder} has no image in {empty[0] if empty else '{class}_{group}'}/: every class needs all groups"
        )
    if counts.shape[1] < 2:
        raise AimfairError(f"{folder} has images of one group only: a bias needs two to be seen")
    catalogue = _images.build(f"synthetic {folder}", found, [_images.Location(inside, name) for name in names], [])
    return catalogue.read(np.arange(len(names)), size), found


def look_at(images: Tensor, groups: pd.DataFrame, photographs: Tensor) -> pd.DataFrame:
    """What an audit needs no label for, in per cent of at most :data:`AUDITED` images: a row for each class and group, and
    one for the photographs.

    faces   in how many a face is found (``pip install aimfair[audit]``); means something beside the photographs' share only
    twice   how many have a near-duplicate among these images
    copies  how many have one among the photographs
    """
    rows = np.concatenate([places[:AUDITED] for places in groups.groupby(["class", "group"]).indices.values()])
    some = photographs[torch.linspace(0, len(photographs) - 1, min(AUDITED, len(photographs))).long()]
    tables = []
    for part, names in (
        (images[rows], groups.iloc[rows]),
        (some, pd.DataFrame({"class": ["photographs"] * len(some)})),
    ):
        found, pairs, order = detect(part), near_duplicates(part), np.arange(len(part))
        seen = {
            "faces": np.nan if found is None else 100.0 * found.numpy(),
            "twice": 100.0 * np.isin(order, pairs[["first", "second"]]),
        }
        if part is not some:
            seen["copies"] = 100.0 * np.isin(order, near_duplicates(part, photographs)["first"])
        tables.append(names.assign(**seen).groupby([*names], as_index=False).mean())
    return pd.concat(tables, ignore_index=True)


def biased_shares(
    train: pd.DataFrame, seen: pd.DataFrame, protected: Sequence[str], ratio: float
) -> tuple[pd.Series, str]:
    """Share of each (class, group) in the real training images, and how it is known.

    From the first protected column where there is one. Else the assumed ratio: of each class that group is the majority of
    which the biased model gets most synthetic images right (``seen``: class, group and accuracy).
    """
    index = pd.MultiIndex.from_frame(seen[["class", "group"]])
    if protected:
        pairs = pd.MultiIndex.from_arrays([train["class"], as_classes(train[protected[0]])])
        counts = pairs.value_counts().reindex(index, fill_value=0)
        if counts.sum() == 0:
            raise AimfairError(f"the groups {sorted({*seen['group']})} of the synthetic images are no {protected[0]}")
        return counts / counts.sum(), f"The bias of the training images was counted by {protected[0]}."
    accuracy = pd.Series(seen["accuracy"].to_numpy(), index=index)
    majority = accuracy.groupby(level=0).transform("max") == accuracy
    weight = pd.Series(np.where(majority, 1.0, ratio), index=index)
    most = ", ".join("_".join(pair) for pair in index[majority])
    return weight / weight.groupby(level=0).transform("sum") / seen["class"].nunique(), (
        f"No protected label says how biased the training images are: assumed is that {most} are in the majority, by 1 to "
        f"{ratio:.2g}, because the model gets most synthetic images of these right."
    )


def draw_sets(groups: pd.DataFrame, shares: pd.Series, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Places of a biased set, with these ``shares``, and of a balanced one, each as large as the images allow."""
    rng = np.random.default_rng(seed)
    places = {pair: rng.permutation(rows) for pair, rows in groups.groupby(["class", "group"]).indices.items()}
    counts = pd.Series({pair: len(rows) for pair, rows in places.items()}).reindex(shares.index)
    total = (counts / shares.where(shares > 0)).min()
    sizes = np.floor(shares * total + 1e-9).astype(int)
    biased = np.concatenate([rows[: sizes[pair]] for pair, rows in places.items()])
    return biased, np.concatenate([rows[: counts.min()] for rows in places.values()])
