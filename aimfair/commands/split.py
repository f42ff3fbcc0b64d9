"""``aimfair split``: which faces a study trains on and is tested on, as a list that others can compare theirs with."""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from typing import Any

from aimfair.commands._options import add, open_study
from aimfair.environment import home

# The library is imported inside the functions: `aimfair --help` must not wait for torch.

KNOWN = Path("data", "splits.csv")
"""The hashes of the splits behind the published runs, by profile."""


def command_split(options: argparse.Namespace) -> int:
    """Which faces a study has: the names of its training, validation and test faces, with a hash.

    $ aimfair split                                              how many, their hash, and whether they are the book's
    $ aimfair split --profile utkface --data path/to/utkface     is my copy split as the one behind the book's runs?
    $ aimfair split mine.csv --profile utkface --data path/to/utkface   write the list

    A file that is there is compared, never replaced: exit status 1 where it lists other faces. Nothing is decoded,
    so this is the quickest check of a copy of the data."""
    from aimfair import sampling

    opened = open_study(options)
    names = {part: opened.catalogue.names[rows] for part, rows in opened.split.items()}
    digest = sampling.split_hash(names)
    print(f"{opened.profile.profile}: " + ", ".join(f"{len(members):,} {part}" for part, members in names.items()))
    print(f"sha256 {digest}")
    if options.file is None:
        return _compared_with_book(opened.profile, options.profile, digest)
    path = Path(options.file).expanduser()
    if path.exists():
        return _compared(path, names, sampling.read_split(path))
    sampling.write_split(path, names)
    print(f"written to {path}")
    return 0


def known() -> dict[str, str]:
    """The hash of each profile's split, from ``data/splits.csv``; nothing where there is no such file."""
    if not (home() / KNOWN).exists():
        return {}
    with (home() / KNOWN).open(newline="") as file:
        return {row["profile"]: row["sha256"] for row in csv.DictReader(file)}


def _compared_with_book(p: Any, named: str, digest: str) -> int:
    from aimfair.study import profiles

    usual = profiles.load(named)
    expected = known().get(usual.profile)
    if any(getattr(p, field) != getattr(usual, field) for field in profiles.REAL):
        print("The book has no such split to compare with: what decides it was changed.")
    elif expected is None:
        print(f"{KNOWN} has no split of this profile.")
    elif digest != expected:
        print(
            f"Not the faces behind the book's runs, which have {expected}: another version or a part of the data set?"
        )
        return 1
    else:
        print("The faces behind the book's runs.")
    return 0


def _compared(path: Path, names: Any, there: Any) -> int:
    """Say how the lists differ; 1 if they do."""
    differences = []
    for part in dict.fromkeys([*names, *there]):
        mine, listed = names.get(part, []), there.get(part, [])
        if list(mine) != list(listed):
            common = len(set(mine) & set(listed))
            order = ", in another order" if common == len(mine) == len(listed) else ""
            differences.append(
                f"  {part}: {len(listed):,} listed, {len(mine):,} here, {common:,} of them in both{order}"
            )
    if not differences:
        print(f"{path} lists the same faces")
        return 0
    print(f"{path} lists other faces; it was left as it is:", *differences, sep="\n")
    return 1


def register(commands: Any) -> None:
    """Add it to the commands."""
    sub = add(commands, command_split, study=True)
    sub.add_argument("file", nargs="?", metavar="FILE", help="CSV to write, or to compare with if it is there")
