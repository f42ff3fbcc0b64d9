"""The reproduction chapter: the paper's numbers beside ours, for reading. Verdicts are those of ``aimfair.paper.comparisons``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from aimfair.metrics import CELLS
from aimfair.paper import comparisons
from aimfair.paper.comparisons import INCONSISTENT, NOISE, OPPOSITE, ZERO
from aimfair.paper.reading import Reading, form_of
from aimfair.stats import interval
from aimfair.study import profiles
from aimfair.study.profiles import Profile
from aimfair.study.tables import HEADINGS, within

MARKS = {
    "holds": "✓",
    "contradicted": "✗",
    ZERO: "○",
    NOISE: "~",
    INCONSISTENT: "†",
    OPPOSITE: "‡",
}
"""Behind a difference: what the verdict on it is, or why there is none."""


def changes_of(p: Profile, profile: str) -> dict[str, Any]:
    """The fields in which ``p`` differs from the file of ``profile``: what a notebook was given beside the name."""
    file = profiles.load(profile)
    return {
        name: getattr(p, name)
        for name in profiles.FIELDS
        if getattr(p, name) != getattr(file, name)
    }


def numbers(readings: Sequence[Reading], table: int) -> pd.DataFrame:
    """A table's values, as printed and as ours with their 95 % interval over seeds, row by row; none of them is judged.

    Columns: study, task, row, seeds, and for each metric "paper" and "here"; a row that has no run says so.
    """
    found = []
    name = f"Table {table}"
    for reading in readings:
        for row, printed in (
            line
            for block in reading.blocks
            for line in block.items()
            if line[1]["table"] == table
        ):
            values = {
                metric: reading.values(name, printed["where"], row, metric)
                for metric in comparisons.METRICS
            }
            line = {
                "study": reading.name,
                "task": printed["task"],
                "row": row,
                "seeds": len(values["acc"]),
            }
            for metric, ours in values.items():
                heading = HEADINGS[form_of(name, metric)]
                line[f"{heading}, paper"] = f"{printed[metric]:.1f}"
                line[f"{heading}, here"] = (
                    within(ours.mean(), *interval(ours)) if len(ours) else "not run"
                )
            found.append(line)
    return pd.DataFrame(found)


def differences(frame: pd.DataFrame) -> pd.DataFrame:
    """Comparisons for reading, a line per pair of rows: the paper's difference, an arrow, ours with its interval, a mark.

    Columns: study, task, difference, and each metric in capitals; the marks are :data:`MARKS`. Pairs without runs are left
    out here: :func:`count` counts them.
    """
    frame = frame.dropna(subset="ours")
    lines: dict[tuple[str, ...], dict[str, str]] = {}
    for c in frame.itertuples():
        key = (c.study, c.task, f"{c.row} − {c.against}")
        lines.setdefault(key, dict.fromkeys(frame["metric"].unique(), ""))[c.metric] = (
            _difference(c)
        )
    return _lines(lines, ["study", "task", "difference"])


def count(frame: pd.DataFrame) -> str:
    """One sentence: how many comparisons stand, are contradicted, and cannot be judged, these by reason."""
    counts = _kinds(frame).value_counts() if len(frame) else {}
    parts = [
        f"{counts[kind]} {short}" for kind, short in comparisons.SHORT.items() if kind in counts
    ]
    return (
        f"{len(frame)} comparisons: {', '.join(parts)}."
        if parts
        else "No comparison of this kind."
    )


def tally(frame: pd.DataFrame, by: Sequence[str] = ("table", "study")) -> pd.DataFrame:
    """How many comparisons stand, are contradicted and cannot be judged, these by reason; in the order of the frame."""
    counts = pd.crosstab([frame[name] for name in by], _kinds(frame))
    order = list(dict.fromkeys(frame[list(by)].itertuples(index=False, name=None)))
    return (
        counts.loc[order, [kind for kind in comparisons.SHORT if kind in counts]]
        .rename(columns=comparisons.SHORT)
        .rename_axis(columns=None)
    )


def of_mean_groups(reading: Reading, table: str, where: str, row: str, against: str) -> float:
    """Our difference of worst groups in the paper's order: the worst of the cells' means over seeds, not the mean of each
    seed's worst cell. Points; NaN where the rows share no seed."""
    cells = [
        pd.DataFrame({c: reading.values(table, where, title, c) for c in CELLS})
        for title in (row, against)
    ]
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
        first, table = next(iter(block.values())), comparisons.table_of(block)
        for metric in comparisons.METRICS:
            columns = {
                title: reading.values(table, first["where"], title, metric) for title in block
            }
            wide = pd.DataFrame(
                {
                    t: column
                    for t, column in columns.items()
                    if len(column) >= comparisons.FEWEST
                }
            ).dropna()
            line = {"study": reading.name, "table": table, "task": first["task"]}
            line |= {
                "metric": metric,
                "rho": np.nan,
                "low": np.nan,
                "high": np.nan,
                "seeds": len(wide),
            }
            if wide.shape[1] >= 4 and len(wide) >= comparisons.FEWEST:
                theirs = [block[title][metric] for title in wide]
                each = [
                    float(spearmanr(theirs, values).statistic) for values in wide.to_numpy()
                ]
                low, high = np.clip(interval(each), -1, 1)
                line |= {"rho": float(np.mean(each)), "low": float(low), "high": float(high)}
            found.append({**line, "rows": wide.shape[1], "of": len(block)})
    return pd.DataFrame(found)


