"""The paper's numbers beside ours, for reading: what the reproduction chapter and ``aimfair grid report`` show."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from aimfair.paper.comparisons import INCONSISTENT, METRICS, NOISE, NOTHING, OPPOSITE, SHORT, WORDS, ZERO, judge_claims
from aimfair.paper.reading import Reading, form_of
from aimfair.stats import interval
from aimfair.study.tables import HEADINGS, within

MARKS = {"holds": "✓", "contradicted": "✗", ZERO: "○", NOISE: "~", INCONSISTENT: "†", OPPOSITE: "‡"}
"""Behind a difference: what the verdict on it is, or why there is none."""

VERDICT_MARKS = {"holds": "✓", "contradicted": "✗", "undecided": "○"}
"""Before the verdict on a claim."""


def numbers(readings: Sequence[Reading], table: int) -> pd.DataFrame:
    """A table's values, as printed and as ours with their 95 % interval over seeds, row by row; none of them is judged.

    Columns: study, task, row, seeds, and for each metric "paper" and "here"; a row that has no run says so.
    """
    found = []
    name = f"Table {table}"
    for reading in readings:
        for row, printed in (line for block in reading.blocks for line in block.items() if line[1]["table"] == table):
            values = {metric: reading.values(name, printed["where"], row, metric) for metric in METRICS}
            line = {"study": reading.name, "task": printed["task"], "row": row, "seeds": len(values["acc"])}
            for metric, ours in values.items():
                heading = HEADINGS[form_of(name, metric)]
                line[f"{heading}, paper"] = f"{printed[metric]:.1f}"
                line[f"{heading}, here"] = within(ours.mean(), *interval(ours)) if len(ours) else "not run"
            found.append(line)
    return pd.DataFrame(found)


def differences(comparisons: pd.DataFrame) -> pd.DataFrame:
    """Comparisons for reading, a line per pair of rows: the paper's difference, an arrow, ours with its interval, a mark.

    Columns: study, task, difference, and each metric in capitals; the marks are :data:`MARKS`. Pairs without runs are left
    out here: :func:`count` counts them.
    """
    comparisons = comparisons.dropna(subset="ours")
    lines: dict[tuple[str, ...], dict[str, str]] = {}
    for c in comparisons.itertuples():
        key = (c.study, c.task, f"{c.row} − {c.against}")
        lines.setdefault(key, dict.fromkeys(comparisons["metric"].unique(), ""))[c.metric] = _difference(c)
    return _lines(lines, ["study", "task", "difference"])


def orders(frame: pd.DataFrame) -> pd.DataFrame:
    """Rank correlations for reading: a line per table, task and study that has runs, a column per metric."""
    lines: dict[tuple, dict[str, str]] = {}
    for o in frame.dropna(subset="rho").itertuples():
        key = (o.table, o.task, o.study, f"{o.rows} of {o.of}", o.seeds)
        lines.setdefault(key, dict.fromkeys(METRICS, ""))[o.metric] = within(o.rho, o.low, o.high, "+.2f")
    return _lines(lines, ["table", "task", "study", "rows", "seeds"])


def count(comparisons: pd.DataFrame) -> str:
    """One sentence: how many comparisons stand, are contradicted, and cannot be judged, these by reason."""
    counts = _kinds(comparisons).value_counts() if len(comparisons) else {}
    parts = [f"{counts[kind]} {short}" for kind, short in SHORT.items() if kind in counts]
    return f"{len(comparisons)} comparisons: {', '.join(parts)}." if parts else "No comparison of this kind."


def tally(comparisons: pd.DataFrame, by: Sequence[str] = ("table", "study")) -> pd.DataFrame:
    """How many comparisons stand, are contradicted and cannot be judged, these by reason; in the order of the frame."""
    counts = pd.crosstab([comparisons[name] for name in by], _kinds(comparisons))
    order = list(dict.fromkeys(comparisons[list(by)].itertuples(index=False, name=None)))
    return counts.loc[order, [kind for kind in SHORT if kind in counts]].rename(columns=SHORT).rename_axis(columns=None)


def claims(readings: Sequence[Reading], link: str = "") -> pd.DataFrame:
    """The paper's claims with their verdicts, a column per study: :func:`aimfair.paper.comparisons.judge_claims` in words.

    link  of the section about a table or figure, with {} for its name in small letters ("table-3"); empty: no link
    """
    table = judge_claims(readings)
    shown = table[["claim", "paper"]].copy()
    if link:
        shown["paper"] = [
            " and ".join(f'<a href="{link.format(name.lower().replace(" ", "-"))}">{name}</a>' for name in names)
            for names in table["paper"].str.split(" and ")
        ]
    form = "<strong>{} {}</strong> ({})" if link else "{} {} ({})"
    for study in (reading.name for reading in readings):
        shown[study] = [
            "–" if why == NOTHING else form.format(VERDICT_MARKS[verdict], WORDS[verdict], why)
            for verdict, why in zip(table[study], table[f"{study} why"], strict=True)
        ]
    return shown


def without_runs(readings: Sequence[Reading]) -> pd.DataFrame:
    """Printed rows for which a study has no run at all: a line per study and table, those rows in one cell."""
    lines: dict[tuple[str, str], dict[str, None]] = {}
    for reading in readings:
        for title, printed in (line for block in reading.blocks for line in block.items()):
            table = f"Table {printed['table']}"
            if reading.values(table, printed["where"], title, "acc").empty:
                lines.setdefault((reading.name, table), {})[f"{title} ({printed['task']})"] = None
    found = [(study, table, "; ".join(names)) for (study, table), names in lines.items()]
    return pd.DataFrame(found, columns=["study", "table", "rows without any run"])


def html(frame: pd.DataFrame) -> str:
    """A table in words for a notebook, without its index, a line per row: long tables would not fit in one otherwise."""
    return re.sub(r"\n\s*(?=</?t[dhr])(?!<tr)", "", frame.to_html(index=False, border=0, escape=False, classes="words"))


def _lines(lines: dict[tuple[Any, ...], dict[str, str]], names: list[str]) -> pd.DataFrame:
    left = pd.DataFrame(list(lines), columns=names)
    return pd.concat([left, pd.DataFrame(list(lines.values())).rename(columns=str.upper)], axis=1)


def _kinds(comparisons: pd.DataFrame) -> pd.Series:
    return comparisons["verdict"].where(comparisons["verdict"] != "undecided", comparisons["why"])


def _difference(c: Any) -> str:
    theirs = "" if np.isnan(c.paper) else f"{c.paper:+.1f} "
    return (
        f"{theirs}→ {within(c.ours, c.low, c.high, '+.1f')} {MARKS[c.why if c.verdict == 'undecided' else c.verdict]}"
    )
