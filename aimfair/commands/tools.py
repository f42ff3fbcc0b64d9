"""``aimfair refresh``, ``test`` and ``lab``: for those who work on the notebooks and the library."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

from aimfair.commands._options import add
from aimfair.environment import child_environment, home

# The library is imported inside the functions: `aimfair --help` must not wait for torch.


def command_refresh(options: argparse.Namespace) -> None:
    """Run notebooks with their default parameters and store the outputs in them: the reference that nbval compares with.

    $ aimfair refresh                                        all of notebooks/
    $ aimfair refresh notebooks/01_fairness_metrics.ipynb

    Time stamps and other traces of the run are stripped, so a changed byte means a changed result."""
    from aimfair.book.execution import refresh

    for path in options.notebooks or sorted((home() / "notebooks").glob("*.ipynb")):
        print(f"{Path(path).name}: {'changed' if refresh(Path(path)) else 'unchanged'}", flush=True)


def command_test(options: argparse.Namespace) -> int:
    """Run all tests: the library, every notebook against its stored outputs, the book. Arguments go to pytest.

    Files are shared out among as many processes as there are cores, four at most; -n 0 keeps them in one.

    $ aimfair test
    $ aimfair test tests/test_metrics.py
    $ aimfair test -k gradients -x -n 0"""
    from aimfair.environment import cores

    print("Running the tests: the library, the notebooks, the book. This takes about thirteen minutes.", flush=True)
    shared_out = ["-n", str(min(4, cores())), "--dist", "loadfile"]
    with child_environment(OMP_NUM_THREADS="1"):  # threads of several processes get in each other's way
        return subprocess.call([sys.executable, "-m", "pytest", *shared_out, *options.arguments], cwd=home())


def command_lab(options: argparse.Namespace) -> int:
    """Open JupyterLab on the notebooks. Arguments go to JupyterLab.

    $ aimfair lab
    $ aimfair lab --no-browser --port 8890"""
    return subprocess.call([sys.executable, "-m", "jupyterlab", "notebooks", *options.arguments], cwd=home())


def register(commands: Any) -> None:
    """Add them to the commands; what ``test`` and ``lab`` do not know goes on to pytest and JupyterLab."""
    add(commands, command_refresh).add_argument(
        "notebooks", nargs="*", metavar="NOTEBOOK", help="paths (all of notebooks/)"
    )
    for command in (command_test, command_lab):
        add(commands, command).set_defaults(passes_on=True)
