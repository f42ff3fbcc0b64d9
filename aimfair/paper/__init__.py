"""The numbers that AIM-Fair printed (Zhao et al., CVPR 2025, Tables 1-11), and what follows from them.

They stand beside what we measure, never in its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from aimfair import environment
from aimfair.environment import AimfairError, home
from aimfair.metrics import CELLS, FairnessReport, published_report

TEST_COUNTS: dict[tuple[str, str, str], tuple[int, int, int, int]] = {
    ("CelebA", "Smiling", "Male"): (5354, 4621, 6893, 3094),
    ("CelebA", "Smiling", "Young"): (2358, 7617, 2490, 7497),
    ("CelebA", "Young", "Male"): (1916, 2932, 10331, 4783),
    ("CelebA", "Male", "Young"): (1916, 10331, 2932, 4783),
    ("UTKFace", "Female", "White"): (800, 800, 800, 800),
}
"""Faces per group of each test set: CelebA's official test split of 19,962, and 3,200 balanced ones of UTKFace."""

ROUNDING = 0.02
"""Two printed accuracies, each rounded to .01, put their gap off by up to .01; the printed EO adds .005."""


def results(path: Path | None = None) -> pd.DataFrame:
    """All rows of Tables 1-11 in per cent: one per (table, dataset, target, protected, setting, method).

    ``setting`` is "" where a table has none; the cells are NaN where a table prints none.
    """
    path = path or home() / "data" / "paper" / "aimfair_results.csv"
    if not path.is_file():
        raise AimfairError(f"the paper's results are not at {path}: run from a clone of the repository")
    with environment.reading(path):
        return pd.read_csv(path).fillna({"setting": ""})


def row(table: int, method: str, target: str = "Smiling", protected: str = "Male", setting: str = "") -> dict[str, Any]:
    """One printed row as a mapping. Raises AimfairError for one that the paper does not have."""
    frame = results()
    mine = (frame["table"] == table) & (frame["method"] == method) & (frame["setting"] == setting)
    found = frame[mine & (frame["target"] == target) & (frame["protected"] == protected)].to_dict("records")
    if not found:
        raise AimfairError(f"Table {table} has no row {method!r} {setting} for {target} / {protected}")
    return {str(name): value for name, value in found[0].items()}


def counts(dataset: str, target: str, protected: str) -> tuple[int, int, int, int]:
    """Faces per group of the test set of one task."""
    if (dataset, target, protected) not in TEST_COUNTS:
        known = "; ".join(" ".join(task) for task in TEST_COUNTS)
        raise AimfairError(f"no test counts for {dataset} {target} {protected}; there are: {known}")
    return TEST_COUNTS[dataset, target, protected]


@dataclass(frozen=True, eq=False)
class Recomputed:
    """One printed row, computed again from its four cells.

    report   every metric that follows from the cells and the counts
    form     the form of equalised odds that the printed one fits: "max", "mean", or "neither"
    errors   printed minus recomputed ACC, WST and STD, by name; above rounding only where the row is misprinted
    """

    report: FairnessReport
    form: str
    errors: dict[str, float]


def recompute(row: Mapping[str, Any]) -> Recomputed:
    """Compute a row of :func:`results` again from its cells. Raises AimfairError for a row without cells.

    The cells are means over seeds, the printed EO is a mean of each seed's EO. A mean of maxima (or of
    absolute values) is never below the maximum of the means, so the printed EO may exceed the recomputed
    one but not fall short of it. A form fits if it respects that; of two that do, the closer one is named.
    """
    cells = np.array([row[c] for c in CELLS], dtype=np.float64)
    if np.isnan(cells).any():
        raise AimfairError(f"Table {row['table']}, {row['method']}: no group accuracies are printed")
    report = published_report(cells, counts(row["dataset"], row["target"], row["protected"]))
    excess = {"max": row["eo"] - report.eo_max, "mean": row["eo"] - report.eo_mean}
    fitting = [form for form in excess if excess[form] >= -ROUNDING]
    form = min(fitting, key=lambda name: excess[name]) if fitting else "neither"
    errors = {name: float(row[name] - getattr(report, name)) for name in ("acc", "wst", "std")}
    return Recomputed(report, form, errors)


def recomputed(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of ``frame`` that print cells, with what :func:`recompute` finds in new columns.

    ``eo_max`` and ``eo_mean`` of the printed cells, the ``form`` that the printed EO fits, and ``misfit``: the largest
    distance of a printed ACC, WST or STD from the recomputed one.
    """
    rows = frame.dropna(subset=list(CELLS)).copy()
    again = [recompute(row) for _, row in rows.iterrows()]
    rows["eo_max"] = [r.report.eo_max for r in again]
    rows["eo_mean"] = [r.report.eo_mean for r in again]
    rows["form"] = [r.form for r in again]
    rows["misfit"] = [max(abs(error) for error in r.errors.values()) for r in again]
    return rows


def reports(rows: pd.DataFrame) -> dict[str, list[FairnessReport]]:
    """Printed rows that have cells, by method: what the figures take. Rows of one method follow each other."""
    found: dict[str, list[FairnessReport]] = {}
    for _, row in rows.dropna(subset=list(CELLS)).iterrows():
        found.setdefault(row["method"], []).append(recompute(row).report)
    return found
