"""Tables of runs: one tidy row per run, then means with intervals and paired differences to a reference."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from aimfair import methods, metrics
from aimfair.environment import AimfairError
from aimfair.progress import in_words
from aimfair.stats import holm, interval, paired_difference
from aimfair.study.runs import Run

SEARCH_SEEDS = 3
"""On how many seeds the values of a hyper-parameter are compared, see :mod:`aimfair.study.search`."""

METRICS = ("acc", "wst", "eo_max", "eo_mean", "std")
HEADINGS = {
    "acc": "ACC",
    "wst": "WST",
    "eo_max": "EO (max)",
    "eo_mean": "EO (mean)",
    "std": "STD",
    "balanced": "balanced",
}


def without_style() -> None:
    """In a notebook, show data frames without the style sheet that pandas puts before each: a few hundred bytes of what the book
    and JupyterLab say already."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is not None:
        shell.display_formatter.formatters["text/html"].for_type(pd.DataFrame, _html)


def _html(frame: pd.DataFrame) -> str | None:
    html = frame._repr_html_()  # None where the reader's options say so
    return html and re.sub(r"<style scoped>.*?</style>\n?", "", html, flags=re.DOTALL)


def selection(run: Run) -> float:
    """What the configurations of a method are chosen by, per cent, on real validation faces: overall accuracy, no group
    label read; for oracles that are told those labels the accuracy of the worst group."""
    if "validation protected" in methods.get(run.config["method"]).needs:
        return run.report("validation").wst
    return run.accuracy("validation")


def frame(runs: Iterable[Run], split: str = "test") -> pd.DataFrame:
    """A row per run: method (its title), seed, hyper-parameters, what it is chosen by (:func:`selection`), validation
    accuracy, the fairness report of ``split``, and what the method noted of the run (see :func:`notes`)."""
    rows = [
        {
            "method": methods.get(run.config["method"]).title,
            "seed": run.seed,
            **run.config["hyper"],
            "selection": selection(run),
            "validation_accuracy": run.accuracy("validation"),
            **run.report(split).as_dict(),
            "note": run.scores.get("note", ""),
        }
        for run in runs
    ]
    return pd.DataFrame(rows)


def notes(frame: pd.DataFrame) -> list[str]:
    """What methods noted where something was not as they need it: a sentence for each method and note of ``frame``.

    Without its note such a row would be read as if the method had had its way.
    """
    noted = frame[frame["note"] != ""] if "note" in frame else frame.iloc[:0]
    if noted.empty:
        return []
    counted = noted.groupby(["method", "note"], sort=False).size()
    return [f"{method}, {in_words(count, 'run')}: {note}." for (method, note), count in counted.items()]


def choose(frame: pd.DataFrame, among: str = "lr", by: Sequence[str] = ("method",)) -> pd.DataFrame:
    """Of each group of rows, all seeds together, those with the value of ``among`` that does best; the smaller wins a tie.

    The selection rule of the book: the mean of :func:`selection` over the first :data:`SEARCH_SEEDS` seeds that have all
    values. That is accuracy on real validation images, no group label read (oracles: their worst group there).

    frame  columns ``seed``, ``selection``, ``among`` and ``by``; a column ``searched`` says how many values there are to
           choose among, else they are those in the group
    A group in which no seed has all values is left out: the choice would be among fewer than the others'. Raises
    AimfairError for two rows with the same seed and value.
    """
    kept = [_best(rows, among) for _, rows in _groups(frame, by)]
    return pd.concat(kept).sort_index() if kept else frame


def complete(frame: pd.DataFrame, among: str = "lr", by: Sequence[str] = ("method",)) -> pd.DataFrame:
    """Of each group the rows of the seeds that have all its values of ``among``: paths whose points have equal seeds.

    frame  columns ``seed``, ``among`` and ``by``; several rows of one seed and value (draws) may be in it
    """
    if frame.empty:
        return frame
    in_all, in_one = (
        frame.groupby(names, dropna=False)[among].transform("nunique", dropna=False) for names in ([*by], [*by, "seed"])
    )
    return frame[in_one == in_all]


def _groups(frame: pd.DataFrame, by: Sequence[str]) -> Iterable[tuple[object, pd.DataFrame]]:
    return frame.groupby(list(by), sort=False, dropna=False) if len(frame) else ()


