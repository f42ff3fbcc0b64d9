"""The command ``aimfair audit``: what a synthetic set shows, and what it lacks."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from aimfair.commands._options import add, open_study
from aimfair.environment import AimfairError, home

# The library is imported inside the functions: `aimfair --help` must not wait for torch.

NO_LIMIT = 10**6


def command_audit(options: argparse.Namespace) -> None:
    """Audit a synthetic set: labels, variety, copies, nuisances, distance to real faces, usefulness, group by group.

    $ aimfair audit                                             the pool of the demo study, drawn first if need be
    $ aimfair audit -p selection=faithful                       what a rule selects from it
    $ aimfair audit --images some/folder                        images made elsewhere, for the task of the demo study
    $ aimfair audit --images some/folder --profile celeba-smiling-male --data path/to/celeba
    $ aimfair audit --images some/folder --profile utkface --data path/to/utkface
    $ aimfair audit --model sdxl                                the pool of another model
    $ aimfair audit --clip openai/clip-vit-base-patch32         CLIP as a second judge

    The judge knows what the profile's corpus looks like: photographs want a profile of photographs. Where that corpus is
    not on this disk, CLIP can judge alone.

    A folder made elsewhere holds its images in 0_0, 0_1, 1_0, 1_1 (target_protected), or those in a folder such as
    Smiling_Male; manifest.csv (path, target, protected, more) may say how each was made. `aimfair run METHOD
    -p generator=folder:PATH` trains on it. Tables, a contact sheet and a datasheet go to data/synthetic/audit/."""
    report(open_study(options, changes(options)), options, options.out, options.skip_broken)


def report(opened: Any, options: argparse.Namespace, out: str | None = None, skip_broken: bool = False) -> None:
    """Audit the synthetic set of a study as :func:`how` says, print what was found and keep it in ``out``."""
    from aimfair import plots
    from aimfair.audit import datasheet
    from aimfair.datasets._images import BrokenImage
    from aimfair.study.audit import audit_pool
    from aimfair.study.pool import pool_folder

    try:
        found = audit_pool(opened, options.clip or "", not options.no_training, skip_broken)
    except BrokenImage as error:
        of_pool = str(error).startswith(str(pool_folder(opened.profile)))
        raise AimfairError(f"{error}{', or leave it out with --skip-broken' if of_pool else ''}") from error
    name = f"{pool_folder(opened.profile).resolve().name}-{opened.profile.task}"
    if opened.profile.selection != "none":
        name += f"-{opened.profile.selection}"
    place = Path(out).expanduser() if out else home() / "data" / "synthetic" / "audit" / name
    images, titles = datasheet.tiles(found, opened.selected(opened.seed))
    paths = datasheet.write(found, plots.contact_sheet(images, titles, datasheet.COLUMNS), place)
    print(datasheet.shown(found))
    for line in datasheet.caveats(found):
        print(f"- {line}")
    print("\n" + "\n".join(map(str, paths)))


def check(opened: Any, options: argparse.Namespace) -> None:
    """Raises AimfairError where :func:`report` would miss a judge or the real faces: before hours of drawing."""
    from aimfair.study.audit import choose_judges

    choose_judges(opened, options.clip or "")
    opened.faces("validation")


def how(command: argparse.ArgumentParser) -> None:
    """Options that say how to audit."""
    command.add_argument("--clip", metavar="MODEL", help="folder or hub name of a CLIP model that judges, too or alone")
    command.add_argument("--no-training", action="store_true", help="do not train a classifier on the set")


def changes(options: argparse.Namespace) -> dict[str, Any]:
    """What ``--images`` changes of the profile: the whole folder is audited, whatever the profile takes of a pool."""
    if not options.images:
        return {}
    if options.model:
        raise AimfairError("--images and --model: one of the two says which images are audited")
    folder = Path(options.images).expanduser().resolve()
    folder = folder.parent if folder.name == "manifest.csv" else folder
    if not folder.is_dir():
        raise AimfairError(f"--images {options.images}: there is no such folder")
    given = [text.partition("=")[0] for text in options.parameters]
    return {"generator": f"folder:{folder}"} | ({} if "images_per_group" in given else {"images_per_group": NO_LIMIT})


def register(commands: Any) -> None:
    """Add it to the commands."""
    command = add(commands, command_audit, study=True, pool=True)
    command.add_argument("--images", metavar="FOLDER", help="a folder of images made elsewhere")
    command.add_argument(
        "--skip-broken", action="store_true", help="leave out images that cannot be decoded, and say so"
    )
    how(command)
    command.add_argument("--out", metavar="FOLDER", help="where the results go (data/synthetic/audit/...)")
