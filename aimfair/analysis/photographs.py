"""The studies of photographs that chapters about drawn faces look at beside their own."""

from __future__ import annotations

from typing import Any

from aimfair.study import Study, open_study

STUDIES: dict[str, dict[str, Any]] = {
    "celeba-smiling-male": {"generator_minutes": 35.0},  # the generator of the runs of a longer trained baseline
    "utkface": {},
}
"""Profiles, each with what differs from its file."""


def beside(study: Study, names: list[str] | None = None) -> list[Study]:
    """``study`` first, then the :data:`STUDIES` (``names``: some of them), with the same device and place of runs.

    The main study alone has others beside it: with any other profile a chapter is about that one only. No photograph is
    needed for what is published.
    """
    if study.profile.profile != "demo":
        return [study]
    shared = {"device": str(study.device), "runs_root": str(study.runs_root)}
    wanted = {name: STUDIES[name] for name in names or STUDIES}
    return [study, *(open_study(name, changes=changed, **shared) for name, changed in wanted.items())]
