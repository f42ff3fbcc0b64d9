"""The command line: what ``aimfair`` and ``python -m aimfair`` call. The commands are the files of ``commands/``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from aimfair.commands import (
    audit,
    bench,
    book,
    generate,
    grid,
    measure,
    overview,
    prompts,
    run,
    split,
    tools,
    train_sd,
)
from aimfair.environment import AimfairError

ABOUT = """\
AIM-Fair as a research book that runs.

  aimfair book                      run the demo study and build the book
  aimfair lab                       open JupyterLab on the notebooks
  aimfair run aim-fair --seeds 100  train one method, print its fairness report
  aimfair test                      run all tests

Real faces from your disk:

  aimfair book --profile celeba-smiling-male --data path/to/celeba

aimfair COMMAND --help explains a command, with examples. `python -m aimfair` is the same as `aimfair`. Where output goes to
a file, long work writes a line about every minute to standard error; AIMFAIR_PROGRESS=off keeps it silent."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, 2 for what the user can mend, 130 after Ctrl-C, 141 where
    nobody reads the output to its end."""
    top = parser()
    options, more = top.parse_known_args(arguments)
    if getattr(options, "passes_on", False):
        options.arguments = more
    elif more:
        top.error(f"{' '.join(more)}: not an option of this command; see --help")
    try:
        status = options.command(options) or 0
        sys.stdout.flush()
        return status
    except AimfairError as error:
        print(f"\naimfair: {error}" if sys.stdout.isatty() else f"aimfair: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # who reads our output, such as head, has seen enough; nothing more can be said to it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        print("\nStopped. What was finished is kept: the same command goes on from there.", file=sys.stderr)
        return 130


def parser() -> argparse.ArgumentParser:
    """All commands with their options, in the order of ``aimfair --help``."""
    top = argparse.ArgumentParser("aimfair", description=ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.set_defaults(command=lambda options: top.print_help())
    commands = top.add_subparsers(title="commands", metavar="COMMAND")
    for file in (book, run, grid, measure, generate, audit, prompts, train_sd, bench, overview, split, tools):
        file.register(commands)
    return top
