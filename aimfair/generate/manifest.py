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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path, PurePosixPath
from types import NoneType
from typing import Any, TypeVar

import pandas as pd
from filelock import FileLock

from aimfair.environment import AimfairError, aside, reading
from aimfair.prompts import Label, Prompt

COLUMNS = ("path", "target", "protected", "prompt_id", "replicate", "seed", "prompt")
"""Columns of ``manifest.csv``; ``path`` is relative to it. A job with more fields than :class:`Job` has a column for each."""

SETTINGS: dict[str, Any] = {
    **{"model": str, "revision": str, "scheduler": str, "steps": int, "guidance": (int, float, NoneType), "size": int},
    **{"negative_prompt": str, "drawn": str, "dtype": str, "arguments": str},
}
"""What ``settings.json`` says of a pool: ``size`` is the side of the files in pixels, ``drawn`` that of the model's own
images, ``arguments`` what else the pipeline was called with."""


@dataclass(frozen=True)
class Job:
    """One image to draw."""

    pair: str  # "<Target>_<Protected>", the folder of the task
    number: int  # place of the image in its group; never changes when replicates are added
    prompt_id: str
    prompt: str
    target: Label
    protected: Label
    replicate: int  # how many images of the same prompt come before this one
    seed: int  # of the image's own noise, 63 bits

    @property
    def path(self) -> str:
        """Where the image lies below the pool's folder, e.g. ``Smiling_Male/1_0/00042.png``."""
        return str(PurePosixPath(self.pair, f"{self.target}_{self.protected}", f"{self.number:05d}.png"))


AnyJob = TypeVar("AnyJob", bound=Job)


def jobs(prompts: Sequence[Prompt], per_group: int, pair: str, draw: int = 0) -> list[Job]:
    """``per_group`` jobs for each target with each protected value, spread evenly over the group's prompts.

    draw  another number gives every job another seed: another pool of the same prompts

    Raises AimfairError if a group has no prompt.
    """
    todo = []
    targets, values = (list(dict.fromkeys(getattr(p, name) for p in prompts)) for name in ("target", "protected"))
    for target, protected in product(targets, values):
        bank = prompts_of(prompts, target, protected, pair)
        for number in range(per_group):
            replicate, place = divmod(number, len(bank))
            prompt = bank[place]
            key = f"{pair}|{target}_{protected}|{prompt.id}|{replicate}" + (f"|draw {draw}" if draw else "")
            todo.append(Job(pair, number, prompt.id, prompt.text, target, protected, replicate, hash_of(key)))
    return todo


def prompts_of(prompts: Sequence[Prompt], target: Label, protected: Label, pair: str) -> list[Prompt]:
    """The prompts of one group. Raises AimfairError if there is none."""
    bank = [p for p in prompts if (p.target, p.protected) == (target, protected)]
    if not bank:
        raise AimfairError(
            f"no prompt for group ({target}, {protected}) of {pair or 'the bank'}: every group needs some"
        )
    return bank


