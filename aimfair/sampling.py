"""Which faces: biased training sets, balanced sets, and splits that are written down.

Everything here works on labels alone and returns positions; no image is needed to draw a set.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from aimfair.environment import AimfairError, aside, reading
from aimfair.faces import GROUPS

Labels = ArrayLike
"""(N,) labels of {0, 1}: a list, an array or a tensor."""


def quotas(n: int, ratio: float = 1 / 9) -> tuple[int, int, int, int]:
    """Faces wanted of groups (0,0) (0,1) (1,0) (1,1) in a biased set of ``n``.

    ``ratio`` is minority : majority, in (0, 1]; (0,1) and (1,0) are the majorities. 20,000 at 1/9 gives
    1,000 / 9,000 / 9,000 / 1,000. Each quota is rounded on its own, so the sum can miss ``n`` by two.
    """
    if n <= 0:
        raise AimfairError(f"n is {n}: a set needs a positive number of faces")
    if not 0 < ratio <= 1:
        raise AimfairError(f"ratio is {ratio}: minority to majority must be above 0 and at most 1, such as 1/9")
    minority, majority = round(n * ratio / (1 + ratio) / 2), round(n / (1 + ratio) / 2)
    return minority, majority, majority, minority


def biased_quota(target: Labels, protected: Labels, n: int, ratio: float = 1 / 9) -> np.ndarray:
    """Indices (int64, ascending) of the biased set of the paper: first come, first served until each quota is full.

    ``target`` and ``protected`` are (N,) labels of {0, 1} in the data set's own order (CelebA: id order);
    no random number is involved. Raises AimfairError naming the group that has too few faces.
    """
    return _take(_members(target, protected), {f"a biased set of {n}": quotas(n, ratio)})[0]


def per_group(target: Labels, protected: Labels, counts: Sequence[int], seed: int) -> np.ndarray:
    """Indices (int64, ascending) of ``counts`` faces drawn from groups (0,0) (0,1) (1,0) (1,1).

    Each group has its own permutation, seeded by ``seed`` and the group alone: a smaller draw lies within
    a larger one. Raises AimfairError naming the group that has too few faces.
    """
    if len(counts) != 4 or min(counts) < 0 or sum(counts) == 0:
        raise AimfairError(f"counts are {tuple(counts)}: give four numbers of faces, none negative, not all zero")
    return _take(_shuffled(_members(target, protected), seed), {"the draw": counts})[0]


def balanced(target: Labels, protected: Labels, each: int, seed: int) -> np.ndarray:
    """Indices (int64, ascending) of ``each`` faces of each group, drawn as by :func:`per_group`."""
    return per_group(target, protected, (each,) * 4, seed)


def by_identity(identity: ArrayLike, parts: int = 2) -> list[np.ndarray]:
    """Indices of the faces whose identity is 0, 1, ... modulo ``parts``: no person is in two parts.

    With two parts (even and odd identities) one half can train a text-to-image model and the other the
    classifier, so that synthetic faces cannot leak people of the training or test set.
    """
    if parts < 1:
        raise AimfairError(f"parts is {parts}: faces are split into at least one part")
    remainder = np.asarray(identity, np.int64) % parts
    return [np.flatnonzero(remainder == part) for part in range(parts)]


def draw_splits(
    target: Labels,
    protected: Labels,
    train: int = 10_000,
    ratio: float = 1 / 9,
    test_per_group: int = 800,
    validation_per_group: int = 150,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Disjoint "train" (biased), "validation" and "test" (both balanced) for a data set without official splits.

    Each group is permuted by the seed; test takes the first, validation the next, training its quota of
    the rest. The paper does not describe a validation set for UTKFace; 177 white men remain after training
    and testing, hence 150 of each group. Raises AimfairError naming the group that has too few faces.
    """
    if test_per_group < 0 or validation_per_group < 0:
        raise AimfairError(
            f"{test_per_group} test and {validation_per_group} validation faces per group: neither can be negative"
        )
    counts = {"test": (test_per_group,) * 4, "validation": (validation_per_group,) * 4, "train": quotas(train, ratio)}
    test, validation, rest = _take(_shuffled(_members(target, protected), seed), counts)
    return {"train": rest, "validation": validation, "test": test}


def _members(target: Labels, protected: Labels) -> list[np.ndarray]:
    """Indices of each group, ascending."""
    t, p = np.asarray(target), np.asarray(protected)
    if t.shape != p.shape or t.ndim != 1:
        raise AimfairError(
            f"target and protected labels have shapes {t.shape} and {p.shape}: one of each per face is wanted"
        )
    if not np.isin(t, (0, 1)).all() or not np.isin(p, (0, 1)).all():
        raise AimfairError("target and protected labels must be 0 or 1 for groups to be drawn")
    return [np.flatnonzero((t == group[0]) & (p == group[1])) for group in GROUPS]


def _shuffled(members: list[np.ndarray], seed: int) -> list[np.ndarray]:
    return [np.random.default_rng([seed, group]).permutation(rows) for group, rows in enumerate(members)]


def _take(members: list[np.ndarray], counts: Mapping[str, Sequence[int]]) -> list[np.ndarray]:
    """For each use of ``counts`` its number of faces of each group, together and ascending: the first use has the first."""
    taken: list[list[np.ndarray]] = [[] for _ in counts]
    for group, rows, *wanted in zip(GROUPS, members, *counts.values(), strict=True):
        if sum(wanted) > len(rows):
            uses = ", ".join(f"{k} for {what}" for what, k in zip(counts, wanted, strict=True))
            raise AimfairError(
                f"group (target {group[0]}, protected {group[1]}): {sum(wanted)} faces wanted ({uses}), "
                f"{len(rows)} available; ask for fewer, or see the catalogue's skipped list for images that are missing"
            )
        for part, chosen in zip(taken, np.split(rows, np.cumsum(wanted))[:-1], strict=True):
            part.append(chosen)
    return [np.sort(np.concatenate(part)) for part in taken]


# A split as a file


def split_hash(names: Mapping[str, Sequence[str] | np.ndarray]) -> str:
    """The sha256 of a split: the same on two machines if every part has the same faces in the same order."""
    return hashlib.sha256(_listed(names)).hexdigest()


def write_split(path: str | Path, names: Mapping[str, Sequence[str] | np.ndarray]) -> str:
    """Write the names of each split to a CSV whose first line is the sha256 of the rest; returns that hash."""
    path, digest = Path(path), split_hash(names)
    with aside(path) as partial:
        partial.write_bytes(f"# sha256 {digest}\n".encode() + _listed(names))
    return digest


def _listed(names: Mapping[str, Sequence[str] | np.ndarray]) -> bytes:
    rows = [(name, split) for split, members in names.items() for name in members]
    return pd.DataFrame(rows, columns=["name", "split"]).to_csv(index=False, lineterminator="\n").encode()


def read_split(path: str | Path) -> dict[str, np.ndarray]:
    """Names of each split as written by :func:`write_split`. Raises AimfairError if the file was changed since."""
    try:
        header, _, body = Path(path).read_bytes().partition(b"\n")
    except OSError as error:
        raise AimfairError(f"no split can be read from {path} ({error})") from error
    with reading(path, "restore or write it again"):
        if header.split() != [b"#", b"sha256", hashlib.sha256(body).hexdigest().encode()]:
            raise ValueError("it was edited: it does not match the sha256 in its first line")
        table = pd.read_csv(io.BytesIO(body), dtype=str, keep_default_na=False)
    return {str(split): rows.to_numpy(str) for split, rows in table.groupby("split", sort=False)["name"]}
