"""``aimfair grid``: the runs of the paper's tables and figures, listed, computed, counted, shown."""

from __future__ import annotations

import argparse
import sys
from itertools import groupby
from typing import Any

from aimfair.commands._options import add, chosen_seeds, common_parameters, group_of, tell_sizes
from aimfair.environment import AimfairError

# The library is imported inside the functions: `aimfair --help` must not wait for torch.


def command_grid_list(options: argparse.Namespace) -> None:
    """Say what the paper's tables and figures consist of, as runs of a profile.

    $ aimfair grid list                          every table and figure
    $ aimfair grid list --table 6                one of them: settings, rows, what is searched
    $ aimfair grid list --figure 5 --long        each run with its id, and whether it is there
    $ aimfair grid list --beyond                 what the paper leaves open; --beyond factorial: one of these

    "5 x 3 + 7 seeds": what is searched has five values, which are tried with three seeds; the best is run with the other
    seven. A run that several tables show is one run, found again by the hash of its configuration."""
    from aimfair.study import grid

    for experiment, cells in grid_cells(options):
        print(f"\n{experiment.name}: {experiment.title}. {len(cells)} runs" + ("" if cells else " with this profile"))
        if options.long:
            known = grid.identified(cells, grid_machine(options))
            lacking = grid.missing(known, grid_machine(options))
            for identity, cell in known.items():
                print(f"  {identity}  {'missing' if identity in lacking else 'there':8} {grid.described(cell)}")
            continue
        for setting, changed in experiment.settings.items():
            print(f"  in {setting:38} {listed(changed)}".rstrip())
        for row in experiment.rows if cells else ():
            searched = seeds_of(row, sorted({cell.seed for cell in cells}), options.seeds_of_search)
            only = (
                f"  (in {' and '.join(row.settings)})" if len(row.settings) not in (0, len(experiment.settings)) else ""
            )
            print(
                f"    {row.title:38} {row.method:20} {searched:20}   {listed({**row.changes, **row.fixed})}{only}".rstrip()
            )


def command_grid_run(options: argparse.Namespace) -> int:
    """Compute the runs of tables and figures that are missing; first says what it will cost.

    $ aimfair grid run --table 6 --dry-run             what is missing, hours and gigabytes; nothing is started
    $ aimfair grid run --table 3 4 --figure 5          several at once; none named: all
    $ aimfair grid run --table 1 --methods erm jtt     some rows of a table
    $ aimfair grid run --beyond factorial --seeds 100 200 300   an experiment beyond the paper, three seeds
    $ aimfair grid run --workers 4                     four processes that share the cores (default: one per GPU)
    $ aimfair grid run --shard 3/8                     the third of eight parts: for the array jobs of a cluster
    $ aimfair grid run --dask tcp://scheduler:8786     on the workers of a Dask cluster
    $ aimfair grid run --dask slurm --workers 20       on twenty Slurm jobs, as ~/.config/dask/jobqueue.yaml says

    It may be stopped at any time and goes on where it was. What several runs share (synthetic faces, biased models,
    gradients) is computed once, whoever wants it. A run that fails is told at the end, with exit status 1, and does not
    stop the others. Dask is an extra: pip install 'aimfair[dask]'."""
    from aimfair.study import grid
    from aimfair.study.grid import costs

    machine = grid_machine(options)
    cells = grid.identified((cell for _, cells in grid_cells(options) for cell in cells), machine)
    if options.shard:
        cells = grid.shard(cells, *part(options.shard))
    lacking = grid.missing(cells, machine)
    todo = grid.graph(lacking, machine)
    hours, gigabytes = costs.estimate(todo.values(), machine, costs.rates(machine))
    print(f"{len(cells)} runs, {len(cells) - len(lacking)} are there, {len(lacking)} to compute", end="")
    print(f", and {len(todo) - len(lacking)} things that they share" if len(todo) > len(lacking) else "")
    if todo:
        spread = f" on {machine.workers} workers" if machine.workers > 1 else " on one worker"
        print(f"About {hours / machine.workers:.1f} hours{spread} and {gigabytes:.2f} GB")
    if options.dry_run or not todo:
        return 0
    failed = grid.compute(todo, machine)
    for outcome in failed:
        print(f"failed: {outcome.task}: {outcome.error}", file=sys.stderr)
    print(f"{len(todo) - len(failed)} done, {len(failed)} failed")
    return 1 if failed else 0


def command_grid_status(options: argparse.Namespace) -> None:
    """Show for each table and figure how many runs are there, how many are missing, and the hours that these need.

    $ aimfair grid status
    $ aimfair grid status --beyond --seeds 100 200 300     the experiments beyond the paper
    $ aimfair grid status --profile utkface --data path/to/UTKFace.tar.gz"""
    from aimfair.study import grid
    from aimfair.study.grid import costs

    machine = grid_machine(options)
    known = costs.rates(machine)
    everything: dict[str, Any] = {}
    print(f"{'':60} {'runs':>6} {'there':>6} {'missing':>7} {'hours':>6}")
    for experiment, cells in grid_cells(options):
        runs = grid.identified(cells, machine)
        everything |= runs
        status_line(f"{experiment.name:13} {experiment.title}", runs, machine, known)
    status_line("together, each run counted once", everything, machine, known)


