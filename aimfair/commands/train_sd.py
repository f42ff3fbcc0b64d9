"""``aimfair train-sd``: the tiny Stable Diffusion of a profile."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from aimfair.commands._options import add, open_study
from aimfair.environment import AimfairError, home

# The library is imported inside the functions: `aimfair --help` must not wait for torch.


def command_train_sd(options: argparse.Namespace) -> None:
    """Train the tiny Stable Diffusion of a profile on its captioned corpus; ends with a folder that diffusers can load.

    $ aimfair train-sd --minutes 45 --out data/synthetic/my-sd
    $ aimfair train-sd --profile celeba-smiling-male --data path/to/celeba --out data/synthetic/my-celeba-sd
    $ aimfair train-sd --width 128 --minutes 120 --device cuda --out data/synthetic/my-wide-sd
    $ aimfair train-sd --steps 12000 4500 --out data/synthetic/my-sd     as many as the shipped model of drawn faces took

    How far a number of minutes goes depends on the machine. A number of steps is the same training everywhere, but for the
    rounding of another processor, which a long training amplifies. training.json in the folder says how many steps a training
    by the clock took: as many again make a similar one, whose learning rate does not follow the clock.

    The width is the number of channels of the first level of the U-Net; autoencoder and U-Net grow with it. The models that
    come with the book have 64 and 15 MB of weights. Wider ones want a GPU, or many hours; beyond 60 MB (a width of 128 has
    less) they are for your machine only and are not published with the book."""
    from aimfair.generate import tiny_sd
    from aimfair.study.pool import train_generator

    if options.width is not None and not options.out:
        raise AimfairError("--width makes another model than the profile's: name a folder for it with --out")
    width = tiny_sd.WIDTH if options.width is None else options.width
    tiny_sd.channels(width)  # refuses a width before anything is read
    changes = {"generator": str(Path(options.out).resolve())} if options.out else {}
    opened = open_study(options, changes | ({"generator_minutes": options.minutes} if options.minutes else {}))
    steps = tuple(options.steps) if options.steps else None
    if steps and (min(steps) < 1 or options.minutes):
        raise AimfairError("--steps takes two numbers above 0, and no --minutes beside them")
    p, out = opened.profile, home() / opened.profile.generator
    if out.exists():
        raise AimfairError(f"{p.generator} exists: name another folder with --out")
    if not p.corpus:
        raise AimfairError(
            f"profile {p.profile} names no corpus to train on: set -p corpus=faceworld, celeba or fairface"
        )
    print(f"The pipeline is in {train_generator(p, opened.device, opened.data_root, width, steps)}")


def register(commands: Any) -> None:
    """Add it to the commands."""
    train = add(commands, command_train_sd, study=True)
    train.add_argument("--minutes", type=float, help="how long to train (the profile's generator_minutes)")
    train.add_argument(
        "--steps", type=int, nargs=2, metavar=("A", "U"), help="of the autoencoder and the U-Net, in place of minutes"
    )
    train.add_argument("--width", type=int, help="channels of the first level, a multiple of 32 (64)")
    train.add_argument("--out", metavar="FOLDER", help="where the pipeline goes (the profile's generator)")
