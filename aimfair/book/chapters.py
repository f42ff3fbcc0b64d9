"""The chapters of the book: which notebooks a profile has, and one run of them all, told on the terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from shutil import get_terminal_size
from typing import Any

from aimfair.book.execution import check_parameters, execute, is_current, notebook_parameters, stamp_of
from aimfair.book.notebook import read
from aimfair.environment import AimfairError, home
from aimfair.study import profiles
from aimfair.study.study import open_study

SPEAK_EVERY = 300.0
"""Seconds between the lines of progress where output goes to a file."""

CLEAR = "\r\033[K" if sys.stdout.isatty() else ""


def chapters(profile: str, only: Sequence[str] = ()) -> list[Path]:
    """Notebooks that are chapters of ``profile``, in reading order.

    A notebook may say in its metadata for which data sets it is, and for which profiles: ``{"aimfair": {"datasets":
    ["faceworld"], "profiles": ["demo", "smoke"]}}``; without that it is for all. ``only`` keeps those whose name
    contains one of these texts. See :func:`plan` for ``"long": true``. Raises AimfairError for a text that no name contains.
    """
    about = {"datasets": profiles.load(profile).dataset, "profiles": Path(profile).stem}
    found = []
    for path in sorted((home() / "notebooks").glob("*.ipynb")):
        wanted = read(path).metadata.get("aimfair", {})
        if all(any(fnmatch(name, p) for p in wanted.get(key, ["*"])) for key, name in about.items()):
            found.append(path)
    if not found:
        raise AimfairError(f"no chapter of profile {profile!r}")
    for text in only:
        if not any(text in path.stem for path in found):
            raise AimfairError(f"no chapter of profile {profile!r} has {text!r} in its name")
    return [path for path in found if not only or any(text in path.stem for text in only)]


def executed_folder(profile: str) -> Path:
    """Where papermill's outputs for ``profile`` (a name or a YAML file) lie, out of sight of git."""
    return home() / "data" / "runs" / "notebooks" / Path(profile).stem


def published_folder(profile: str) -> Path:
    """Where the clean copies lie that the book is built from."""
    folder, name = home() / "book" / "notebooks", Path(profile).stem
    return folder if name == profiles.MAIN else folder / name


def plan(notebooks: list[Path], parameters: Mapping[str, Any], everything: bool = False) -> dict[Path, dict[str, Any]]:
    """Parameters for each chapter, checked before anything runs.

    The common ones and the fields of the profile go to every chapter, others to those that declare them. A chapter
    whose runs take hours (``{"aimfair": {"long": true}}`` in its metadata) shows the published runs of the study, where
    there are any, even if ``reuse`` is False; ``everything`` has it compute its own. Raises AimfairError where no
    chapter declares a parameter, and for a value that the profile refuses.
    """
    shared = set(profiles.COMMON) | set(profiles.FIELDS)
    declared = {path: set(notebook_parameters(path)) for path in notebooks}
    for name in parameters:
        if name not in shared and not any(name in names for names in declared.values()):
            check_parameters(notebooks[0], {name: parameters[name]})
    planned = {p: {k: v for k, v in parameters.items() if k in shared or k in declared[p]} for p in notebooks}
    for path, given in planned.items():
        check_parameters(path, given)
    changes = {k: v for k, v in parameters.items() if k in profiles.FIELDS and k not in profiles.COMMON}
    study = open_study(parameters["profile"], changes=changes, device="cpu")
    if not everything and not parameters.get("reuse", True) and study.published("erm"):
        for path in planned:
            if read(path).metadata.get("aimfair", {}).get("long"):
                planned[path]["reuse"] = True
    return planned


def run(
    profile: str,
    parameters: Mapping[str, Any],
    *,
    only: Sequence[str] = (),
    fresh: bool = False,
    everything: bool = False,
    timeout: float | None = None,
) -> list[Path]:
    """Run the chapters of ``profile``, one after the other; returns the executed notebooks.

    A chapter that was already run with the same code and parameters is not run again unless ``fresh``; for
    ``everything`` see :func:`plan`. Shows on the terminal which chapter runs, and the time left judged by earlier runs.
    Raises AimfairError at the first that fails.
    """
    planned = plan(chapters(profile, only), {"profile": profile} | dict(parameters), everything)
    folder = executed_folder(profile)
    expected = [_known_seconds(path, profile, given) for path, given in planned.items()]
    print(f"Chapters of profile {profile}: {len(planned)}{_about(expected)}.", flush=True)
    if not parameters.get("reuse", True) and (long := [p.stem for p, given in planned.items() if given["reuse"]]):
        print(f"Shown from published runs, because their own take hours (--everything): {', '.join(long)}.")
    for i, (path, given) in enumerate(planned.items()):
        out, label = folder / path.name, f"[{i + 1}/{len(planned)}] {path.stem}"
        stamp = stamp_of(out)
        if stamp and not fresh and is_current(stamp, path, given):
            print(f"{label}: already run on {stamp.date} with this code and these parameters ({clock(stamp.seconds)})")
            continue
        stamp = execute(path, out, given, timeout=timeout, tell=show_progress(label, expected[i:]))
        print(f"{CLEAR}{label}: done in {clock(stamp.seconds)}", flush=True)
    return [folder / path.name for path in planned]


def clock(seconds: float) -> str:
    """Seconds as people say them: 48 s, 3 min 12 s, 1 h 05 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def show_progress(label: str, expected: Sequence[float | None]) -> Callable[[int, int, str], None]:
    """What :func:`~aimfair.book.execution.execute` calls while a chapter runs: on a terminal a line that is written over;
    where output goes to a file, a line at the start and every few minutes.

    expected  seconds that this chapter and those after it will take, as far as they are known
    """
    started = spoke = time.monotonic()
    if not CLEAR:
        print(f"{label}: running{_about(expected[:1])}", flush=True)

    def tell(done: int, total: int, doing: str) -> None:
        nonlocal spoke
        now = time.monotonic()
        at = f"cell {min(done + 1, total)} of {total}" if total else "starting"
        this = (expected[0] or 0) - (now - started)  # negative: it is slower than last time, so nothing is foretold
        left = None if None in expected or this < 0 else this + sum(filter(None, expected[1:]))
        guess = "" if left is None else f", about {clock(left)} left in all"
        line = f"{label}: {at}, {clock(now - started)}{guess}{f' ({doing})' if doing else ''}"
        if CLEAR:
            print(f"{CLEAR}{line[: get_terminal_size().columns - 1]}", end="", flush=True)
        elif now - spoke > SPEAK_EVERY:
            spoke = now
            print(line, flush=True)

    return tell


def _about(expected: Sequence[float | None]) -> str:
    return "" if None in expected else f", about {clock(sum(filter(None, expected)))} by their last runs"


def _known_seconds(path: Path, profile: str, given: Mapping[str, Any]) -> float | None:
    """How long the chapter took last time, computed or looked up as now: here, else where its published copy was run."""
    reuse = given.get("reuse", True)
    stamp = stamp_of(executed_folder(profile) / path.name)
    if stamp and stamp.parameters.get("reuse", True) == reuse:
        return stamp.seconds
    copy = published_folder(profile) / path.name
    facts = read(copy).metadata.get("aimfair", {}) if copy.exists() else {}
    return facts.get("seconds") if facts.get("reuse", True) == reuse else None