def show_orders(frame: pd.DataFrame) -> pd.DataFrame:
    """Rank correlations (:func:`orders`) for reading: a line per table, task and study that has runs, a column per metric."""
    lines: dict[tuple, dict[str, str]] = {}
    for o in frame.dropna(subset="rho").itertuples():
        key = (o.table, o.task, o.study, f"{o.rows} of {o.of}", o.seeds)
        lines.setdefault(key, dict.fromkeys(comparisons.METRICS, ""))[o.metric] = within(
            o.rho, o.low, o.high, "+.2f"
        )
    return _lines(lines, ["table", "task", "study", "rows", "seeds"])


def without_runs(readings: Sequence[Reading]) -> pd.DataFrame:
    """Printed rows for which a study has no run at all: a line per study and table, those rows in one cell."""
    lines: dict[tuple[str, str], dict[str, None]] = {}
    for reading in readings:
        for title, printed in (line for block in reading.blocks for line in block.items()):
            table = f"Table {printed['table']}"
            if reading.values(table, printed["where"], title, "acc").empty:
                lines.setdefault((reading.name, table), {})[f"{title} ({printed['task']})"] = (
                    None
                )
    found = [(study, table, "; ".join(names)) for (study, table), names in lines.items()]
    return pd.DataFrame(found, columns=["study", "table", "rows without any run"])


def html(frame: pd.DataFrame) -> str:
    """A table in words for a notebook, without its index, a line per row: long tables would not fit in one otherwise."""
    return re.sub(
        r"\n\s*(?=</?t[dhr])(?!<tr)",
        "",
        frame.to_html(index=False, border=0, escape=False, classes="words"),
    )


def _lines(lines: dict[tuple[Any, ...], dict[str, str]], names: list[str]) -> pd.DataFrame:
    left = pd.DataFrame(list(lines), columns=names)
    return pd.concat(
        [left, pd.DataFrame(list(lines.values())).rename(columns=str.upper)], axis=1
    )


def _kinds(frame: pd.DataFrame) -> pd.Series:
    return frame["verdict"].where(frame["verdict"] != "undecided", frame["why"])


def _difference(c: Any) -> str:
    theirs = "" if np.isnan(c.paper) else f"{c.paper:+.1f} "
    return f"{theirs}→ {within(c.ours, c.low, c.high, '+.1f')} {MARKS[c.why if c.verdict == 'undecided' else c.verdict]}"
