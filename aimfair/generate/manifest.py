"""What a pool of images consists of: a job per image, a row per image that is drawn, and the settings that all share.

``manifest.csv`` has a row for each image that lies there whole. Rows are only ever appended, by one process at a time,
so that a run that is killed, or a disk that is full, costs the last row at most. ``settings.json`` beside it says how
the images were made.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import pandas as pd
from filelock import FileLock

from aimfair.environment import AimfairError
from aimfair.faces import GROUPS
from aimfair.prompts import Prompt

COLUMNS = ("path", "target", "protected", "prompt_id", "replicate", "seed", "prompt")
"""Columns of ``manifest.csv``; ``path`` is relative to it. A job with more fields than :class:`Job` has a column for each."""

SETTINGS = (
    "model",
    "revision",
    "scheduler",
    "steps",
    "guidance",
    "size",
    "negative_prompt",
    "drawn",
    "dtype",
    "arguments",
)
"""What ``settings.json`` says of a pool, and each row of an older manifest: ``size`` is the side of the files in pixels,
``drawn`` that of the model's own images, ``arguments`` what else the pipeline was called with."""

MAY_BE_UNKNOWN = ("revision", "drawn", "dtype", "arguments")
"""Settings that are empty where nobody knew them, so that an empty value says nothing."""

TEXTS = ("path", "prompt_id", "prompt", "face", *(set(SETTINGS) - {"steps", "guidance", "size"}))


@dataclass(frozen=True)
class Job:
    """One image to draw.

    pair       "<Target>_<Protected>", the folder of the task
    number     place of the image in its group; never changes when replicates are added
    replicate  how many images of the same prompt come before this one
    seed       of the image's own noise, 63 bits
    """

    pair: str
    number: int
    prompt_id: str
    prompt: str
    target: int
    protected: int
    replicate: int
    seed: int

    @property
    def path(self) -> str:
        """Where the image lies below the pool's folder, e.g. ``Smiling_Male/1_0/00042.png``."""
        return f"{self.pair}/{self.target}_{self.protected}/{self.number:05d}.png"


AnyJob = TypeVar("AnyJob", bound=Job)


def jobs(prompts: Sequence[Prompt], per_group: int, pair: str, draw: int = 0) -> list[Job]:
    """``per_group`` jobs for each of the four groups, spread evenly over the group's prompts.

    draw  another number gives every job another seed: another pool of the same prompts

    Raises AimfairError if a group has no prompt.
    """
    todo = []
    for target, protected in GROUPS:
        bank = [p for p in prompts if (p.target, p.protected) == (target, protected)]
        if not bank:
            raise AimfairError(
                f"no prompt for group ({target}, {protected}) of {pair}: a bank needs some for all four groups"
            )
        for number in range(per_group):
            replicate, place = divmod(number, len(bank))
            prompt = bank[place]
            key = f"{pair}|{target}_{protected}|{prompt.id}|{replicate}" + (f"|draw {draw}" if draw else "")
            todo.append(Job(pair, number, prompt.id, prompt.text, target, protected, replicate, hash_of(key)))
    return todo


def hash_of(key: str) -> int:
    """63 bits that look random and depend on the key alone."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big") >> 1


def read_manifest(folder: str | Path) -> pd.DataFrame:
    """One row per image of the pool in ``folder``, in the order they were drawn; empty if there is none yet.

    An older manifest has columns for its settings too. Raises AimfairError for a file that is damaged, or is no manifest.
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
    drawn = {path for path in read_manifest(folder)["path"] if (folder / path).exists()}
    return [job for job in todo if job.path not in drawn]


