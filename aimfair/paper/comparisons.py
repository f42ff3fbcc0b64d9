"""The differences that the paper prints, and its orders, beside ours, each with a verdict by :mod:`aimfair.paper.rule`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from aimfair.metrics import CELLS
from aimfair.paper.reading import Block, Reading
from aimfair.paper.rule import (
    BASELINES,
    FEWEST,
    INCONSISTENT,
    NOISE,
    OPPOSITE,
    PROPOSED,
    SHORT,
    Verdict,
    noise,
    verdict,
)
from aimfair.stats import Difference, interval, paired_difference

METRICS = ("acc", "wst", "eo")


STEPS = (5,)
"""Tables whose rows are steps: each is compared with the one before it."""


def pairs(block: Block) -> list[tuple[str, str]]:
    """Titles of the two rows of each comparison that a printed table makes, of one task.

    Every row against the baseline (in a table of steps against the row before it), and the proposed method against every
    row. With several proposed rows the one that the paper settles on counts: the assumed ratio 1:9, as many synthetic faces
    as real ones, the last prompt.
    """
    titles = list(block)
    table = block[titles[0]]["table"]
    if table in STEPS:
        found, proposed = list(zip(titles[1:], titles, strict=False)), titles[-1]
    else:
        baseline = (
            "Full fine-tuning" if table == 6 else next((t for t in titles if block[t]["method"] in BASELINES), "")
        )
        candidates = [title for title in titles if block[title]["method"] in PROPOSED]
        settled = [title for title in candidates if title in ("AIM-Fair, 1:9", "AIM-Fair, as many")]
        found, proposed = (
            [(title, baseline) for title in titles if baseline not in ("", title)],
            (settled or candidates)[0],
        )
    found += [(proposed, title) for title in titles if title != proposed]
    return list(dict.fromkeys(found))


def comparisons(reading: Reading) -> pd.DataFrame:
    """Every comparison of the paper that the study has a place for, with its verdict: see :func:`compared`."""
    return pd.DataFrame(
        [
            compared(reading, block, row, against, metric)
            for block in reading.blocks
            for row, against in pairs(block)
            for metric in METRICS
        ]
    )


def compared(
    reading: Reading, block: Block, row: str, against: str, metric: str, margin: float = 0.0, sign: int = 0
) -> dict[str, Any]:
    """One comparison: ``row`` minus ``against``, the paper's and ours.

    margin  points that are added to both differences: "not more than a point worse" is a margin of 1
    sign    that of the difference which the paper's text claims, 1 or -1; 0: that of the printed one. A claim that its own
            table does not show cannot be judged
    Keys: study, table, task (the paper's), where (our setting), row, against, metric, paper and noise (points), ours, low,
    high (points), p (sign-flip; these four NaN without runs), seeds, verdict, why.
    """
    a, b = block[row], block[against]
    theirs, chance = float(a[metric] - b[metric]), noise(a, b, metric)
    table, where = f"Table {a['table']}", a["where"]
    ours, seeds = difference(reading, table, where, row, against, _form(a["table"], metric), margin)
    judged = verdict(theirs + margin, chance, ours, a["consistent"] and b["consistent"])
    if sign * (theirs + margin) < 0 and judged.why not in (NOISE, INCONSISTENT):
        judged = Verdict("cannot be judged", OPPOSITE)
    at = {"table": table, "task": a["task"], "where": where}
    what = {"row": row, "against": against, "metric": metric, "paper": theirs, "noise": chance}
    return {"study": reading.name, **at, **what, **_told(ours, margin, seeds, judged)}


def signed(reading: Reading, figure: str, row: str, against: str, metric: str, sign: int) -> dict[str, Any]:
    """A comparison of which the paper tells only the sign, such as those of its figures: keys as :func:`compared`."""
    where = f"{reading.profile.target} / {reading.profile.protected}"
    ours, seeds = difference(reading, figure, where, row, against, _form(figure, metric))
    at = {"table": figure, "task": where, "where": where}
    what = {"row": row, "against": against, "metric": metric, "paper": float("nan"), "noise": 0.0}
    return {"study": reading.name, **at, **what, **_told(ours, 0.0, seeds, verdict(sign, 0.0, ours))}


def difference(
    reading: Reading, table: str, where: str, row: str, against: str, metric: str, margin: float = 0.0
) -> tuple[Difference | None, int]:
    """Our paired difference, ``margin`` added, and over how many seeds; None where there are fewer than :data:`FEWEST`."""
    a, b = (reading.values(table, where, title, metric) for title in (row, against))
    seeds = a.index.intersection(b.index)
    if len(seeds) < FEWEST:
        return None, len(seeds)
    return paired_difference(a[seeds] + margin, b[seeds]), len(seeds)


def of_mean_groups(reading: Reading, table: str, where: str, row: str, against: str) -> float:
    """Our difference of worst groups in the paper's order: the worst of the cells' means over seeds, not the mean of each
    seed's worst cell. Points; NaN where the rows share no seed."""
    cells = [pd.DataFrame({c: reading.values(table, where, title, c) for c in CELLS}) for title in (row, against)]
    seeds = cells[0].index.intersection(cells[1].index)
    ours, other = (found.loc[seeds].mean().min() for found in cells)
    return float(ours - other)


def orders(reading: Reading) -> pd.DataFrame:
    """Do the methods come in the paper's order? A row per table, task and metric.

    ``rho``: Spearman's rank correlation of a seed's values with the paper's, mean over seeds with its 95 % interval (within
    -1 and 1), over the rows that have runs (``rows``) of those that the paper prints (``of``); NaN where fewer than four
    rows share three seeds.
    """
    found = []
    for block in reading.blocks:
        first = next(iter(block.values()))
        table, where = f"Table {first['table']}", first["where"]
        for metric in METRICS:
            columns = {t: reading.values(table, where, t, _form(first["table"], metric)) for t in block}
            wide = pd.DataFrame({t: column for t, column in columns.items() if len(column) >= FEWEST}).dropna()
            line = {"study": reading.name, "table": table, "task": first["task"]}
            line |= {"metric": metric, "rho": np.nan, "low": np.nan, "high": np.nan, "seeds": len(wide)}
            if wide.shape[1] >= 4 and len(wide) >= FEWEST:
                theirs = [block[title][metric] for title in wide]
                each = [float(spearmanr(theirs, values).statistic) for values in wide.to_numpy()]
                low, high = np.clip(interval(each), -1, 1)
                line |= {"rho": float(np.mean(each)), "low": float(low), "high": float(high)}
            found.append({**line, "rows": wide.shape[1], "of": len(block)})
    return pd.DataFrame(found)


def tally(frame: pd.DataFrame, by: Sequence[str] = ("table", "study")) -> pd.DataFrame:
    """How many comparisons stand, are contradicted and cannot be judged, these by reason."""
    words = frame["verdict"].where(frame["verdict"] != "cannot be judged", frame["why"])
    counts = pd.crosstab([frame[name] for name in by], words)
    kept = [word for word in SHORT if word in counts]
    order = list(dict.fromkeys(frame[list(by)].itertuples(index=False, name=None)))
    return counts.loc[order, kept].rename(columns=SHORT).rename_axis(columns=None)


def _form(table: Any, metric: str) -> str:
    """The paper's EO is the mean of the two gaps in Table 8, the larger one everywhere else."""
    return metric if metric != "eo" else "eo_mean" if table == 8 else "eo_max"


def _told(ours: Difference | None, margin: float, seeds: int, judged: Verdict) -> dict[str, Any]:
    mean, low, high, p = (np.nan,) * 4 if ours is None else (ours.mean, ours.low, ours.high, ours.p)
    said = {"ours": mean - margin, "low": low - margin, "high": high - margin, "p": p, "seeds": seeds}
    return {**said, "verdict": judged.word, "why": judged.why}