def command_grid_table(options: argparse.Namespace) -> None:
    """Print a table from its finished runs, or write it as CSV, LaTeX (booktabs) or Markdown.

    $ aimfair grid table 3
    $ aimfair grid table 3 --out table3.tex
    $ aimfair grid table --figure 5 --out topk.csv --against "AIM-Fair, k = 55"   with paired differences to a row
    $ aimfair grid table --beyond scores --seeds 100 200 300                      an experiment beyond the paper

    Means over the seeds with 95 % intervals; of what a method searches, the best on the validation faces of three seeds. A row that
    has no runs says so, and runs that are missing are named."""
    from aimfair.study import grid, tables

    options.table += options.number
    chosen = grid_cells(options)
    if len(chosen) != 1:
        raise AimfairError(
            "one table at a time: name it, such as aimfair grid table 3 or aimfair grid table --figure 5"
        )
    ((experiment, cells),) = chosen
    summary, lacking = grid.summary(experiment, cells, grid_machine(options), options.against)
    if options.out:
        print(f"{experiment.name} is in {tables.export(summary, options.out, differences=bool(options.against))}")
    else:
        print(tables.text(summary, differences=bool(options.against)), end="")
    for (setting, row), absent in groupby(lacking, key=lambda cell: (cell.setting, cell.row)):
        seeds = [cell.seed for cell in absent]
        named = ", ".join(map(str, sorted(set(seeds))))
        print(f"missing: {experiment.name}, {setting}, {row}: {len(seeds)} runs, of seeds {named}", file=sys.stderr)


def command_grid_publish(options: argparse.Namespace) -> None:
    """Pack the finished runs that tables and figures show into data/published/, where every clone of the repository finds them.

    $ aimfair grid publish --table 6 7
    $ aimfair grid publish --beyond factorial
    $ aimfair grid publish                        all of the paper's

    As aimfair publish does it for one study; a table also has runs of its variations, such as another assumed ratio."""
    from aimfair.study.grid import study_of

    machine = grid_machine(options)
    cells = [cell for _, cells in grid_cells(options) for cell in cells]
    studies = {(cell.profile, cell.changes): study_of(cell, machine) for cell in cells}
    tell_sizes(dict.fromkeys(path for opened in studies.values() for path in opened.publish()))


def command_grid_report(options: argparse.Namespace) -> None:
    """Say which of the paper's claims stand in the finished runs, or write all its comparisons as CSV, LaTeX or Markdown.

    $ aimfair grid report
    $ aimfair grid report --beside celeba-smiling-male utkface
    $ aimfair grid report --out comparisons.csv     the paper's differences, ours with intervals, a verdict on each

    Nothing is computed: what has no run is counted as not run. The rule is that of the reproduction chapter."""
    import pandas as pd

    from aimfair.paper import comparisons, reading, report
    from aimfair.study import profiles, tables

    changes = {k: v for k, v in common_parameters(options).items() if k not in profiles.COMMON}
    machine = grid_machine(options)
    readings = [reading.read(options.profile, changes, machine)]
    readings += [reading.read(name, machine=machine) for name in options.beside]
    if options.out:
        every = pd.concat([comparisons.comparisons(reading) for reading in readings])
        every["verdict"] = every["verdict"].map(comparisons.WORDS)
        print(f"{len(every)} comparisons are in {tables.export(every, options.out)}")
    else:
        print(tables.text(report.claims(readings)), end="")


def part(text: str) -> tuple[int, int]:
    """``3/8`` -> (3, 8)."""
    number, _, of = text.partition("/")
    if not (number.isdigit() and of.isdigit()):
        raise AimfairError(f"--shard takes a part and the number of parts, such as 3/8, got {text}")
    return int(number), int(of)


def grid_cells(options: argparse.Namespace) -> list[tuple[Any, list[Any]]]:
    """The tables and figures that are asked for, each with its cells.

    Where none is named, all of the paper; experiments beyond it only with ``--beyond``."""
    from aimfair import methods
    from aimfair.paper import tables
    from aimfair.study import profiles, search
    from aimfair.study.grid import experiments

    changes = {k: v for k, v in common_parameters(options).items() if k not in profiles.COMMON}
    profile = profiles.load(options.profile, **changes)
    options.seeds_of_search = search.seeds(profile)
    wanted = [methods.get(name).name for name in options.methods]
    chosen = [] if options.beyond is None else tables.select(tables.beyond(profile), options.beyond)
    if options.table or options.figure or options.beyond is None:
        names = [f"Table {n}" for n in options.table] + [f"Figure {n}" for n in options.figure]
        chosen = tables.select(tables.all_of(profile), names) + chosen
    found = []
    for experiment in chosen:
        theirs = experiment.seeds(profile)
        seeds = [options.seed] if options.seed is not None else chosen_seeds(options.seeds, theirs, len(theirs))
        cells = experiments.cells(experiment, options.profile, changes, seeds)
        found.append((experiment, [cell for cell in cells if not wanted or cell.method in wanted]))
    return found