def tidy(folder: Path, todo: Sequence[Job]) -> None:
    """Write the manifest anew: without half a row, without rows whose image is gone, with a column for each field of
    ``todo``, and without the settings of an older manifest once they are in ``settings.json``."""
    rows = read_manifest(folder)
    rows = rows[rows["path"].map(lambda path: (folder / path).exists()).astype(bool)]
    unwanted = {f.name for f in fields(Job)} | set(SETTINGS if (folder / "settings.json").exists() else ())
    more = [*(vars(todo[0]) if todo else ()), *rows]
    names = dict.fromkeys([*COLUMNS, *(name for name in more if name not in unwanted)])
    partial = folder / "manifest.partial"
    rows.reindex(columns=list(names)).to_csv(partial, index=False, lineterminator="\n")
    partial.replace(folder / "manifest.csv")


def append(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add ``rows``, with the columns that the manifest has; several processes may do so at once.

    Half a row that a killed process left is cut off, and so is what a full disk left of these rows before the OSError is
    passed on.
    """
    with FileLock(folder / "rows.lock"), (folder / "manifest.csv").open("r+b", buffering=0) as stream:
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


def read_settings(folder: str | Path) -> dict[str, Any]:
    """How the images in ``folder`` were made, by the names of :data:`SETTINGS`; empty if there are none.

    Raises AimfairError for a file that is damaged.
    """
    folder, file = Path(folder), Path(folder) / "settings.json"
    rows = read_manifest(folder)
    if not any((folder / path).exists() for path in rows["path"]):
        return {}
    if not file.exists():
        return _settings_of_rows(rows)
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise AimfairError(f"{file} is damaged: mend it, or choose another folder for these images") from error


def write_settings(folder: Path, todo: Sequence[Job], settings: Mapping[str, Any]) -> None:
    """Keep ``settings``, of a pipeline that is about to draw ``todo``, in ``settings.json``; several processes may do so.

    Raises AimfairError as :func:`check_same` does.
    """
    with FileLock(folder / "rows.lock"):
        check_same(folder, todo, settings)
        kept = {name: value for name, value in read_settings(folder).items() if value != ""}
        dtypes = dict.fromkeys([*filter(None, kept.get("dtype", "").split(", ")), settings["dtype"]])
        told = {**settings, **kept, "dtype": ", ".join(dtypes)}
        partial = folder / "settings.partial"
        partial.write_text(json.dumps({name: told[name] for name in SETTINGS}, indent=1) + "\n", encoding="utf-8")
        partial.replace(folder / "settings.json")


def check_same(folder: Path, todo: Sequence[Job], settings: Mapping[str, Any]) -> None:
    """Raise AimfairError if images are there that were made with other settings, or an image of ``todo`` with another
    prompt or seed.

    ``settings`` are all, or those that are known before a model is loaded. The number format is not compared: a pool may
    be begun on a processor and finished on a GPU. Nor is what an older manifest does not record.
    """
    kept = read_settings(folder)
    for name, value in settings.items():
        unknown = name == "dtype" or name not in kept or (name in MAY_BE_UNKNOWN and kept[name] == "")
        if not unknown and kept[name] != value:
            _refuse(f"the images in {folder} were", name, kept[name], value)
    rows = {row["path"]: row for row in read_manifest(folder).to_dict("records")}
    for job in todo:
        row = rows.get(job.path, {})
        for name, value in vars(job).items():
            if name in row and not pd.isna(row[name]) and row[name] != value and (folder / job.path).exists():
                _refuse(f"{folder / job.path} was", name, row[name], value)


def _refuse(what: str, name: str, old: object, new: object) -> NoReturn:
    raise AimfairError(f"{what} made with {name} {old!r}, not {new!r}: choose another folder, or remove it")


def _settings_of_rows(rows: pd.DataFrame) -> dict[str, Any]:
    """The settings in the columns of an older manifest; what no row tells is left out, and rows that differ are joined."""
    found: dict[str, Any] = {}
    for name in (name for name in SETTINGS if name in rows):
        values = [value for value in rows[name].dropna().unique().tolist() if value != "" or name not in MAY_BE_UNKNOWN]
        if values:
            found[name] = values[0] if len(values) == 1 else ", ".join(map(str, values))
    return found
