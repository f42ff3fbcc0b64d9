"""The command ``aimfair audit``: what a synthetic set shows, and what it lacks."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from aimfair.commands._options import add, open_study
from aimfair.errors import AimfairError
from aimfair.paths import home

# The library is imported inside the functions: `aimfair --help` must not wait for torch.

NO_LIMIT = 10**6


def command_audit(options: argparse.Namespace) -> None:
    """Audit a synthetic set: labels, variety, copies, nuisances, distance to real faces, usefulness, group by group.

    $ aimfair audit                                             the pool of the demo study, drawn first if need be
    $ aimfair audit -p selection=faithful                       what a rule selects from it
    $ aimfair audit --images some/folder                        images made elsewhere, for the task of the demo study
    $ aimfair audit --images some/folder --profile celeba-smiling-male --data path/to/celeba
    $ aimfair audit --clip openai/clip-vit-base-patch32         CLIP as a second judge

    The judge knows what the profile's corpus looks like: photographs want a profile of photographs.

    A folder made elsewhere holds its images in 0_0, 0_1, 1_0, 1_1 (target_protected), or those in a folder such as
    Smiling_Male; manifest.csv (path, target, protected, more) may say how each was made. `aimfair run METHOD
    -p generator=folder:PATH` trains on it. Tables, a contact sheet and a datasheet go to data/synthetic/audit/."""
    from aimfair.auditing import datasheet, pool_audit

    opened = open_study(options, changes(options))
    found = pool_audit.of_study(opened, options.clip or "", training=not options.no_training)
    name = Path(pool_audit.pool_folder(opened.profile)).resolve().name
    if opened.profile.selection != "none":
        name += f"-{opened.profile.selection}"
    out = Path(options.out).expanduser() if options.out else home() / "data" / "synthetic" / "audit" / name
    paths = datasheet.write(found, opened.selected(opened.seed), out)
    print(datasheet.shown(found))
    for line in datasheet.caveats(found):
        print(f"- {line}")
    print("\n" + "\n".join(map(str, paths)))


def changes(options: argparse.Namespace) -> dict[str, Any]:
    """What ``--images`` changes of the profile: the whole folder is audited, whatever the profile takes of a pool."""
    if not options.images:
        return {}
    folder = Path(options.images).expanduser().resolve()
    if not folder.is_dir():
        raise AimfairError(f"--images {options.images}: there is no such folder")
    given = [text.partition("=")[0] for text in options.parameters]
    return {"generator": f"folder:{folder}"} | ({} if "images_per_group" in given else {"images_per_group": NO_LIMIT})


def register(commands: Any) -> None:
    """Add it to the commands."""
    command = add(commands, command_audit, study=True)
    command.add_argument("--images", metavar="FOLDER", help="a folder of images made elsewhere")
    command.add_argument("--clip", metavar="MODEL", help="folder or hub name of a CLIP model")
    command.add_argument("--no-training", action="store_true", help="do not train a classifier on the set")
    command.add_argument("--out", metavar="FOLDER", help="where the results go (data/synthetic/audit/...)")
