"""The paper's numbers beside ours, in words: what the reproduction chapter and ``aimfair grid report`` show."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from aimfair.paper import claims as paper_claims
from aimfair.paper.comparisons import METRICS
from aimfair.paper.reading import Reading
from aimfair.paper.rule import INCONSISTENT, NOISE, NOTHING, OPPOSITE, SHORT, WORDS, ZERO
from aimfair.stats import interval
from aimfair.study.tables import HEADINGS

MARKS = {
    "stands": "✓", "contradicted": "✗", ZERO: "○", NOISE: "~", INCONSISTENT: "†", OPPOSITE: "‡",
}  # fmt: skip
"""Behind a difference: what the verdict on it is, or why there is none."""

VERDICTS = dict(zip(WORDS, "✓✗○", strict=True))
"""Before the verdict on a claim."""


def numbers(readings: Sequence[Reading], table: int) -> pd.DataFrame:
    """A table's values, as printed and as ours with their 95 % interval over seeds, row by row; none of them is judged.

    Columns: study, task, row, seeds, and for each metric "paper" and "here"; a row that has no run says so.
    """
    found = []
    for reading in readings:
        for block in reading.blocks:
            for row, printed in block.items():
                if printed["table"] == table:
                    forms = ("acc", "wst", "eo_mean" if table == 8 else "eo_max")
                    values = [reading.values(f"Table {table}", printed["where"], row, form) for form in forms]
                    line = {"study": reading.name, "task": printed["task"], "row": row, "seeds": len(values[0])}
                    for metric, form, ours in zip(METRICS, forms, values, strict=True):
                        line[f"{HEADINGS[form]}, paper"] = f"{printed[metric]:.1f}"
                        line[f"{HEADINGS[form]}, here"] = within(ours)
                    found.append(line)
    return pd.DataFrame(found)


def differences(comparisons: pd.DataFrame) -> pd.DataFrame:
    """Comparisons for reading, a line per pair of rows: the paper's difference, an arrow, ours with its interval, a mark.

    Columns: study, task, difference, ACC, WST, EO; the marks are :data:`MARKS`. Pairs without runs are left out here:
    :func:`counted` counts them.
    """
    comparisons = comparisons.dropna(subset="ours")
    lines: dict[tuple[str, ...], dict[str, str]] = {}
    for c in comparisons.itertuples():
        key = (c.study, c.task, f"{c.row} − {c.against}")
        lines.setdefault(key, dict.fromkeys(comparisons["metric"].unique(), ""))[c.metric] = _difference(c)
    left = pd.DataFrame(list(lines), columns=["study", "task", "difference"])
    return pd.concat([left, pd.DataFrame(list(lines.values())).rename(columns=str.upper)], axis=1)


def counted(comparisons: pd.DataFrame) -> str:
    """One sentence: how many comparisons stand, are contradicted, and cannot be judged, these by reason."""
    said = comparisons["verdict"].where(comparisons["verdict"] != "cannot be judged", comparisons["why"])
    parts = [f"{(said == word).sum()} {short}" for word, short in SHORT.items() if (said == word).any()]
    return f"{len(comparisons)} comparisons: {', '.join(parts)}." if parts else "No comparison of this kind."


def claims(readings: Sequence[Reading], link: str = "") -> pd.DataFrame:
    """The paper's claims with their verdicts, a column per study: the summary of :mod:`aimfair.paper.claims` in words.

    link  of the section about a table or figure, with {} for its name in small letters ("table-3"); empty: no link
    """
    table = paper_claims.summary(readings)
    shown = table[["claim", "paper"]].copy()
    if link:
        shown["paper"] = [
            " and ".join(f'<a href="{link.format(name.lower().replace(" ", "-"))}">{name}</a>' for name in names)
            for names in table["paper"].str.split(" and ")
        ]
    for reading in readings:
        marked = table[reading.name].map(lambda word: f"{VERDICTS[word]} {word}")
        word, why = ("<strong>{}</strong>" if link else "{}").format, table[f"{reading.name} why"]
        shown[reading.name] = np.where(why == NOTHING, "–", marked.map(word) + " (" + why + ")")
    return shown


def without_runs(readings: Sequence[Reading]) -> pd.DataFrame:
    """Printed rows for which a study has no run at all: a line per study and table, those rows in one cell."""
    lines: dict[tuple[str, str], dict[str, None]] = {}
    for reading in readings:
        for block in reading.blocks:
            for title, printed in block.items():
                table = f"Table {printed['table']}"
                if not len(reading.values(table, printed["where"], title, "acc")):
                    lines.setdefault((reading.name, table), {})[f"{title} ({printed['task']})"] = None
    found = [(study, table, "; ".join(names)) for (study, table), names in lines.items()]
    return pd.DataFrame(found, columns=["study", "table", "rows without any run"])


def orders(frame: pd.DataFrame) -> pd.DataFrame:
    """Rank correlations for reading: a line per table, task and study that has runs, a column per metric."""
    lines: dict[tuple, dict[str, str]] = {}
    for o in frame.dropna(subset="rho").itertuples():
        key = (o.table, o.task, o.study, f"{o.rows} of {o.of}", o.seeds)
        lines.setdefault(key, {})[o.metric.upper()] = f"{o.rho:+.2f} [{o.low:+.2f},\u00a0{o.high:+.2f}]"
    left = pd.DataFrame(list(lines), columns=["table", "task", "study", "rows", "seeds"])
    return pd.concat([left, pd.DataFrame(list(lines.values()), columns=[m.upper() for m in METRICS])], axis=1)


def html(frame: pd.DataFrame) -> str:
    """A table in words for a notebook, without its index, a line per row: long tables would not fit in one otherwise."""
    return re.sub(r"\n\s*(?=</?t[dhr])(?!<tr)", "", frame.to_html(index=False, border=0, escape=False, classes="words"))


def within(values: pd.Series) -> str:
    """``84.2 [83.1, 85.3]``: mean and interval over seeds; the mean alone of a single seed, "not run" of none."""
    if not len(values):
        return "not run"
    low, high = interval(values)
    return f"{values.mean():.1f}" + (f" [{low:.1f},\u00a0{high:.1f}]" if np.isfinite(low) else "")


def _difference(c: Any) -> str:
    theirs = "" if np.isnan(c.paper) else f"{c.paper:+.1f} "
    mark = MARKS[c.verdict if c.verdict != "cannot be judged" else c.why]
    return f"{theirs}→ {c.ours:+.1f} [{c.low:+.1f},\u00a0{c.high:+.1f}] {mark}"
