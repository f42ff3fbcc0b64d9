"""Groups within groups: is one attribute more hiding another behind the four accuracies?

The protected attribute is crossed with a second one, which gives eight cells. The largest difference between many
small cells is large by chance alone, so it is held against faces whose second attribute was shuffled among faces
of the same target and protected value: the cells keep their sizes and the four accuracies do not move.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from aimfair.datasets import Catalogue
from aimfair.environment import AimfairError
from aimfair.sampling import positions
from aimfair.stats import percentile, wilson
from aimfair.study.runs import Run

LEAST = 30
"""A cell with fewer faces is shown with its count, and takes no part in a gap."""

CELLS: tuple[tuple[int, int, int], ...] = tuple(product((0, 1), repeat=3))  # type: ignore[arg-type]
"""(target, protected, second) of cell 0 to 7: the four groups in their order, each in two."""


@dataclass(frozen=True, eq=False)
class Intersections:
    """Eight cells, what they hide, and what chance would hide.

    table   a row per cell: target, protected, second, faces, accuracy with its interval (per cent), counted (bool)
    gap     points: how much, at most, the two halves of one of the four groups differ
    worst   per cent: the smallest counted cell
    null_gap, null_worst  (draws,) the same two numbers with the second attribute shuffled
    """

    table: pd.DataFrame
    gap: float
    worst: float
    null_gap: np.ndarray
    null_worst: np.ndarray

    @property
    def p_gap(self) -> float:
        """Share of shuffles whose gap is at least as large, the observed one counted among them."""
        return _share(self.null_gap >= self.gap - 1e-9)

    @property
    def p_worst(self) -> float:
        """Share of shuffles whose worst cell is at least as bad, the observed one counted among them."""
        return _share(self.null_worst <= self.worst + 1e-9)

    def as_dict(self) -> dict[str, float]:
        """One flat row for a table: gap and worst cell, each with the null's mean, its central 95 % and the p-value."""
        row: dict[str, float] = {}
        for name, value, null, p in (
            ("gap", self.gap, self.null_gap, self.p_gap),
            ("worst", self.worst, self.null_worst, self.p_worst),
        ):
            low, high = percentile(null)
            row |= {name: value, f"{name} by chance": float(null.mean()), f"{name} low": low, f"{name} high": high}
            row[f"{name} p"] = p
        return row


def intersections(
    target: ArrayLike, correct: ArrayLike, protected: ArrayLike, second: ArrayLike, draws: int = 2000, seed: int = 0
) -> Intersections:
    """Accuracy in the eight cells of target x protected x second, and a permutation null of what they differ by.

    target, protected, second  (N,) of {0, 1}
    correct  (N,) or (S, N): was face i classified rightly, by the model of seed s. Several models count as their mean,
             face by face: the faces, which the shuffles are about, are the same for all
    draws    shuffles; p-values are multiples of 1 / (draws + 1)
    Intervals of the cells are Wilson's for as many faces as the cell holds. Raises AimfairError for shapes or values
    that do not fit, and where fewer than two cells that can be compared hold :data:`LEAST` faces.
    """
    y, s, z = (np.asarray(values).reshape(-1) for values in (target, protected, second))
    right = np.atleast_2d(np.asarray(correct, dtype=np.float64)).mean(0)
    if not len(y) == len(s) == len(z) == len(right):
        raise AimfairError(
            f"every face needs three labels and a result: got {len(y)}, {len(s)}, {len(z)}, {len(right)}"
        )
    if not all(np.isin(values, (0, 1)).all() for values in (y, s, z)):
        raise AimfairError("target, protected and second attribute must hold 0 and 1 only")
    group = (2 * y + s).astype(np.int64)
    counts = np.bincount(2 * group + z.astype(np.int64), minlength=8)
    hits = np.bincount(2 * group + z.astype(np.int64), weights=right, minlength=8)
    counted = counts >= LEAST
    if not counted.reshape(4, 2).all(1).any():
        raise AimfairError(
            f"no group has {LEAST} faces of either value of the second attribute: counts {counts.tolist()}"
        )
    shuffled = np.empty((draws, 8))
    rng = np.random.default_rng(seed)
    for g in range(4):
        member = right[group == g]
        drawn = _sums_of_random(member, counts[2 * g + 1], draws, rng)
        shuffled[:, 2 * g + 1], shuffled[:, 2 * g] = drawn, member.sum() - drawn
    cells, null = (_accuracies(sums, counts) for sums in (hits, shuffled))
    return Intersections(
        _table(cells, counts, counted),
        float(_gap(cells, counted)),
        float(cells[counted].min()),
        _gap(null, counted),
        null[:, counted].min(1),
    )


def second_attribute(catalogue: Catalogue, names: Sequence[str] | np.ndarray, attribute: str) -> np.ndarray:
    """(N,) int64 of {0, 1}: the attribute of the faces called ``names``, as the data set's catalogue knows it.

    An attribute with many values, such as age in years, is cut above its median over these faces. Raises AimfairError for
    a name or attribute that the catalogue does not have, and for one that is text.
    """
    index = positions(catalogue, names)
    if attribute not in catalogue.attributes:
        catalogue.labels(attribute)  # says which there are
    values = catalogue.attributes[attribute]
    if values.isin((0, 1)).all():
        return values.to_numpy(np.int64)[index]
    if not pd.api.types.is_numeric_dtype(values):
        raise AimfairError(
            f"{catalogue.name}: {attribute} holds text such as {values.iloc[0]!r}: name a number or a label"
        )
    chosen = values.to_numpy()[index]
    return (chosen > np.median(chosen)).astype(np.int64)


def of_runs(runs: Sequence[Run], catalogue: Catalogue, attribute: str, draws: int = 2000) -> Intersections:
    """:func:`intersections` on the test faces of one method's runs, a run per seed."""
    if not runs:
        raise AimfairError("no run whose groups could be crossed")
    tests = [run.predictions[run.predictions["split"] == "test"] for run in runs]
    first = tests[0]
    if any(not np.array_equal(rows["name"].to_numpy(), first["name"].to_numpy()) for rows in tests):
        raise AimfairError("the runs do not predict the same test faces: they are of different studies")
    correct = np.stack([((rows["logit"] >= 0) == (rows["target"] == 1)).to_numpy() for rows in tests])
    second = second_attribute(catalogue, first["name"].to_numpy(), attribute)
    return intersections(first["target"], correct, first["protected"], second, draws)


def _sums_of_random(values: np.ndarray, size: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    """(draws,) sums of ``size`` of the values, drawn without putting back.

    Values that are equal are interchangeable (as many models were right), so how often each occurs is drawn.
    """
    different, times = np.unique(values, return_counts=True)
    return rng.multivariate_hypergeometric(times, int(size), size=draws, method="marginals") @ different


def _accuracies(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return np.divide(
        100.0 * sums, counts, out=np.full(sums.shape, np.nan), where=np.broadcast_to(counts > 0, sums.shape)
    )


def _gap(cells: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Largest difference between the two halves of a group, of groups in which both are counted; (..., 8) -> (...)."""
    whole = counted.reshape(4, 2).all(1)
    return np.abs(cells[..., 1::2] - cells[..., ::2])[..., whole].max(-1)


def _table(cells: np.ndarray, counts: np.ndarray, counted: np.ndarray) -> pd.DataFrame:
    low, high = wilson(cells, counts)
    table = pd.DataFrame(CELLS, columns=["target", "protected", "second"])
    return table.assign(faces=counts, accuracy=cells, low=low, high=high, counted=counted)


def _share(at_least: np.ndarray) -> float:
    return float((1 + at_least.sum()) / (1 + len(at_least)))
