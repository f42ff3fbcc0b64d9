"""Who wins: one rule for every comparison of two methods, seed by seed.

A method wins on a metric if the 95 % interval of its paired difference to the reference lies wholly on the better side of
zero, loses if it lies wholly on the worse side, and otherwise nothing is decided. It is the rule of
:mod:`aimfair.study.claims`, for many comparisons at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from aimfair.environment import AimfairError
from aimfair.stats import holm, paired_difference
from aimfair.study.claims import decided
from aimfair.study.tables import HEADINGS

LOWER_IS_BETTER = frozenset({"eo_max", "eo_mean", "std"})
METRICS = ("acc", "wst", "eo_max")
WORDS = {"holds": "wins", "contradicted": "loses", "undecided": "undecided"}


def verdict(a: ArrayLike, b: ArrayLike, lower_is_better: bool = False) -> str:
    """ "wins", "loses" or "undecided": what the paired differences a - b over seeds say of a.

    A single seed decides nothing: it has no interval. Raises AimfairError for unequal lengths and values that are not finite.
    """
    difference = paired_difference(a, b)
    return _word(difference.low, difference.high, lower_is_better)


def compare(frame: pd.DataFrame, reference: str, metrics: Sequence[str] = METRICS, by: str = "method") -> pd.DataFrame:
    """Every method of ``frame`` against ``reference``: a row per method and metric.

    frame  one row per (``by``, seed) with the columns ``metrics``; each pair is compared on the seeds that both have
    Columns: ``by``, metric, difference, low, high (points), p (exact sign-flip), "p Holm" (adjusted over the methods of
    a metric), seeds, verdict. Raises AimfairError for a reference that is not there, a repeated seed, or a method that
    shares no seed with the reference.
    """
    if reference not in set(frame[by]):
        raise AimfairError(f"nothing to compare with: {reference!r} has no runs")
    if frame.duplicated([by, "seed"]).any():
        raise AimfairError(f"a comparison needs one run per {by} and seed: choose among them first")
    rows = []
    for metric in metrics:
        wide = frame.pivot(index="seed", columns=by, values=metric)
        for name in (n for n in frame[by].unique() if n != reference):
            both = wide[[name, reference]].dropna()
            if both.empty:
                raise AimfairError(f"{name} and {reference} share no seed: their differences would not be paired")
            d = paired_difference(both[name], both[reference])
            word = _word(d.low, d.high, metric in LOWER_IS_BETTER)
            rows.append((name, metric, d.mean, d.low, d.high, d.p, d.n, word))
    columns = [by, "metric", "difference", "low", "high", "p", "seeds", "verdict"]
    table = pd.DataFrame(rows, columns=columns)
    table["p Holm"] = table.groupby("metric", sort=False)["p"].transform(lambda p: holm(p))
    return table


def show(compared: pd.DataFrame, by: str = "method") -> pd.DataFrame:
    """:func:`compare` for reading: a row per method, a cell per metric such as ``wins +1.9 [+0.6, +3.3]``."""
    metrics = list(compared["metric"].unique())
    said = [
        f"{r.verdict} {r.difference:+.1f}" + (f" [{r.low:+.1f},\u00a0{r.high:+.1f}]" if np.isfinite(r.low) else "")
        for r in compared.itertuples()
    ]
    wide = compared.assign(said=said).pivot(index=by, columns="metric", values="said")
    wide = wide.loc[list(compared[by].unique()), metrics].rename(columns=HEADINGS)
    seeds = compared.groupby(by, sort=False)["seeds"].max()
    return wide.assign(seeds=seeds).rename_axis(None).rename_axis(None, axis=1)


def recommended(compared: pd.DataFrame) -> bool:
    """Whether one method, compared with the reference on several metrics, should be used in its place.

    It must win on one of them at least and lose on none. ``compared``: the rows of that method from :func:`compare`.
    """
    words = list(compared["verdict"])
    return "wins" in words and "loses" not in words


def _word(low: float, high: float, lower_is_better: bool) -> str:
    if lower_is_better:
        low, high = -high, -low
    return WORDS[decided(low, high)]
