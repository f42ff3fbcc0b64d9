"""``aimfair run`` and ``aimfair publish``: train methods, pack their runs for every clone."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from aimfair.commands._options import add, chosen_seeds, open_study, pairs, tell_sizes
from aimfair.environment import AimfairError

if TYPE_CHECKING:
    from aimfair.methods import Method
    from aimfair.study import Study

# The library is imported inside the functions: `aimfair --help` must not wait for torch.


def command_run(options: argparse.Namespace) -> int:
    """Train methods with seeds, or find their finished runs, and print a fairness report of each on the test set.

    $ aimfair run erm aim-fair --seeds 100 200 300
    $ aimfair run full-finetuning --hyper lr=0.003
    $ aimfair run aim-fair --search --seeds all       every value with three seeds, then the best of them with all
    $ aimfair run --methods all --profile smoke       every registered method, in small
    $ aimfair run patient-aim-fair --search           this book's own method, a recipe: longer ERM, then AIM-Fair
    $ aimfair run erm --no-reuse                      train even where a published run exists
    $ aimfair run synthetic-only --model sdxl         with faces by another model, drawn first if need be

    Finished runs are kept in data/runs/ and found again: a stopped command goes on where it was. Of several methods
    one that fails is told, with exit status 1 at the end, and does not stop the others."""
    from aimfair import methods
    from aimfair.study import profiles, recipes

    names = [*options.names, *options.methods]
    if not names:
        raise AimfairError(f"which methods? all, or some of: {', '.join(recipes.names())}")
    opened = open_study(options)
    known = {name: recipes.resolve(name, opened) for name in (methods.registry() if "all" in names else names)}
    seeds = chosen_seeds(options.seeds, profiles.SEEDS, opened.profile.seeds)
    print(
        f"{'method':24} {'seed':>5} {'ACC':>6} {'WST':>6} {'EO max':>6} {'EO mean':>7} {'STD':>5}   (test set, per cent)"
    )
    given = pairs(options.hyper)
    failed: dict[str, list[str]] = {}  # methods by what was wrong
    for name, (lab, method, fixed) in known.items():
        try:
            _fit(name, lab, methods.get(method), seeds, {**fixed, **given}, options.search)
        except AimfairError as error:
            if len(known) == 1:
                raise
            failed.setdefault(str(error), []).append(name)
    for said, those in failed.items():
        print(f"failed: {', '.join(those)}: {said}", file=sys.stderr)
    return 1 if failed else 0


def _fit(name: str, opened: Study, method: Method, seeds: list[int], given: dict[str, Any], searched: bool) -> None:
    """Train ``method`` with each seed, and print a line for each run, with the ``name`` that was asked for."""
    from aimfair.study import search

    for seed in seeds:
        for hyper in search.wanted(opened, method.name, seed, **given) if searched else [given]:
            run = (opened.attempt if searched else opened.run)(method.name, seed, **hyper)
            report = run.report()
            scores = f"{report.acc:6.2f} {report.wst:6.2f} {report.eo_max:6.2f} {report.eo_mean:7.2f} {report.std:5.2f}"
            shown = [f"{k}={v}" for k, v in hyper.items() if k in given or k in method.search]
            if note := run.scores.get("note"):
                shown.append(f"note: {note}")
            print(f"{name:24} {seed:5} {scores}   {', '.join(shown)}", flush=True)


def command_publish(options: argparse.Namespace) -> None:
    """Pack all finished runs of a study into data/published/, where every clone of the repository finds them.

    $ aimfair publish
    $ aimfair publish --profile utkface --data path/to/UTKFace.tar.gz
    $ aimfair publish -p minority=1.0     a variation of a study goes into the same folder

    A run that is published already stays as it is: others may have started from it."""
    from aimfair.study import transfer

    opened = open_study(options)
    tell_sizes(opened.publish() + transfer.publish(opened))


def register(commands: Any) -> None:
    """Add them to the commands."""
    run = add(commands, command_run, study=True, pool=True)
    run.add_argument("names", nargs="*", metavar="METHOD", help="names of methods, or all")
    run.add_argument("--methods", nargs="+", default=[], metavar="METHOD", help="the same, as an option")
    run.add_argument("--seeds", nargs="+", default=["100"], help="seeds, or all (100)")
    run.add_argument("--hyper", nargs="+", default=[], metavar="NAME=VALUE", help="hyper-parameters of the method")
    run.add_argument(
        "--search",
        action="store_true",
        help="run each value of what is searched with the first three seeds, the best of them with others",
    )
    run.add_argument("--no-reuse", dest="reuse", action="store_false", help="do not look among the published runs")
    add(commands, command_publish, study=True, pool=True)
