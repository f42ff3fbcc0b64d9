"""The runs behind a figure: gathered where they are there, and named with their command where they are not.

A chapter that shows many runs must still read well on a machine, or for a profile, that has only some of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd
from numpy.typing import ArrayLike

from aimfair import profiles, tables
from aimfair.chapters import MAIN
from aimfair.claims import Claim
from aimfair.experiments import GAPS, Row
from aimfair.profiles import Profile
from aimfair.runs import Run
from aimfair.study import SEEDS, Study

SOURCES = {"faceworld": "drawn", "celeba": "CelebA", "utkface": "UTKFace", "fairface": "FairFace"}
"""What data sets are called below a figure."""


def there(lab: Study, method: str) -> list[Run]:
    """The published runs of ``method``, and those of this machine that nobody published; none is no error."""
    published = lab.published(method)
    known = {run.id for run in published}
    return published + [run for run in lab.fresh(method) if run.id not in known]


def gathered(lab: Study, rows: Sequence[Row]) -> tuple[pd.DataFrame, dict[str, int]]:
    """The rows of a figure as their finished runs tell it, and how many seeds of the profile each row lacks, where any.

    The frame is that of :func:`aimfair.tables.frame`, ``method`` being the row's title: a line for each row and seed that
    has all its configurations, the best by :func:`aimfair.tables.selection`. Rows that change the profile are looked up
    in that study. Nothing is trained.
    """
    chosen, lacking = [], {}
    for row in rows:
        opened = lab.varied(**row.changes) if row.changes else lab
        found = {(run.seed, _canonical(run.config["hyper"])): run for run in there(opened, row.method)}
        wanted = [_canonical(hyper) for hyper in row.configurations()]
        seeds = [s for s in sorted({seed for seed, _ in found}) if all((s, hyper) in found for hyper in wanted)]
        best = [max((found[seed, hyper] for hyper in wanted), key=tables.selection) for seed in seeds]
        chosen.append(tables.frame(best).assign(method=row.title) if best else pd.DataFrame({"method": [], "seed": []}))
        if absent := set(SEEDS[: opened.profile.seeds]) - set(seeds):
            lacking[row.title] = len(absent)
    return pd.concat([frame for frame in chosen if len(frame)] or chosen[:1], ignore_index=True), lacking


def _canonical(hyper: Mapping[str, Any]) -> str:
    return json.dumps(hyper, sort_keys=True)


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


def missing(lab: Study, figure: int, lacking: Mapping[str, int]) -> Any:
    """What to read below a figure: that all its runs are there, or which rows lack seeds and the command that adds them."""
    from IPython.display import Markdown

    if not lacking:
        return Markdown(f"All runs of this figure are there, {lab.profile.seeds} for each row and configuration.")
    rows = ", ".join(f"{title} ({count})" for title, count in lacking.items())
    return Markdown(
        f"**Not all runs are there.** Seeds that are missing: {rows}. To compute them: `{command(lab, figure)}`"
    )


def command(lab: Study, figure: int) -> str:
    """The command that computes the missing runs of a figure."""
    p = lab.profile
    of = "" if p.profile == MAIN else f" --profile {p.profile}"
    data = "" if p.dataset == "faceworld" else " --data path/to/images"
    return f"python -m aimfair grid run --figure {figure}{of}{data}"


def compared(
    frame: pd.DataFrame,
    test: Callable[[str, ArrayLike, ArrayLike], Claim],
    text: str,
    first: str,
    second: str,
    metric: str,
) -> Claim:
    """``test`` (:func:`aimfair.claims.higher` or ``lower``) of ``metric`` in two rows of ``frame``, on their common seeds.

    Without a common seed the claim is undecided and says what is missing.
    """
    values = frame.pivot(index="seed", columns="method", values=metric) if metric in frame else pd.DataFrame()
    values = values.reindex(columns=[first, second])
    both = values.dropna()
    if both.empty:
        absent = [name for name in (first, second) if values[name].isna().all()]
        return Claim(text, "undecided", f"no runs of {' and '.join(absent)}" if absent else "no common seed")
    return test(text, both[first], both[second])
