"""Recipes: a method with some of its settings, in a study that is changed for it, under one name for ``aimfair run``.

What a recipe trains are ordinary runs of its method, so it needs none of its own: the tables that have these runs show it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aimfair import methods
from aimfair.environment import AimfairError
from aimfair.study.grid import experiments
from aimfair.study.profiles import Profile

if TYPE_CHECKING:
    from aimfair.study import Study


@dataclass(frozen=True)
class Recipe:
    """What ``aimfair run NAME`` trains.

    title    as the chapters call it
    method   name of a registered method (:mod:`aimfair.methods`), with the hyper-parameters ``fixed``
    changes  profile -> the fields of it that differ
    """

    name: str
    title: str
    method: str
    fixed: Mapping[str, Any]
    changes: Callable[[Profile], dict[str, Any]]


OWN = Recipe(
    name="patient-aim-fair",
    title="AIM-Fair, statistics kept, longer ERM",
    method="aim-fair",
    fixed={"batchnorm": "eval"},
    changes=lambda profile: experiments.trained(profile, 3),
)
"""This book's own method: AIM-Fair of a classifier that was trained three times as long as the profile says, with the
batch-norm statistics of the real faces kept. The combination that validation accuracy names on ``demo`` among all that read
no protected label; the chapter "Beyond the paper" says where it wins."""

ALL = {recipe.name: recipe for recipe in (OWN,)}
"""Every recipe by name; no method has one of these names."""


def names() -> list[str]:
    """What ``aimfair run`` can be asked for: methods, then recipes."""
    return [*methods.registry(), *ALL]


def resolve(name: str, study: Study) -> tuple[Study, str, dict[str, Any]]:
    """(the study to train in, name of the method, what is fixed of its hyper-parameters); of a method's own name the study
    as it is, and nothing fixed.

    Raises AimfairError, listing all, for a name that is neither.
    """
    if name in ALL:
        recipe = ALL[name]
        return study.varied(**recipe.changes(study.profile)), recipe.method, dict(recipe.fixed)
    if name not in methods.registry():
        raise AimfairError(f"no method {name!r}; there are: {', '.join(names())}")
    return study, name, {}