def grid_machine(options: argparse.Namespace) -> Any:
    """Where and how cells are looked up and computed."""
    from aimfair.environment import gpus
    from aimfair.study import profiles
    from aimfair.study.grid import Machine

    given = {k: v for k, v in common_parameters(options).items() if k in profiles.COMMON and k != "seed"}
    workers = getattr(options, "workers", None)
    if workers is None:
        workers = max(1, gpus(given.get("device", "auto")))
    if workers < 1:
        raise AimfairError(f"--workers {workers}: at least one is needed")
    return Machine(**given, reuse=options.reuse, workers=workers, dask=getattr(options, "dask", ""))


def listed(values: dict[str, Any]) -> str:
    """``{"k": 55, "lr": 0.01}`` -> "k=55, lr=0.01"."""
    return ", ".join(f"{name}={value}" for name, value in values.items())


def seeds_of(row: Any, seeds: list[int], first: tuple[int, ...]) -> str:
    """How many runs a row has: "10 seeds", or where it searches five values "5 x 3 + 7 seeds"."""
    from aimfair.progress import in_words

    values, tried = len(row.configurations()), sum(seed in first for seed in seeds)
    if values == 1 or not tried:
        return in_words(len(seeds), "seed")
    return f"{values} x {tried}" + (f" + {len(seeds) - tried} seeds" if len(seeds) > tried else " seeds")


def status_line(title: str, cells: dict[str, Any], machine: Any, known: dict[Any, float]) -> None:
    """One line of ``aimfair grid status``."""
    from aimfair.study import grid
    from aimfair.study.grid import costs

    lacking = grid.missing(cells, machine)
    hours, _ = costs.estimate(grid.graph(lacking, machine).values(), machine, known)
    print(f"{title:60} {len(cells):6} {len(cells) - len(lacking):6} {len(lacking):7} {hours:6.1f}", flush=True)


def register(commands: Any) -> None:
    """Add ``aimfair grid`` and its parts to the commands."""
    parts = group_of(commands, "grid", "The runs of the paper's tables and figures", "What is to be run.")
    report = add(parts, command_grid_report, study=True, group="grid")
    report.add_argument("--beside", nargs="+", default=[], metavar="PROFILE", help="further studies, a column each")
    report.add_argument("--no-reuse", dest="reuse", action="store_false", help="do not look among the published runs")
    report.add_argument("--out", metavar="FILE", help="a file that ends in .csv, .tex or .md: all comparisons")
    for command in (command_grid_list, command_grid_run, command_grid_status, command_grid_table, command_grid_publish):
        sub = add(parts, command, study=True, group="grid")
        sub.add_argument(
            "--table", nargs="+", type=int, default=[], metavar="N", help="numbers of the paper's tables (all)"
        )
        sub.add_argument("--figure", nargs="+", type=int, default=[], metavar="N", help="numbers of its figures (all)")
        sub.add_argument("--beyond", nargs="*", metavar="NAME", help="experiments beyond the paper (all of them)")
        if command is command_grid_publish:
            sub.set_defaults(methods=[], seeds=["all"], reuse=True)
            continue
        sub.add_argument("--methods", nargs="+", default=[], metavar="METHOD", help="only the runs of these methods")
        sub.add_argument("--seeds", nargs="+", default=["all"], help="seeds, or all of the table (all)")
        sub.add_argument("--no-reuse", dest="reuse", action="store_false", help="do not look among the published runs")
        if command is command_grid_list:
            sub.add_argument("--long", action="store_true", help="each run with its id, and whether it is there")
        if command is command_grid_run:
            sub.add_argument("--dry-run", action="store_true", help="say what it would cost, and stop")
            sub.add_argument("--workers", type=int, metavar="N", help="processes, or jobs of a cluster (one per GPU)")
            sub.add_argument("--shard", default="", metavar="I/N", help="only part I of N, counted from 1")
            sub.add_argument("--dask", default="", metavar="WHERE", help="tcp://HOST:PORT of a scheduler, or slurm")
        if command is command_grid_table:
            sub.add_argument("number", nargs="*", type=int, metavar="N", help="number of the table")
            sub.add_argument("--out", metavar="FILE", help="a file that ends in .csv, .tex or .md")
            sub.add_argument("--against", metavar="ROW", help="title of a row: paired differences of the others to it")