def hash_of(key: str) -> int:
    """63 bits that look random and depend on the key alone."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big") >> 1


def read_manifest(folder: str | Path, name: str = "manifest.csv") -> pd.DataFrame:
    """One row per image of the pool in ``folder``, in the order they were drawn; empty if there is none yet.

    name  "black.csv" for the images that came out black, of which there are no files
    Raises AimfairError for a file that is damaged, or is no manifest.
    """
    file, empty = Path(folder) / name, pd.DataFrame(columns=COLUMNS)
    if not (file.exists() and file.stat().st_size):
        return empty
    with reading(file, "mend it, or put it elsewhere, and what has no row is drawn again"):
        text = file.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1]  # a killed process may have left half a row
        if not whole.strip():
            return empty
        texts = dict.fromkeys(("path", "prompt_id", "prompt", "face"), str)
        rows = pd.read_csv(io.StringIO(whole), dtype=texts, keep_default_na=False)
        if "path" not in rows or (rows["path"] == "").any():
            raise ValueError("it is no manifest of aimfair: not every row has a path")
    return rows


def missing(todo: Sequence[AnyJob], folder: str | Path) -> list[AnyJob]:
    """The jobs that have no image with a manifest row in ``folder`` yet, and did not come out black."""
    done = {*drawn(folder)["path"], *(job.path for job in black(todo, folder))}
    return [job for job in todo if job.path not in done]


def black(todo: Sequence[AnyJob], folder: str | Path) -> list[AnyJob]:
    """The jobs that came out black: drawing them again would be in vain. None if no other image is there, because then
    it was the model."""
    rows = read_manifest(folder, "black.csv") if len(drawn(folder)) else pd.DataFrame(columns=COLUMNS)
    known = set(zip(rows["path"], rows["seed"], rows["prompt"], strict=True))
    return [job for job in todo if (job.path, job.seed, job.prompt) in known]


def drawn(folder: str | Path) -> pd.DataFrame:
    """The rows of :func:`read_manifest` whose image is there."""
    rows = read_manifest(folder)
    return rows[rows["path"].map(lambda path: (Path(folder) / path).exists()).astype(bool)]


def tidy(folder: Path, todo: Sequence[Job]) -> None:
    """Write the manifest anew: without half a row, without rows whose image is gone, and with a column for each field of
    ``todo`` that :class:`Job` does not have."""
    rows = drawn(folder)
    more = [name for job in todo[:1] for name in vars(job) if name not in Job.__dataclass_fields__]
    names = list(dict.fromkeys([*COLUMNS, *more, *rows]))
    tables = {"manifest.csv": rows, "black.csv": read_manifest(folder, "black.csv").head(None if len(rows) else 0)}
    for name, table in tables.items():
        with aside(folder / name) as partial:
            table.reindex(columns=names).to_csv(partial, index=False, lineterminator="\n")


def append(folder: Path, rows: Sequence[Mapping[str, Any]], name: str = "manifest.csv") -> None:
    """Add ``rows``, with the columns that the manifest has; several processes may do so at once.

    Half a row that a killed process left is cut off, and so is what a full disk left of these rows before the OSError is
    passed on.
    """
    with FileLock(folder / "rows.lock"), (folder / name).open("r+b", buffering=0) as stream:
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

    Raises AimfairError for a file that is damaged, and where there are images and no such file.
    """
    file = Path(folder) / "settings.json"
    if drawn(folder).empty:
        return {}
    if not file.exists():
        raise AimfairError(
            f"nobody knows how the images in {folder} were made, for {file.name} is gone: remove the folder"
        )
    with reading(file, "mend it, or choose another folder for these images"):
        settings = json.loads(file.read_text(encoding="utf-8"))
        if not all(isinstance(settings[name], kind) for name, kind in SETTINGS.items()):
            raise TypeError("a value is of another kind")
    return settings


def write_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Keep ``settings``, of a pipeline that is about to draw, in ``settings.json``; several processes may do so.

    Raises AimfairError as :func:`check_same` does.
    """
    with FileLock(folder / "rows.lock"):
        check_same(folder, (), settings)
        kept = read_settings(folder)
        dtypes = dict.fromkeys([*filter(None, kept.get("dtype", "").split(", ")), settings["dtype"]])
        merged = {**settings, "dtype": ", ".join(dtypes)}
        with aside(folder / "settings.json") as partial:
            partial.write_text(json.dumps({name: merged[name] for name in SETTINGS}, indent=1) + "\n", encoding="utf-8")


def check_same(folder: str | Path, todo: Sequence[Job], settings: Mapping[str, Any]) -> None:
    """Raise AimfairError if images are there that were made with other settings, or an image of ``todo`` with another
    prompt or seed.

    ``settings`` are all, or those that are known before a model is loaded. The number format is not compared: a pool may
    be begun on a processor and finished on a GPU.
    """
    kept, rows = read_settings(folder), {row["path"]: row for row in drawn(folder).to_dict("records")}
    compared = [
        (f"the images in {folder} were", name, kept[name], value)
        for name, value in settings.items()
        if kept.get(name) is not None and name != "dtype"  # nor a guidance without effect
    ]
    for job in todo:
        row = rows.get(job.path, {})
        was = f"{Path(folder) / job.path} was"
        compared += [(was, name, row[name], new) for name, new in vars(job).items() if not pd.isna(row.get(name))]
    for what, name, old, new in compared:
        if str(old) != str(new):  # a class may be called 1
            raise AimfairError(f"{what} made with {name} {old!r}, not {new!r}: choose another folder, or remove it")
