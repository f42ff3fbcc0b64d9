"""What there is to show for a table or figure of the paper: its finished runs as rows, verdicts, and what is missing.

A chapter that shows one must be readable before all of its runs are there, so nothing here raises where they are not.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from aimfair.environment import AimfairError
from aimfair.progress import in_words
from aimfair.study import Study, profiles, search, tables
from aimfair.study.claims import Claim
from aimfair.study.grid.experiments import GAPS, Experiment, Row
from aimfair.study.measurements import MEASUREMENTS
from aimfair.study.profiles import Profile
from aimfair.study.runs import Run

SOURCES = {"faceworld": "drawn", "celeba": "CelebA", "utkface": "UTKFace", "fairface": "FairFace"}
"""What data sets are called beside a task."""

COLUMNS = [
    *"setting method seed lr selection validation_accuracy note run scores place searched".split(),
    *tables.METRICS,
]
"""Of :func:`rows`, beside the hyper-parameters: all that there are where nothing was run."""


def there(lab: Study, method: str) -> list[Run]:
    """The published runs of ``method``, whatever their hyper-parameters, and those of this machine that nobody published;
    none is no error."""
    published = lab.all_published(method)
    known = {run.id for run in published}
    return published + [run for run in lab.all_fresh(method) if run.id not in known]


def rows(lab: Study, experiment: Experiment) -> pd.DataFrame:
    """A row per finished run of a table, in its order: setting, method (the title of its row), seed, hyper-parameters and
    the fairness report of the test set.

    lab  the study that ``experiment`` was made for
    Beside them ``run`` itself and its ``scores`` (mask, history, seconds), ``place`` among the values that the row
    searches, and ``searched``: how many these are. The learning rate of a method without one is 0. Nothing is trained.
    """
    known: dict[Any, list[Run]] = {}
    found = []
    for setting, changed in experiment.settings.items():
        for row in experiment.within(setting):
            changes = {**changed, **row.changes}
            wanted = row.configurations()
            key = (row.method, tuple(sorted(changes.items())))
            if key not in known:
                known[key] = there(lab.varied(**changes), row.method)
            if mine := [run for run in known[key] if run.config["hyper"] in wanted]:
                found.append(_frame(mine, setting, row, wanted))
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=COLUMNS)


def _frame(runs: Sequence[Run], setting: str, row: Row, wanted: list[dict[str, Any]]) -> pd.DataFrame:
    places = [wanted.index(run.config["hyper"]) for run in runs]
    frame = tables.frame(runs).assign(method=row.title, setting=setting, place=places, searched=len(wanted))
    frame["lr"] = frame.get("lr", 0.0)
    return frame.assign(run=runs, scores=[run.scores for run in runs])


def chosen(rows: pd.DataFrame) -> pd.DataFrame:
    """Of each setting and method the runs that count, see :func:`aimfair.study.tables.choose`."""
    return tables.choose(rows, among="place", by=["setting", "method"])


def compute(lab: Study, experiment: Experiment, seed: int) -> None:
    """Train the runs of one seed that are missing, or find them."""
    for setting, changed in experiment.settings.items():
        for row in experiment.within(setting):
            study = lab.varied(**{**changed, **row.changes})
            if row.method in MEASUREMENTS:
                study.measure(row.method, seed, **row.fixed)
            else:
                search.tried(study, row.method, seed, **row.fixed)


def missing(lab: Study, experiment: Experiment, chosen: pd.DataFrame) -> dict[str, int]:
    """How many seeds of the table each row of a table lacks, where any: by title, such as "LoRA", with the setting
    where there are several."""
    seeds = chosen.groupby(["setting", "method"])["seed"].nunique().to_dict()
    wanted = len(experiment.seeds(lab.profile))
    lacking = {
        label: wanted - seeds.get((setting, row.title), 0) for label, (setting, row) in labelled(experiment).items()
    }
    return {label: count for label, count in lacking.items() if count > 0}


def labelled(experiment: Experiment) -> dict[str, tuple[str, Row]]:
    """The setting and row of each line of a table, by title, with the setting where there are several."""
    several = len(experiment.settings) > 1
    return {
        f"{row.title} ({setting})" if several else row.title: (setting, row)
        for setting in experiment.settings
        for row in experiment.within(setting)
    }


def command(lab: Study, experiment: Experiment, lacking: Collection[str] = ()) -> str:
    """What to type to have all runs of a table computed; where lines of it (see :func:`missing`) are known to be all that
    is lacking, the runs of their methods alone."""
    kind, _, number = experiment.name.partition(" ")
    which = f"--{kind.lower()} {number}" if number else f"--beyond {kind}"
    lines = labelled(experiment)
    every = [row.method for _, row in lines.values()]
    some = {row.method for label, (_, row) in lines.items() if label in lacking}
    if some and some < set(every) and some.isdisjoint(MEASUREMENTS):
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


def told(lab: Study, experiment: Experiment, chosen: pd.DataFrame) -> Any:
    """For the reader of a table, as Markdown: that all its runs are there, or which rows lack seeds and what adds them;
    and what the methods noted of their runs."""
    from IPython.display import Markdown

    said = note(lab, experiment, missing(lab, experiment, chosen)).data
    return Markdown("\n\n".join([said, *tables.notes(chosen)]))


def note(lab: Study, experiment: Experiment, lacking: Mapping[str, int]) -> Any:
    """:func:`told`, where the seeds that are ``lacking`` were counted elsewhere (see :func:`missing`)."""
    from IPython.display import Markdown

    if not experiment.settings:
        return Markdown(f"*{experiment.name} has no runs with this profile.*")
    wanted = len(experiment.seeds(lab.profile))
    seeds = in_words(wanted, "seed")
    if not lacking:
        return Markdown(f"*All runs of {experiment.name} are there, {seeds} for each row.*")
    if set(lacking.values()) == {wanted}:
        said = f"Of {experiment.name} not run yet: {'; '.join(lacking)}."
    else:
        named = "; ".join(f"{title} ({count})" for title, count in lacking.items())
        said = f"Seeds of {experiment.name}, of {seeds}, that are not run yet: {named}."
    return Markdown(f"*{said} To compute them:* `{command(lab, experiment, lacking)}`")


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
    table = means.unstack("lr").T.rename(index=tables.HEADINGS) if len(means) else means
    return grid, table.rename_axis([None, "learning rate"]) if len(means) else table


def compare(
    test: Callable[..., Claim], text: str, rows: pd.DataFrame, first: str, second: str, metric: str, **options: Any
) -> Claim:
    """:func:`aimfair.study.claims.higher` or :func:`aimfair.study.claims.lower` of two methods on the seeds that both have.

    Undecided, and says so, where one of them has no runs.
    """
    sides = [rows[rows["method"] == name].set_index("seed")[metric] for name in (first, second)]
    seeds = sides[0].index.intersection(sides[1].index)
    if any(side.index.has_duplicates for side in sides):
        raise AimfairError(f"{first} or {second} has several rows of one seed: choose among them first")
    return test(text, *(side.loc[seeds].to_numpy(float) for side in sides), **options)


def ask(rows: pd.DataFrame, *questions: tuple[Callable[..., Claim], str, str, str, str]) -> list[Claim]:
    """:func:`compare` for several (test, text, first, second, metric)."""
    return [compare(test, text, rows, first, second, metric) for test, text, first, second, metric in questions]


def beside(
    printed: pd.DataFrame, chosen: pd.DataFrame, reference: str, metric: Sequence[str] = ("acc", "wst", "eo_max")
) -> pd.DataFrame:
    """Means as printed and as measured, and by how much each differs from ``reference``: for reading, not for testing.

    printed  a row of :func:`aimfair.paper.results` per method, indexed by our title of it, with the columns of ``metric``
    """
    metric = list(metric)
    there = printed[metric]
    here = chosen.groupby("method")[metric].mean().astype(float).reindex(there.index)
    parts: Mapping[str, pd.DataFrame] = {
        "paper": there,
        "here": here,
        "paper, change": there - there.loc[reference],
        "here, change": here - here.loc[reference],
    }
    return pd.concat(parts, axis=1).rename(columns=tables.HEADINGS).rename_axis(None)


def gaps_by_study(lab: Study) -> dict[str, list[Run]]:
    """Gradient gaps of this study, then of every profile that has any, by label, such as "Smiling / Male, CelebA".

    Studies of one label are one: the first of them stands. Raises AimfairError where this study has none.
    """
    found = {_label(lab.profile): lab.results(GAPS)}
    for name in profiles.available():
        other = Study(profiles.load(name), device="cpu", runs_root=str(lab.runs_root))
        if measured := there(other, GAPS):
            found.setdefault(_label(other.profile), measured)
    return found


def _label(p: Profile) -> str:
    return f"{p.target} / {p.protected}, {SOURCES.get(p.dataset, p.dataset)}"
