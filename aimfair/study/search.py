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

Hyper = dict[str, Any]
"""Complete hyper-parameters of a run."""


class Trainer(Protocol):
    """What a search needs of a study."""

    profile: Profile

    def attempt(self, method: str, seed: int | None = None, **hyper: Any) -> Run:
        """See :meth:`aimfair.study.study.Study.attempt`."""


def seeds(profile: Profile) -> tuple[int, ...]:
    """The seeds on which every value is run."""
    return SEEDS[: min(SEARCH_SEEDS, profile.seeds)]


def values(method: str, **fixed: Any) -> list[Hyper]:
    """Complete hyper-parameters of each value that ``method`` searches, but for what is ``fixed``; of one run if there is
    nothing to search. Raises AimfairError for an unknown method or hyper-parameter."""
    known = methods.get(method)
    searched = {name: several for name, several in known.search.items() if name not in fixed}
    combinations = product(*searched.values())
    return [known.hyper(**fixed, **dict(zip(searched, combination, strict=True))) for combination in combinations]


def winner(tried: Sequence[Run], among: Sequence[Mapping[str, Any]]) -> Hyper:
    """Of the hyper-parameters in ``among`` those that :func:`choose` finds best in the runs ``tried``."""
    places = [list(among).index(run.config["hyper"]) for run in tried]
    frame = pd.DataFrame({"seed": [run.seed for run in tried], "place": places, "method": ""})
    best = choose(frame.assign(selection=[selection(run) for run in tried]), among="place")
    return dict(among[int(best["place"].iloc[0])])


def chosen(study: Trainer, method: str, **fixed: Any) -> Hyper:
    """Complete hyper-parameters of ``method`` with the value that counts. Runs that do not exist yet are trained."""
    among = values(method, **fixed)
    if len(among) == 1:
        return among[0]
    return winner([study.attempt(method, seed, **hyper) for seed in seeds(study.profile) for hyper in among], among)


def wanted(study: Trainer, method: str, seed: int, **fixed: Any) -> list[Hyper]:
    """What a search runs with this seed: every value, or after the first seeds only the one that counts (:func:`chosen`)."""
    return values(method, **fixed) if seed in seeds(study.profile) else [chosen(study, method, **fixed)]


def tried(study: Trainer, method: str, seed: int, **fixed: Any) -> list[Run]:
    """The runs of :func:`wanted`. Those that do not exist yet are trained."""
    return [study.attempt(method, seed, **hyper) for hyper in wanted(study, method, seed, **fixed)]


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

    The selection rule of the book: the mean of :func:`selection` over the first :data:`SEARCH_SEEDS` seeds that have all
    values. That is accuracy on real validation images, no group label read (oracles: their worst group there).

    frame  columns ``seed``, ``selection``, ``among`` and ``by``; a column ``searched`` says how many values there are to
           choose among, else they are those in the group
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
    first = wide.dropna().head(SEARCH_SEEDS)
    if first.empty or wide.shape[1] < (rows["searched"].max() if "searched" in rows else 1):
        return rows.iloc[:0]
    best = first.mean().round(9).idxmax()  # the first of equals, whatever the order of the sum did to the last digit
    return rows[places == best]


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
