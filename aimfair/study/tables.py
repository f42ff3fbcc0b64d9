"""Tables of runs: one row per finished run, the choice among them, means with intervals, and a note of what is missing.

A chapter that shows a table must be readable before all of its runs are there: nothing is trained here, and a table
without a single run is empty.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from aimfair import methods, metrics
from aimfair.environment import AimfairError, aside
from aimfair.progress import in_words
from aimfair.stats import holm, interval, paired_difference
from aimfair.study import profiles
from aimfair.study.profiles import Profile
from aimfair.study.runs import Run
from aimfair.study.search import choose as choose
from aimfair.study.search import complete as complete
from aimfair.study.search import selection as selection

if TYPE_CHECKING:
    from aimfair.study import Study
    from aimfair.study.grid.experiments import Experiment, Row

METRICS = ("acc", "wst", "eo_max", "eo_mean", "std")
HEADINGS = {
    "acc": "ACC",
    "wst": "WST",
    "eo_max": "EO (max)",
    "eo_mean": "EO (mean)",
    "std": "STD",
    "balanced": "balanced",
}


# Rows


def frame(runs: Iterable[Run]) -> pd.DataFrame:
    """A row per run: method (its title), seed, hyper-parameters, what it is chosen by (:func:`selection`), validation
    accuracy, the fairness report of the test set, and what the method noted of the run (see :func:`notes`)."""
    rows = [
        {
            "method": methods.get(run.config["method"]).title,
            "seed": run.seed,
            **run.config["hyper"],
            "selection": selection(run),
            "validation_accuracy": run.accuracy("validation"),
            **run.report("test").as_dict(),
            "note": run.scores.get("note", ""),
        }
        for run in runs
    ]
    return pd.DataFrame(rows)


def find_runs(lab: Study, method: str) -> list[Run]:
    """The published runs of ``method``, whatever their hyper-parameters, then those of this machine that nobody published;
    none is no error."""
    published = lab.all_published(method)
    known = {run.id for run in published}
    return published + [run for run in lab.all_fresh(method) if run.id not in known]


def rows(lab: Study, experiment: Experiment) -> pd.DataFrame:
    """A row per finished run of a table, in its order, as in :func:`frame`, with the title of its row as ``method``.

    lab  the study that ``experiment`` was made for
    Beside them its setting, the ``run`` itself and its ``scores`` (mask, history, seconds), ``place`` among the values
    that the row searches, and ``searched``: how many these are. The learning rate of a method without one is 0.
    """
    known: dict[Any, list[Run]] = {}
    found = []
    for setting, changed in experiment.settings.items():
        for row in experiment.within(setting):
            changes = {**changed, **row.changes}
            key = (row.method, tuple(sorted(changes.items())))
            if key not in known:
                known[key] = find_runs(lab.varied(**changes), row.method)
            wanted = row.configurations()
            if mine := [run for run in known[key] if run.config["hyper"] in wanted]:
                named = {"method": row.title, "setting": setting, "searched": len(wanted)}
                places = [wanted.index(run.config["hyper"]) for run in mine]
                part = frame(mine).assign(**named, place=places, run=mine, scores=[run.scores for run in mine])
                found.append(part.assign(lr=part.get("lr", 0.0)))
    columns = "setting method seed lr selection validation_accuracy note run scores place searched".split()
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=[*columns, *METRICS])


# Choice


def chosen(rows: pd.DataFrame) -> pd.DataFrame:
    """Of each setting and method in :func:`rows` the runs that count, see :func:`choose`."""
    return choose(rows, among="place", by=["setting", "method"])


def common(chosen: pd.DataFrame, by: str | list[str] = "method") -> pd.DataFrame:
    """The rows of the seeds that all have."""
    if chosen.empty:
        return chosen
    seeds = set.intersection(*(set(rows["seed"]) for _, rows in chosen.groupby(by)))
    return chosen[chosen["seed"].isin(seeds)]


def at_equal_rates(rows: pd.DataFrame, metrics: Sequence[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """All runs of the seeds that tried every learning rate with every method that searches one, and the means over these
    seeds: a row per metric and rate, a column per method. The rate that validation chooses may differ from method to method
    and be the larger part of a difference between them; here it is the same. Both are empty where there is no such seed."""
    grid = rows[rows["lr"] > 0]
    tried = grid.drop_duplicates(["seed", "method", "lr"]).groupby("seed").size()
    grid = grid[grid["seed"].isin(tried.index[tried == grid["method"].nunique() * grid["lr"].nunique()])]
    means = grid.groupby(["method", "lr"], sort=False)[list(metrics)].mean().astype(float)
    table = means.unstack("lr").T.rename(index=HEADINGS) if len(means) else means
    return grid, table.rename_axis([None, "learning rate"]) if len(means) else table


# What is missing


def missing(lab: Study, experiment: Experiment, chosen: pd.DataFrame) -> dict[str, int]:
    """How many seeds of the table each row lacks, where any: by title, such as "LoRA", with the setting where there are
    several."""
    seeds = chosen.groupby(["setting", "method"])["seed"].nunique().to_dict()
    wanted = len(experiment.seeds(lab.profile))
    absent = {
        label: min(wanted, row.seeds or wanted) - seeds.get((where, row.title), 0)
        for label, (where, row) in _lines(experiment).items()
    }
    return {label: count for label, count in absent.items() if count > 0}


def _lines(experiment: Experiment) -> dict[str, tuple[str, Row]]:
    several = len(experiment.settings) > 1
    return {
        f"{row.title} ({setting})" if several else row.title: (setting, row)
        for setting in experiment.settings
        for row in experiment.within(setting)
    }


def notes(frame: pd.DataFrame) -> list[str]:
    """What methods noted where something was not as they need it: a sentence for each method and note of ``frame``.

    Without its note such a row would be read as if the method had had its way.
    """
    noted = frame[frame["note"] != ""] if "note" in frame else frame.iloc[:0]
    if noted.empty:
        return []
    counted = noted.groupby(["method", "note"], sort=False).size()
    return [f"{method}, {in_words(count, 'run')}: {note}." for (method, note), count in counted.items()]


def note(lab: Study, experiment: Experiment, chosen: pd.DataFrame) -> Any:
    """For the reader of a table, as Markdown: that all its runs are there, or which rows lack seeds and what adds them;
    and what the methods noted of their runs."""
    from IPython.display import Markdown

    first = note_missing(lab, experiment, missing(lab, experiment, chosen)).data
    return Markdown("\n\n".join([first, *notes(chosen)]))


def note_missing(lab: Study, experiment: Experiment, absent: Mapping[str, int]) -> Any:
    """:func:`note`, where the seeds that are ``absent`` were counted elsewhere (see :func:`missing`)."""
    from IPython.display import Markdown

    if not experiment.settings:
        return Markdown(f"*{experiment.name} has no runs with this profile.*")
    wanted = len(experiment.seeds(lab.profile))
    seeds = in_words(wanted, "seed")
    if not absent:
        return Markdown(f"*All runs of {experiment.name} are there, {seeds} for each row.*")
    if set(absent.values()) == {wanted}:
        text = f"Of {experiment.name} not run yet: {'; '.join(absent)}."
    else:
        named = "; ".join(f"{title} ({count})" for title, count in absent.items())
        text = f"Seeds of {experiment.name}, of {seeds}, that are not run yet: {named}."
    return Markdown(f"*{text} To compute them:* `{command(lab, experiment, absent)}`")


def command(lab: Study, experiment: Experiment, absent: Collection[str] = ()) -> str:
    """What to type to have all runs of a table computed; where rows of it (see :func:`missing`) are known to be all that
    is absent, the runs of their methods alone."""
    kind, _, number = experiment.name.partition(" ")
    which = f"--{kind.lower()} {number}" if number else f"--beyond {kind}"
    lines = _lines(experiment)
    every = [row.method for _, row in lines.values()]
    some = {row.method for label, (_, row) in lines.items() if label in absent}
    if some and some < set(every) and some <= methods.registry().keys():  # a measurement cannot be named there
        which += " --methods " + " ".join(name for name in dict.fromkeys(every) if name in some)
    return f"python -m aimfair grid run {which} {options(lab.profile, lab.profile)}"


def command_for(lab: Study, method: str, hyper: Mapping[str, Any], changes: Mapping[str, Any]) -> str:
    """What to type to have ``method`` searched and trained with all seeds, some hyper-parameters fixed and the study changed."""
    fixed = " ".join(["--hyper", *(f"{name}={value}" for name, value in hyper.items()), ""]) if hyper else ""
    return f"python -m aimfair run {method} --search --seeds all {fixed}{options(lab.varied(**changes).profile, lab.profile)}"


def options(profile: Profile, base: Profile) -> str:
    """A study's profile as options of the command line: by its name, or where no file has it as ``base`` with changes, and
    a place for the photographs where it has any."""
    name = profile.profile if profile.profile in profiles.available() else base.profile
    plain = profiles.load(name) if name in profiles.available() else replace(base, profile=profile.profile)
    changed = [f for f in profiles.FIELDS if f != "profile" and getattr(profile, f) != getattr(plain, f)]
    data = [] if profile.dataset == "faceworld" else ["--data path/to/images"]
    return " ".join([f"--profile {name}", *(f"-p {f}={getattr(profile, f)}" for f in changed), *data])


# Means


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
    for column in metric if reference is not None else ():
        values = frame.pivot(index="seed", columns=by, values=column)
        others = [name for name in table if name != reference]
        for name in others:
            if values[[name, reference]].isna().any(axis=None):
                raise AimfairError(
                    f"{name} and {reference} do not have the same seeds: differences would not be paired"
                )
        differences = [paired_difference(values[name], values[reference]) for name in others]
        for name, d, p in zip(others, differences, holm([d.p for d in differences]), strict=True):
            of = {"difference": d.mean, "difference low": d.low, "difference high": d.high, "p": p}
            table[name] |= {(column, kind): value for kind, value in of.items()}
    result = pd.DataFrame.from_dict(table, orient="index")
    result.columns = pd.MultiIndex.from_tuples(result.columns)
    return result.rename_axis(by)


def show(summary: pd.DataFrame, metric: Sequence[str] = METRICS, differences: bool = False) -> pd.DataFrame:
    """The summary for reading: ``84.2 [83.1, 85.3]``, and with ``differences`` ``+1.4 [0.9, 1.8], p .004`` instead."""
    columns = {}
    for name in metric:
        cells = (summary[name].dropna() if differences else summary[name]).iterrows()
        if differences:
            columns[HEADINGS[name]] = [
                f"{within(r['difference'], r['difference low'], r['difference high'], '+.1f')}, p\u00a0{_p(r['p'])}"
                for _, r in cells
            ]
        else:
            columns[HEADINGS[name]] = [within(r["mean"], r["low"], r["high"]) for _, r in cells]
    rows = summary.dropna().index if differences else summary.index
    return pd.DataFrame(columns, index=rows.rename(None))


def within(value: float, low: float, high: float, form: str = ".1f") -> str:
    """``84.2 [83.1, 85.3]``, a value with its interval, in which no line breaks; the value alone of a single seed."""
    return f"{value:{form}}" + (f" [{low:{form}},\u00a0{high:{form}}]" if np.isfinite(low) else "")


def beside(
    printed: pd.DataFrame, chosen: pd.DataFrame, reference: str, metric: Sequence[str] = ("acc", "wst", "eo_max")
) -> pd.DataFrame:
    """Means as printed and as measured, and by how much each differs from ``reference``: for reading, not for testing.

    printed  a row of the paper per method, indexed by our title of it, with the columns of ``metric``
    """
    metric = list(metric)
    theirs = printed[metric]
    ours = chosen.groupby("method")[metric].mean().astype(float).reindex(theirs.index)
    parts = {"paper": theirs, "here": ours}
    parts |= {f"{who}, change": part - part.loc[reference] for who, part in parts.items()}
    return pd.concat(parts, axis=1).rename(columns=HEADINGS).rename_axis(None)


# Files


def export(summary: pd.DataFrame, path: str | Path, differences: bool = False) -> Path:
    """Write a table as the suffix of ``path`` says: .csv (numbers), .tex (booktabs) or .md; returns the path.

    See :func:`text`. Raises AimfairError for another suffix or a file that cannot be written.
    """
    path = Path(path)
    with aside(path) as partial:
        partial.write_text(text(summary, path.suffix, differences), encoding="utf-8")
    return path


def text(summary: pd.DataFrame, suffix: str = ".md", differences: bool = False) -> str:
    """A table in one of the formats of :data:`WRITERS`: a :func:`summary`, or any frame as it is, without its index.

    Columns of a summary are those of the index; where :func:`aimfair.study.grid.summary` made it, what the method is told and
    how many configurations it chooses among; how many seeds; each metric with its interval, with ``differences`` also its
    paired difference to the reference; and beside WST the worst group of the mean accuracies, the paper's order of averaging.
    A row without runs says "missing". Raises AimfairError for another format and for differences that the summary does not
    have.
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
    worst = values["wst of means", "mean"].rename("WST of means")
    if suffix == ".csv":
        kinds = [
            "mean",
            "low",
            "high",
            *(["difference", "difference low", "difference high", "p"] if differences else []),
        ]
        numbers = {f"{HEADINGS[name]} {kind}": values[name, kind] for name in METRICS for kind in kinds}
        parts = [left, pd.DataFrame(numbers), worst]
    else:
        parts = [left, show(values).replace("nan", "missing")]
        if differences:
            compared = show(values, differences=True).reindex(values.index).fillna("")
            parts.append(compared.rename(columns=lambda name: f"{name}, difference"))
        parts.append(worst.map(lambda value: f"{value:.1f}" if np.isfinite(value) else "missing"))
    return WRITERS[suffix](pd.concat(parts, axis=1))


def _markdown(table: pd.DataFrame) -> str:
    rows = [list(table.columns), ["---"] * table.shape[1], *table.astype(str).to_numpy().tolist()]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |\n" for row in rows)


def _latex(table: pd.DataFrame) -> str:
    return (
        table.astype(str).to_latex(index=False, escape=True, column_format="l" * table.shape[1]).replace("\u00a0", "~")
    )


WRITERS: dict[str, Callable[[pd.DataFrame], str]] = {
    ".csv": lambda table: table.to_csv(index=False, lineterminator="\n"),
    ".tex": _latex,
    ".md": _markdown,
}
"""Suffix of a file -> what turns a table of words or numbers into its text."""


def _p(value: float) -> str:
    return f"{value:.3f}".removeprefix("0") if value < 1 else "1"