def _best(rows: pd.DataFrame, among: str) -> pd.DataFrame:
    places = pd.factorize(rows[among], sort=True, use_na_sentinel=False)[0]  # a method with nothing to search has one
    placed = pd.DataFrame({"seed": rows["seed"], "place": places, "selection": rows["selection"]})
    if placed.duplicated(["seed", "place"]).any():
        raise AimfairError(f"several runs have the same seed and {among}: choose by what tells them apart, too")
    wide = placed.pivot(index="seed", columns="place", values="selection")
    first = wide.dropna().head(SEARCH_SEEDS)
    if first.empty or wide.shape[1] < (rows["searched"].max() if "searched" in rows else 1):
        return rows.iloc[:0]
    best = first.mean().round(9).idxmax()  # the first of equals, whatever the order of the sum did to the last digit
    return rows[places == best]


def summary(
    frame: pd.DataFrame, reference: str | None = None, metric: Sequence[str] = METRICS, by: str = "method"
) -> pd.DataFrame:
    """Means over seeds with 95 % intervals and, against ``reference``, paired differences with Holm-adjusted p-values.

    frame  one row per (``by``, seed); every method must have the reference's seeds for its difference
    Columns are (metric, "mean" | "low" | "high" | "difference" | "difference low" | "difference high" | "p"), and
    ("wst of means", "mean"), the paper's order of averaging. Raises AimfairError for a repeated or a missing seed.
    """
    if frame.duplicated([by, "seed"]).any():
        raise AimfairError(f"a table needs one run per {by} and seed: choose among them first")
    table: dict[str, dict[tuple[str, str], float]] = {}
    for name, rows in frame.groupby(by, sort=False):
        cells = rows[list(metrics.CELLS)].to_numpy().mean(0)
        table[name] = {("n", "seeds"): len(rows), ("wst of means", "mean"): float(metrics.wst(cells))}
        for column in metric:
            low, high = interval(rows[column])
            table[name] |= {(column, "mean"): rows[column].mean(), (column, "low"): low, (column, "high"): high}
    if reference is not None:
        for column in metric:
            _compare(table, frame, reference, column, by)
    result = pd.DataFrame.from_dict(table, orient="index")
    result.columns = pd.MultiIndex.from_tuples(result.columns)
    return result.rename_axis(by)


def _compare(
    table: dict[str, dict[tuple[str, str], float]], frame: pd.DataFrame, reference: str, column: str, by: str
) -> None:
    values = frame.pivot(index="seed", columns=by, values=column)
    others = [name for name in table if name != reference]
    differences = {}
    for name in others:
        both = values[[name, reference]]
        if both.isna().any(axis=None):
            raise AimfairError(f"{name} and {reference} do not have the same seeds: differences would not be paired")
        differences[name] = paired_difference(both[name], both[reference])
    adjusted = holm([d.p for d in differences.values()])
    for name, p in zip(others, adjusted, strict=True):
        d = differences[name]
        table[name] |= {
            (column, "difference"): d.mean,
            (column, "difference low"): d.low,
            (column, "difference high"): d.high,
            (column, "p"): p,
        }


def show(summary: pd.DataFrame, metric: Sequence[str] = METRICS, differences: bool = False) -> pd.DataFrame:
    """The summary for reading: ``84.2 [83.1, 85.3]``, and with ``differences`` ``+1.4 [0.9, 1.8], p .004`` instead.

    The blanks within an interval are ones at which no line breaks.
    """
    columns = {}
    for name in metric:
        cell = summary[name]
        if differences:
            cell = cell.dropna()
            columns[HEADINGS[name]] = [
                f"{r['difference']:+.1f} [{r['difference low']:+.1f},\u00a0{r['difference high']:+.1f}], p\u00a0{_p(r['p'])}"
                for _, r in cell.iterrows()
            ]
        else:
            columns[HEADINGS[name]] = [
                f"{r['mean']:.1f}" + (f" [{r['low']:.1f},\u00a0{r['high']:.1f}]" if np.isfinite(r["low"]) else "")
                for _, r in cell.iterrows()
            ]
    rows = summary.dropna().index if differences else summary.index
    return pd.DataFrame(columns, index=rows.rename(None))


