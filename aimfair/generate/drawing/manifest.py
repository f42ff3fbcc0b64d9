"""The manifest of a pool: a row for each image that lies there whole, which says how it was made.

Rows are only ever appended, by one process at a time, so that a run that is killed, or a disk that is full, costs the
last row at most.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
from filelock import FileLock

from aimfair.environment import AimfairError
from aimfair.generate.drawing.jobs import Job

AnyJob = TypeVar("AnyJob", bound=Job)

SETTINGS = (
    *("model", "revision", "scheduler", "steps", "guidance", "size", "negative_prompt", "drawn", "dtype"),
    "arguments",
)
"""Shared by all images of a run; ``size`` is the side of the file in pixels, ``drawn`` that of the model's own image,
``arguments`` what else the pipeline was called with."""

UNTOLD = ("revision", "drawn", "arguments")
"""Settings that may be empty because nobody could tell them, or because an older manifest has no column for them."""

COLUMNS = ("path", "target", "protected", "prompt_id", "replicate", "seed", "prompt", *SETTINGS)
"""Columns of ``manifest.csv``; ``path`` is relative to it. A job with more fields than :class:`Job` has a column for each."""

TEXTS = "path prompt_id prompt face model revision scheduler negative_prompt drawn dtype arguments".split()


def read_manifest(folder: str | Path) -> pd.DataFrame:
    """One row per image of the pool in ``folder``, in the order they were drawn; empty if there is none yet.

    Settings that an older manifest does not record are left out. Raises AimfairError for a file that is damaged, or is no
    manifest.
    """
    file = Path(folder) / "manifest.csv"
    if not file.exists():
        return pd.DataFrame(columns=COLUMNS)
    unknown = {name: [""] for name in ("steps", "guidance", "size")}
    try:
        text = file.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1]  # a killed process may have left half a row
        if not whole.strip():
            return pd.DataFrame(columns=COLUMNS)
        rows = pd.read_csv(
            io.StringIO(whole), dtype=dict.fromkeys(TEXTS, str), na_values=unknown, keep_default_na=False
        )
        if "path" not in rows or (rows["path"] == "").any():
            raise ValueError("not every row has a path")
    except ValueError as error:  # of the encoding and of pandas too
        reason = " ".join(str(error).split())[:150]
        raise AimfairError(
            f"{file} is damaged, or not a manifest of aimfair ({reason}): mend it, or put it elsewhere, and what has no "
            "row is drawn again"
        ) from error
    return rows


def missing(todo: Iterable[AnyJob], folder: str | Path) -> list[AnyJob]:
    """The jobs that have no image with a manifest row in ``folder`` yet."""
    folder = Path(folder)
    there = {path for path in read_manifest(folder)["path"] if (folder / path).exists()}
    return [job for job in todo if job.path not in there]


def append(folder: Path, rows: Sequence[Mapping[str, Any]], allowed: Callable[[], bool] = lambda: True) -> None:
    """Add ``rows``, with the columns that the manifest has; several processes may do so at once.

    Half a row that a killed process left is cut off, and so is what a full disk left of these rows before the OSError is
    passed on. Nothing is written unless ``allowed()``, asked when it is our turn.
    """
    path = folder / "manifest.csv"
    with FileLock(folder / "rows.lock"), path.open("r+b", buffering=0) as stream:
        if not allowed():
            return
        names = next(csv.reader([stream.read(2**16).split(b"\n")[0].decode()]))
        tail = stream.seek(max(0, stream.seek(0, 2) - 2**16))
        end = tail + stream.read().rfind(b"\n") + 1
        stream.truncate(end)
        stream.seek(end)
        text = io.StringIO()
        csv.DictWriter(text, names, restval="", extrasaction="ignore", lineterminator="\n").writerows(rows)
        left = memoryview(text.getvalue().encode())
        try:
            while left:
                left = left[stream.write(left) or 0 :]
        except OSError:
            stream.truncate(end)
            raise


def tidy(folder: Path, columns: Sequence[str]) -> None:
    """Write the manifest anew with a header, without half a row and without rows whose image is gone.

    Columns that it has already stay, also where these jobs have none for them.
    """
    rows = read_manifest(folder)
    rows = rows[rows["path"].map(lambda path: (folder / path).exists()).astype(bool)]
    names = [*columns, *(name for name in rows.columns if name not in columns)]
    partial = folder / "manifest.partial"
    rows.reindex(columns=names).to_csv(partial, index=False, lineterminator="\n")
    partial.replace(folder / "manifest.csv")


def same_settings(folder: Path, todo: Sequence[Job], settings: Mapping[str, Any]) -> None:
    """Raise AimfairError if an image of ``todo`` is there but was made in another way.

    ``settings`` are all, or those that are known before a model is loaded. The number format is not compared: a pool may be
    begun on a processor and finished on a GPU. Nor is what an older manifest does not record.
    """
    rows = {row["path"]: row for row in read_manifest(folder).to_dict("records")}
    for job in todo:
        if (row := rows.get(job.path)) is None:
            continue
        own = {name: value for name, value in vars(job).items() if name in row}
        for name, value in {**settings, **own}.items():
            unknown = name not in row or pd.isna(row[name]) or (name in UNTOLD and row[name] == "")
            if name != "dtype" and not unknown and row[name] != value and (folder / job.path).exists():
                raise AimfairError(
                    f"{folder / job.path} was made with {name} {row[name]!r}, not {value!r}: choose another folder, or remove it"
                )
