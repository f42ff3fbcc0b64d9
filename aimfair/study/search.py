"""The one rule by which hyper-parameters are chosen: searched on the first three seeds, then the same for all seeds.

Every value that a method searches (five of them, see :mod:`aimfair.methods`) is run on three seeds. The value whose
mean of :func:`aimfair.study.tables.selection` over these is best counts (:func:`aimfair.study.tables.choose`), and the other seeds
are run with it alone. A value with which a training diverges has been tried like any other. So a search costs 15 runs
however many seeds follow, and seven of ten seeds had no part in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

import pandas as pd

from aimfair import methods
from aimfair.study import tables
from aimfair.study.profiles import SEEDS, Profile
from aimfair.study.runs import Run

if TYPE_CHECKING:
    from aimfair.study import Study

Hyper = dict[str, Any]
"""Complete hyper-parameters of a run."""


def seeds(profile: Profile) -> tuple[int, ...]:
    """The seeds on which every value is run."""
    return SEEDS[: min(tables.SEARCH_SEEDS, profile.seeds)]


def values(method: str, **fixed: Any) -> list[Hyper]:
    """Complete hyper-parameters of each value that ``method`` searches, but for what is ``fixed``; of one run if there is
    nothing to search. Raises AimfairError for an unknown method or hyper-parameter."""
    known = methods.get(method)
    searched = {name: several for name, several in known.search.items() if name not in fixed}
    combinations = product(*searched.values())
    return [known.hyper(**fixed, **dict(zip(searched, combination, strict=True))) for combination in combinations]


def winner(tried: Sequence[Run], among: Sequence[Mapping[str, Any]]) -> Hyper:
    """Of the hyper-parameters in ``among`` those that :func:`aimfair.study.tables.choose` finds best in the runs ``tried``."""
    places = [list(among).index(run.config["hyper"]) for run in tried]
    frame = pd.DataFrame({"seed": [run.seed for run in tried], "place": places, "method": ""})
    best = tables.choose(frame.assign(selection=[tables.selection(run) for run in tried]), among="place")
    return dict(among[int(best["place"].iloc[0])])


def chosen(study: Study, method: str, **fixed: Any) -> Hyper:
    """Complete hyper-parameters of ``method`` with the value that counts. Runs that do not exist yet are trained."""
    among = values(method, **fixed)
    if len(among) == 1:
        return among[0]
    return winner([study.attempt(method, seed, **hyper) for seed in seeds(study.profile) for hyper in among], among)


def wanted(study: Study, method: str, seed: int, **fixed: Any) -> list[Hyper]:
    """What a search runs with this seed: every value, or after the first seeds only the one that counts (:func:`chosen`)."""
    return values(method, **fixed) if seed in seeds(study.profile) else [chosen(study, method, **fixed)]


def tried(study: Study, method: str, seed: int, **fixed: Any) -> list[Run]:
    """The runs of :func:`wanted`. Those that do not exist yet are trained."""
    return [study.attempt(method, seed, **hyper) for hyper in wanted(study, method, seed, **fixed)]


def run(study: Study, method: str, seed: int, **fixed: Any) -> Run:
    """The run of ``method`` with this seed that counts. Runs that do not exist yet are trained."""
    return study.attempt(method, seed, **chosen(study, method, **fixed))
