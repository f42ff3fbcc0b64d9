"""``aimfair train-sd``: the tiny Stable Diffusion of a profile."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from aimfair.commands._options import add, open_study
from aimfair.errors import AimfairError
from aimfair.paths import home

# The library is imported inside the functions: `aimfair --help` must not wait for torch.


def command_train_sd(options: argparse.Namespace) -> None:
    """Train the tiny Stable Diffusion of a profile on its captioned corpus; ends with a folder that diffusers can load.

    $ aimfair train-sd --minutes 45 --out data/synthetic/my-sd
    $ aimfair train-sd --profile celeba-smiling-male --data path/to/celeba --out data/synthetic/my-celeba-sd"""
    from aimfair import synthetic

    changes = {"generator": str(Path(options.out).resolve())} if options.out else {}
    opened = open_study(options, changes | ({"generator_minutes": options.minutes} if options.minutes else {}))
    p, out = opened.profile, home() / opened.profile.generator
    if out.exists():
        raise AimfairError(f"{p.generator} exists: name another folder with --out")
    if not p.corpus:
        raise AimfairError(
            f"profile {p.profile} names no corpus to train on: set -p corpus=faceworld, celeba or fairface"
        )
    print(f"The pipeline is in {synthetic.generator(p, opened.device, opened.data_root)}")


def register(commands: Any) -> None:
    """Add it to the commands."""
    train = add(commands, command_train_sd, study=True)
    train.add_argument("--minutes", type=float, help="how long to train (the profile's generator_minutes)")
    train.add_argument("--out", metavar="FOLDER", help="where the pipeline goes (the profile's generator)")
