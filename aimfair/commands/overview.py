"""``aimfair profiles`` and ``aimfair status``: what there is, and what is done."""

from __future__ import annotations

import argparse
from typing import Any

from aimfair.commands._options import add
from aimfair.environment import home

# The library is imported inside the functions: `aimfair --help` must not wait for torch.


def command_profiles(options: argparse.Namespace) -> None:
    """List the profiles in notebooks/profiles/.

    $ aimfair profiles"""
    from aimfair.study import profiles

    for name in profiles.available():
        p = profiles.load(name)
        print(f"{name:24} {p.dataset:10} {p.target} / {p.protected}, {p.train_images} training images, {p.backbone},")
        print(f"{'':24} {p.images_per_group} images per group by {p.generator}, {p.seeds} seed{'s' * (p.seeds > 1)}")


def command_status(options: argparse.Namespace) -> None:
    """Show what is done: chapters run and published, runs on this machine and in the repository, the built book.

    $ aimfair status"""
    from aimfair.book import chapters
    from aimfair.book.execution import stamp_of
    from aimfair.study import profiles, runs

    for name in profiles.available():
        stamps = [s for p in chapters.executed_folder(name).glob("*.ipynb") if (s := stamp_of(p))]
        copies = len(list(chapters.published_folder(name).glob("*.ipynb")))
        published = sum(1 for _ in runs.published_scores(home() / "data" / "published", name))
        print(f"{name:24} {len(stamps)} chapters run, {copies} in the book, {published} published runs")
    mine = len(list((home() / "data" / "runs").glob("*/config.json")))
    print(f"{'data/runs':24} {mine} runs of this machine")
    page = home() / "book" / "_build" / "html" / "index.html"
    print(f"{'book':24} {page if page.exists() else 'not built yet: aimfair build'}")


def register(commands: Any) -> None:
    """Add them to the commands."""
    add(commands, command_profiles)
    add(commands, command_status)
