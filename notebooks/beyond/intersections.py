"""Groups within groups: do the four accuracies hide a difference that one attribute more would show?

The protected attribute is crossed with a second one, which gives eight cells. The largest difference
between many small cells is large by chance alone. So it is compared with faces whose second attribute
was shuffled among the faces of the same target and protected value: the cells keep their sizes, and
the four accuracies do not move.
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
from aimfair.stats import percentile, wilson
from aimfair.study.runs import Run

LEAST = 30
"""A cell with fewer faces is shown with its count, and no gap is taken from it."""


@dataclass(frozen=True, eq=False)
class Intersections:
    """Eight cells, what they hide, and what chance would hide.

    table   a row per cell: target, protected, second, faces, accuracy with its interval (per cent),
            and whether it is counted
    gap     the largest difference, in points, between the two halves of one of the four groups
    worst   accuracy of the worst counted cell in per cent
    null_gap, null_worst  (draws,) the same two numbers with the second attribute shuffled
    """

    table: pd.DataFrame
    gap: float
    worst: float
    null_gap: np.ndarray
    null_worst: np.ndarray

    def as_dict(self) -> dict[str, float]:
        """Gap and worst cell as one flat row, each with the null's mean, its central 95 % and the p-value.

        The p-value is the share of shuffles that are at least as extreme, the observation counted among them.
        """
        row: dict[str, float] = {}
        for name, value, null, side in (
            ("gap", self.gap, self.null_gap, 1),
            ("worst", self.worst, self.null_worst, -1),
        ):
            low, high = percentile(null)
            extreme = int((side * null >= side * value - 1e-9).sum())
            row |= {name: value, f"{name} by chance": float(null.mean())}
            row |= {
                f"{name} low": low,
                f"{name} high": high,
                f"{name} p": (1 + extreme) / (1 + len(null)),
            }
        return row


def intersections(
    target: ArrayLike,
    correct: ArrayLike,
    protected: ArrayLike,
    second: ArrayLike,
    draws: int = 2000,
    seed: int = 0,
) -> Intersections:
    """Accuracy in the eight cells of target x protected x second, and what shuffling makes of their gaps.

    target, protected, second  (N,) of {0, 1}
    correct  (N,) or (S, N): whether face i was classified rightly, by the model of seed s. Several models
             count as their mean, face by face, because the faces that are shuffled are the same for all
    draws    number of shuffles; p-values are multiples of 1 / (draws + 1)
    The intervals of the cells are Wilson's. Raises AimfairError for shapes or values that do not fit, and
    where no group has :data:`LEAST` faces in both halves.
    """
    y, s, z = (np.asarray(values).reshape(-1) for values in (target, protected, second))
    right = np.atleast_2d(np.asarray(correct, dtype=np.float64)).mean(0)
    sizes = (len(y), len(s), len(z), len(right))
    if len({*sizes}) > 1:
        raise AimfairError(f"every face needs three labels and a result: got {sizes}")
    if not all(np.isin(values, (0, 1)).all() for values in (y, s, z)):
        raise AimfairError("target, protected and second attribute must hold 0 and 1 only")
    cell = (4 * y + 2 * s + z).astype(np.int64)
    counts = np.bincount(cell, minlength=8)
    counted = counts >= LEAST
    if not counted.reshape(4, 2).all(1).any():
        raise AimfairError(
            f"no group has {LEAST} faces of either value of the second attribute: counts {counts.tolist()}"
        )
    shuffled, rng = np.empty((draws, 8)), np.random.default_rng(seed)
    for g in range(4):
        member = right[cell // 2 == g]
        # Faces with equal values are interchangeable, so how often each value occurs is drawn.
        values, times = np.unique(member, return_counts=True)
        drawn = rng.multivariate_hypergeometric(
            times, int(counts[2 * g + 1]), size=draws, method="marginals"
        )
        shuffled[:, 2 * g + 1] = drawn @ values
        shuffled[:, 2 * g] = member.sum() - shuffled[:, 2 * g + 1]
    some = np.where(counts > 0, counts, np.nan)
    cells, null = (
        100.0 * np.bincount(cell, weights=right, minlength=8) / some,
        100.0 * shuffled / some,
    )
    low, high = wilson(cells, counts)
    table = pd.DataFrame(
        [*product((0, 1), repeat=3)], columns=["target", "protected", "second"]
    )
    return Intersections(
        table.assign(faces=counts, accuracy=cells, low=low, high=high, counted=counted),
        float(_gap(cells, counted)),
        float(cells[counted].min()),
        _gap(null, counted),
        null[:, counted].min(1),
    )


def _gap(cells: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """Largest difference between the halves of a group in which both are counted; (..., 8) -> (...)."""
    whole = counted.reshape(4, 2).all(1)
    return np.abs(cells[..., 1::2] - cells[..., ::2])[..., whole].max(-1)


def second_attribute(
    catalogue: Catalogue, names: Sequence[str] | np.ndarray, attribute: str
) -> np.ndarray:
    """(N,) int64 of {0, 1}: the attribute of the faces called ``names``, from the data set's catalogue.

    An attribute with many values, such as age in years, is cut above its median over these faces. Raises
    AimfairError for a name or attribute that the catalogue does not have, and for one that is text.
    """
    index = catalogue.positions(names)
    if attribute not in catalogue.attributes:
        catalogue.labels(attribute)  # raises the error that lists the attributes
    values = catalogue.attributes[attribute]
    if values.isin((0, 1)).all():
        return values.to_numpy(np.int64)[index]
    if not pd.api.types.is_numeric_dtype(values):
        raise AimfairError(
            f"{catalogue.name}: {attribute} holds text such as {values.iloc[0]!r}: name a number or a label"
        )
    chosen = values.to_numpy()[index]
    return (chosen > np.median(chosen)).astype(np.int64)


def of_runs(
    runs: Sequence[Run], catalogue: Catalogue, attribute: str, draws: int = 2000
) -> Intersections:
    """:func:`intersections` on the test faces of one method's runs, a run per seed."""
    if not runs:
        raise AimfairError("no run whose groups could be crossed")
    tests = [run.predictions[run.predictions["split"] == "test"] for run in runs]
    first = tests[0]
    if any(
        not np.array_equal(rows["name"].to_numpy(), first["name"].to_numpy()) for rows in tests
    ):
        raise AimfairError(
            "the runs do not predict the same test faces: they are of different studies"
        )
    correct = np.stack([(rows["predicted"] == rows["target"]).to_numpy() for rows in tests])
    second = second_attribute(catalogue, first["name"].to_numpy(), attribute)
    return intersections(first["target"], correct, first["protected"], second, draws)
