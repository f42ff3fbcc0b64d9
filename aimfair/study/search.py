"""The one rule by which hyper-parameters are chosen: searched on the first three seeds, then the same for all seeds.

Every value that a method searches (five of them, see :mod:`aimfair.methods`) is run on three seeds. The value whose
mean of :func:`selection` over these is best counts (:func:`choose`), and the other seeds
are run with it alone. A value with which a training diverges has been tried like any other. So a search costs 15 runs
however many seeds follow, and seven of ten seeds had no part in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, Protocol

import pandas as pd

from aimfair import methods
from aimfair.environment import AimfairError
from aimfair.study.profiles import SEEDS, Profile
from aimfair.study.runs import Run

SEARCH_SEEDS = 3
"""On how many seeds the values of a hyper-parameter are compared."""

TRAINING = "training"
"""In hyper-parameters: the schedule of a training from scratch, in place of the profile's."""

Hyper = dict[str, Any]
"""Complete hyper-parameters of a run."""


class Trainer(Protocol):
    """What a search needs of a study."""

    profile: Profile

    def attempt(self, method: str, seed: int | None = None, **hyper: Any) -> Run:
        """See :meth:`aimfair.study.study.Study.attempt`."""


def seeds(profile: Profile, first: int = SEARCH_SEEDS) -> tuple[int, ...]:
    """The seeds on which every value is run."""
    return SEEDS[: min(first, profile.seeds)]


def values(method: str, among: Mapping[str, Sequence[Any]] | None = None, /, **fixed: Any) -> list[Hyper]:
    """Complete hyper-parameters of each value that ``method`` searches (or of the values ``among``), but for what is
    ``fixed``; of one run if there is nothing to search.

    "training" among them is handed on, see :meth:`aimfair.study.study.Study.trained`. Raises AimfairError for an unknown
    method or hyper-parameter."""
    known = methods.get(method)
    searched = {name: several for name, several in (among or known.search).items() if name not in fixed}
    found = []
    for combination in product(*searched.values()):
        given = {**fixed, **dict(zip(searched, combination, strict=True))}
        training = {TRAINING: given.pop(TRAINING)} if TRAINING in given else {}
        found.append(known.hyper(**given) | training)
    return found


def ranking(tried: Sequence[tuple[int, Run]], first: int = SEARCH_SEEDS) -> list[int]:
    """The places of values from the best to the worst, by the rule of :func:`choose`.

    tried  each run, and which value it has
    """
    frame = pd.DataFrame({"seed": [run.seed for _, run in tried], "place": [place for place, _ in tried]})
    wide = frame.assign(selection=[selection(run) for _, run in tried]).pivot(
        index="seed", columns="place", values="selection"
    )
    return [int(place) for place in _ranked(wide, first)]


def chosen(study: Trainer, method: str, among: Mapping[str, Sequence[Any]] | None = None, /, **fixed: Any) -> Hyper:
    """Complete hyper-parameters of ``method`` with the value that counts. Runs that do not exist yet are trained."""
    found = values(method, among, **fixed)
    if len(found) == 1:
        return found[0]
    first = seeds(study.profile)
    tried = [(place, study.attempt(method, seed, **hyper)) for seed in first for place, hyper in enumerate(found)]
    return found[ranking(tried)[0]]


def wanted(
    study: Trainer, method: str, seed: int, among: Mapping[str, Sequence[Any]] | None = None, /, **fixed: Any
) -> list[Hyper]:
    """What a search runs with this seed: every value, or after the first seeds only the one that counts (:func:`chosen`)."""
    if seed in seeds(study.profile):
        return values(method, among, **fixed)
    return [chosen(study, method, among, **fixed)]


def tried(
    study: Trainer, method: str, seed: int, among: Mapping[str, Sequence[Any]] | None = None, /, **fixed: Any
) -> list[Run]:
    """The runs of :func:`wanted`. Those that do not exist yet are trained."""
    return [study.attempt(method, seed, **hyper) for hyper in wanted(study, method, seed, among, **fixed)]


def run(study: Trainer, method: str, seed: int, **fixed: Any) -> Run:
    """The run of ``method`` with this seed that counts. Runs that do not exist yet are trained."""
    return study.attempt(method, seed, **chosen(study, method, **fixed))


def selection(run: Run) -> float:
    """What the configurations of a method are chosen by, per cent, on real validation faces: overall accuracy, no group
    label read; for oracles that are told those labels the accuracy of the worst group."""
    if "validation protected" in methods.get(run.config["method"]).needs:
        return run.report("validation").wst
    return run.accuracy("validation")


def choose(frame: pd.DataFrame, among: str = "lr", by: Sequence[str] = ("method",)) -> pd.DataFrame:
    """Of each group of rows, all seeds together, those with the value of ``among`` that does best; the smaller wins a tie.

    The selection rule of the book: the mean of :func:`selection` over the first seeds that have all values. That is
    accuracy on real validation images, no group label read (oracles: their worst group there). Where this makes a
    shortlist, the mean over all seeds that have the values of the shortlist decides among these.

    frame  columns ``seed``, ``selection``, ``among`` and ``by``; a column ``searched`` says how many values there are to
           choose among, else they are those in the group; ``first`` how many seeds are looked at, else
           :data:`SEARCH_SEEDS`; ``shortlist`` how many values are on it, else 1
    A group in which no seed has all values is left out: the choice would be among fewer than the others'. Raises
    AimfairError for two rows with the same seed and value.
    """
    if frame.empty:
        return frame
    kept = [_best(part, among) for _, part in frame.groupby(list(by), sort=False, dropna=False)]
    return pd.concat(kept).sort_index()


def _best(rows: pd.DataFrame, among: str) -> pd.DataFrame:
    places = pd.factorize(rows[among], sort=True, use_na_sentinel=False)[0]  # a method with nothing to search has one
    placed = pd.DataFrame({"seed": rows["seed"], "place": places, "selection": rows["selection"]})
    if placed.duplicated(["seed", "place"]).any():
        raise AimfairError(f"several runs have the same seed and {among}: choose by what tells them apart, too")
    wide = placed.pivot(index="seed", columns="place", values="selection")
    if wide.shape[1] < _of(rows, "searched", 1):
        return rows.iloc[:0]
    best = _ranked(wide, _of(rows, "first", SEARCH_SEEDS))[: _of(rows, "shortlist", 1)]
    if len(best) > 1:
        best = _ranked(wide[sorted(best)], len(wide))
    return rows[places == best[0]] if len(best) else rows.iloc[:0]


def _ranked(wide: pd.DataFrame, first: int) -> pd.Index:
    """Columns from the best to the worst by their mean over the first rows that have all; none where no row has."""
    common = wide.dropna().head(first)
    if common.empty:
        return common.columns[:0]
    # of equals the first, whatever the order of the sum did to the last digit
    return common.mean().round(9).sort_values(ascending=False, kind="stable").index


def _of(rows: pd.DataFrame, name: str, otherwise: int) -> int:
    return int(rows[name].max()) if name in rows else otherwise


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
