"""Fill the small groups of the biased real set with synthetic images until all are equal, and train on that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aimfair import sampling
from aimfair.faces import FaceSet
from aimfair.methods import Bench, Fitted, Method
from aimfair.methods._scratch import from_scratch


def missing(shares: Sequence[float], faces: int) -> list[int]:
    """How many faces each group of a set of ``faces`` with these group shares lacks to be as large as the largest.

    20,000 at .05, .45, .45, .05 lack 8,000 of the first and of the last.
    """
    counts = [round(share * faces) for share in shares]
    return [max(counts) - count for count in counts]


def repaired(train: FaceSet, shares: Sequence[float], pool: FaceSet, seed: int) -> tuple[FaceSet, list[int], list[int]]:
    """``train`` with what its groups lack, as far as ``pool`` has it; the numbers added, and those wanted."""
    wanted = missing(shares, len(train))
    added = [min(lack, there) for lack, there in zip(wanted, pool.counts(), strict=True)]
    if not sum(added):
        return train, added, wanted
    drawn = sampling.per_group(pool.target.numpy(), pool.protected.numpy(), added, seed)  # type: ignore[union-attr]
    return train + pool.subset(drawn), added, wanted


def fit(bench: Bench, hyper: Mapping[str, Any]) -> Fitted:
    """As ERM, on the repaired set. No label of a real face is read: how many there are of each group is taken from the
    shares that the study assumes, as AIM-Fair takes its bias ratio.

    A pool that is too small gives what it has, and a note. Equal counts do not unbias: the synthetic images show only
    those groups where target and protected attribute agree, so a network that tells synthetic from real still predicts
    the target from the protected attribute.
    """
    pool = bench.balanced if bench.pool is None else bench.pool
    faces, added, wanted = repaired(bench.train, bench.shares, pool, bench.seed + 2)
    scores: dict[str, Any] = {"added": added}
    if added != wanted:
        scores["note"] = f"the groups stay unequal: {wanted} synthetic faces are wanted, the pool has {pool.counts()}"
    fitted = from_scratch(bench, "repairing", train=faces)
    fitted.scores = scores
    return fitted


METHOD = Method(
    name="repairing",
    title="Data repairing",
    source="Table 3, row 'Data Repairing'; D'Incà et al., WACV 2024; Ye-Bin et al., arXiv 2308.00994",
    start="scratch",
    fit=fit,
    needs=frozenset({"synthetic"}),
)
