"""``aimfair book`` and ``aimfair build``: run the chapters, build the pages."""

from __future__ import annotations

import argparse
from typing import Any

from aimfair.commands._options import add, common_parameters
from aimfair.environment import home

# The library is imported inside the functions: `aimfair --help` must not wait for torch.


def command_book(options: argparse.Namespace) -> None:
    """Run every chapter of a profile by papermill, publish clean copies, build the book and check its pages.

    $ aimfair book                                                  the demo study, computed here
    $ aimfair book --everything                                     all its tables too, which takes many hours
    $ aimfair book --profile smoke                                  the same in small, to see that all works
    $ aimfair book --profile utkface --data path/to/UTKFace.tar.gz  real faces
    $ aimfair book --only 06 --reuse                                one chapter, from the published runs
    $ aimfair book --only 08 09 10 11 13 14 15 16 17 18 19 --reuse  the paper's tables and figures, from the published runs
    $ aimfair book -p train_images=2000 --seed 300                  a study of your own

    A chapter that was run before with the same code and parameters is not run again (--fresh: it is). Chapters whose runs
    take hours show the published ones where there are any (--everything: they compute their own, of one seed)."""
    from aimfair.book import build as book

    parameters = common_parameters(options) | {"reuse": options.reuse}
    how = {name: getattr(options, name) for name in ("only", "fresh", "everything", "timeout")}
    page = book.make(options.profile, parameters, **how)
    print(f"\nThe book is built. Open {page}")


def command_build(options: argparse.Namespace) -> None:
    """Build the book from the published copies in book/notebooks/, without running anything, and check its pages.

    $ aimfair build"""
    from aimfair.book import build as book

    print(f"The book is built. Open {book.build(home() / 'book')}")


def register(commands: Any) -> None:
    """Add them to the commands."""
    book = add(commands, command_book, study=True, pool=True)
    book.add_argument("--only", nargs="+", default=(), metavar="TEXT", help="only chapters whose name contains a TEXT")
    book.add_argument("--fresh", action="store_true", help="run chapters again that were already run")
    book.add_argument("--everything", action="store_true", help="compute also what takes hours")
    book.add_argument("--reuse", action="store_true", help="take published runs instead of computing everything here")
    book.add_argument("--timeout", type=float, metavar="SECONDS", help="the longest that one cell may take (no limit)")
    add(commands, command_build)