def export(
    summary: pd.DataFrame,
    path: str | Path,
    metric: Sequence[str] = METRICS,
    differences: bool = False,
) -> Path:
    """Write a table as the suffix of ``path`` says: .csv (numbers), .tex (booktabs) or .md; returns the path.

    See :func:`text`. Raises AimfairError for another suffix or a file that cannot be written.
    """
    path = Path(path)
    try:
        path.write_text(text(summary, path.suffix, metric, differences))
    except OSError as error:
        raise AimfairError(f"cannot write {path}: {error.strerror}") from error
    return path


def text(
    summary: pd.DataFrame,
    suffix: str = ".md",
    metric: Sequence[str] = METRICS,
    differences: bool = False,
) -> str:
    """A table in one of the formats of :data:`WRITERS`: a :func:`summary`, or any frame as it is, without its index.

    Columns of a summary are those of the index; where :func:`aimfair.study.grid.summary` made it, what the method is told and
    how many configurations it chooses among; how many seeds; each metric with its interval, with ``differences`` also its
    paired difference to the reference; and beside WST the worst group of the mean accuracies, the paper's order of averaging. A row without runs says "missing". Raises AimfairError for another format and
    for differences that the summary does not have.
    """
    if suffix not in WRITERS:
        raise AimfairError(f"a table cannot be written as {suffix!r}: the suffix must be one of {', '.join(WRITERS)}")
    if not isinstance(summary.columns, pd.MultiIndex):
        return WRITERS[suffix](summary)
    if differences and "difference" not in summary.columns.get_level_values(1):
        raise AimfairError("this summary was made without a reference, so it has no differences")
    left = summary.index.to_frame(index=False)
    for column in ("told", "configurations"):
        if column in summary:
            left[column] = summary[column, ""].to_numpy()
    left["seeds"] = summary["n", "seeds"].fillna(0).astype(int).to_numpy()
    values = summary.reset_index(drop=True)
    parts = [left, *(_numbers if suffix == ".csv" else _words)(values, metric, differences)]
    if "wst" in metric:
        worst = values["wst of means", "mean"].rename("WST of means")
        as_words = worst.map(lambda value: f"{value:.1f}" if np.isfinite(value) else "missing")
        parts.append(worst if suffix == ".csv" else as_words)
    return WRITERS[suffix](pd.concat(parts, axis=1))


def _numbers(values: pd.DataFrame, metric: Sequence[str], differences: bool) -> list[pd.DataFrame]:
    kinds = ("mean", "low", "high") + (("difference", "difference low", "difference high", "p") if differences else ())
    return [pd.DataFrame({f"{HEADINGS[name]} {kind}": values[name, kind] for name in metric for kind in kinds})]


def _words(values: pd.DataFrame, metric: Sequence[str], differences: bool) -> list[pd.DataFrame]:
    parts = [show(values, metric).replace("nan", "missing")]
    if differences:
        compared = show(values, metric, differences=True).reindex(values.index).fillna("")
        parts.append(compared.rename(columns=lambda name: f"{name}, difference"))
    return parts


def _markdown(table: pd.DataFrame) -> str:
    rows = [list(table.columns), ["---"] * table.shape[1], *table.astype(str).to_numpy().tolist()]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |\n" for row in rows)


def _latex(table: pd.DataFrame) -> str:
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\u00a0": "~"}

    def line(row: Sequence[str]) -> str:
        cells = [re.sub(r"[\\~^\u00a0&%$#_{}]", lambda m: special.get(m[0], f"\\{m[0]}"), cell) for cell in row]
        return " & ".join(cells) + " \\\\\n"

    body = "".join(line(row) for row in table.astype(str).to_numpy().tolist())
    head = line(list(table.columns))
    return f"\\begin{{tabular}}{{{'l' * table.shape[1]}}}\n\\toprule\n{head}\\midrule\n{body}\\bottomrule\n\\end{{tabular}}\n"


WRITERS: dict[str, Callable[[pd.DataFrame], str]] = {
    ".csv": lambda table: table.to_csv(index=False, lineterminator="\n"),
    ".tex": _latex,
    ".md": _markdown,
}
"""Suffix of a file -> what turns a table of words or numbers into its text."""


def _p(value: float) -> str:
    return f"{value:.3f}".removeprefix("0") if value < 1 else "1"
