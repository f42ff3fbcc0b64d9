"""What a table or a figure is, as runs: settings x rows x searched values x seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aimfair import methods
from aimfair.study import profiles, search
from aimfair.study.profiles import Profile

if TYPE_CHECKING:
    from aimfair.study import Study

GAPS = "gradient-gaps"
"""A run without a classifier of its own: what AIM-Fair's masks are made from, :func:`aimfair.study.measurements.gradient_gaps`."""

MAPS = "feature-map"
"""Likewise, of the classifier of the method that ``of`` names: :func:`aimfair.study.measurements.feature_map`."""

CHOSEN = "chosen"
"""In place of a hyper-parameter: the value that counts, see :mod:`aimfair.study.search`; "chosen 2" is the second best."""

Settings = dict[str, dict[str, Any]]
"""Name of a part of a table -> the fields of the profile that differ there."""


@dataclass(frozen=True)
class Row:
    """One line of a table: a method, what is fixed of its hyper-parameters, and what the row changes of the profile.

    settings   the only settings of the table in which it stands; none named: it stands in all
    among      values to search in place of those that the method declares; "training" is a from-scratch method's schedule,
               see :meth:`aimfair.study.Study.trained`
    first      on how many seeds every value is run; the others run only the best of them
    shortlist  how many values the other seeds run: with more than one, all seeds choose among these
    seeds      how many of the table's seeds it has; None: all
    """

    title: str
    method: str
    fixed: Mapping[str, Any] = field(default_factory=dict)
    changes: Mapping[str, Any] = field(default_factory=dict)
    settings: tuple[str, ...] = ()
    among: Mapping[str, tuple[Any, ...]] | None = None
    first: int = search.SEARCH_SEEDS
    shortlist: int = 1
    seeds: int | None = None

    def configurations(self) -> list[dict[str, Any]]:
        """Complete hyper-parameters of each run: every value that the method searches and the row does not fix."""
        return (
            [dict(self.fixed)] if is_measurement(self.method) else search.values(self.method, self.among, **self.fixed)
        )

    def followers(self) -> list[dict[str, Any]]:
        """Likewise for a seed that comes after the search: :data:`CHOSEN` stands for what is found there."""
        tried = self.configurations()
        if len(tried) == 1:
            return tried
        searched = [name for name in (self.among or methods.get(self.method).search) if name not in self.fixed]
        ranks = [CHOSEN, *(f"{CHOSEN} {rank}" for rank in range(2, self.shortlist + 1))]
        return [{**tried[0], **dict.fromkeys(searched, rank)} for rank in ranks]


@dataclass(frozen=True)
class Experiment:
    """A table or figure: each of its rows in each of its settings, which are the tables within it.

    at_least  how many seeds it has where the profile has fewer
    """

    name: str
    title: str
    settings: Settings
    rows: list[Row]
    at_least: int = 0

    def seeds(self, profile: Profile) -> tuple[int, ...]:
        """All seeds of the table: those of the profile, and further ones of :data:`aimfair.study.profiles.SEEDS`."""
        return profiles.SEEDS[: max(profile.seeds, self.at_least)]

    def within(self, setting: str) -> list[Row]:
        """The rows that stand in one of the settings."""
        return [row for row in self.rows if setting in row.settings or not row.settings]

    def compute(self, lab: Study, seed: int) -> None:
        """Train the runs of one seed that are missing, or find them."""
        for setting, changed in self.settings.items():
            for row in self.within(setting):
                if seed not in self.seeds(lab.profile)[: row.seeds]:
                    continue
                study = lab.varied(**{**changed, **row.changes})
                if is_measurement(row.method):
                    study.measure(row.method, seed, **row.fixed)
                else:
                    search.tried(study, row.method, seed, row.among, **row.fixed)


@dataclass(frozen=True)
class Cell:
    """One run, and where it stands.

    table, setting, row  such as "Table 3", "Smiling / Young", "Full fine-tuning"
    profile, changes     the study: name of a profile, and the fields of it that differ
    method, hyper, seed  the run: what :meth:`aimfair.study.Study.run` is given, hyper-parameters complete, but for those
                         that are :data:`CHOSEN`
    among, first, shortlist  as in its :class:`Row`
    """

    table: str
    setting: str
    row: str
    profile: str
    changes: tuple[tuple[str, Any], ...]
    method: str
    hyper: tuple[tuple[str, Any], ...]
    seed: int
    among: tuple[tuple[str, tuple[Any, ...]], ...] = ()
    first: int = search.SEARCH_SEEDS
    shortlist: int = 1


def cells(experiment: Experiment, profile: str, changes: Mapping[str, Any], seeds: Sequence[int]) -> list[Cell]:
    """Every run of a table, in the order of its settings, rows, seeds and searched values.

    profile, changes  the same that ``experiment`` was made for; its settings and rows change it further
    The first seeds have a run for each searched value, the others as many as the row's shortlist.
    """
    p = profiles.load(profile, **changes)
    return [
        Cell(
            experiment.name,
            setting,
            row.title,
            profile,
            tuple(sorted({**changes, **changed, **row.changes}.items())),
            row.method,
            tuple(sorted(hyper.items())),
            seed,
            tuple((row.among or {}).items()),
            row.first,
            row.shortlist,
        )
        for setting, changed in experiment.settings.items()
        for row in experiment.within(setting)
        for seed in seeds[: row.seeds]
        for hyper in (row.configurations() if seed in search.seeds(p, row.first) else row.followers())
    ]


def is_measurement(name: str) -> bool:
    """Whether a run of this name is a measurement (:mod:`aimfair.study.measurements`) and no training of a method."""
    return name not in methods.registry()


def own(p: Profile) -> Settings:
    """The profile as it is."""
    return {f"{p.target} / {p.protected}": {}}


def trained(p: Profile, times: int) -> dict[str, int]:
    """The study in which the biased model was trained ``times`` as long, its rate falling as many times later."""
    return {"pretrain_epochs": times * p.pretrain_epochs, "pretrain_decay_at": times * p.pretrain_decay_at}


def lines(*names: str) -> list[Row]:
    """A row per method, called as the method's own title."""
    return [Row(methods.get(name).title, name) for name in names]
