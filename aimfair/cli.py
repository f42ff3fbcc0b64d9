"""The command line: what ``aimfair`` and ``python -m aimfair`` call. A command is a function; its docstring is its help."""

from __future__ import annotations

import argparse
import csv
import errno
import inspect
import io
import os
import re
import signal
import subprocess
import sys
import threading
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import groupby
from pathlib import Path
from time import perf_counter
from typing import Any

from aimfair.environment import NOT_WRITABLE, AimfairError, cores, home

# The library is imported inside the functions: `aimfair --help` must not wait for torch.

ABOUT = """\
AIM-Fair as a research book that runs.

  aimfair book                      run the demo study and build the book
  aimfair lab                       open JupyterLab on the notebooks
  aimfair run aim-fair --seeds 100  train one method, print its fairness report
  aimfair test                      run all tests

Real faces from your disk:

  aimfair book --profile celeba-smiling-male --data path/to/celeba

aimfair COMMAND --help explains a command, with examples. Where output goes to a file, long work writes a line about every
minute to standard error; AIMFAIR_PROGRESS=off keeps it silent."""

GROUPS = {"grid": "The runs of the paper's tables and figures", "prompts": "Prompt banks: show, check, write"}

Command = Callable[[Namespace], int | None]
Option = tuple[tuple[str, ...], dict[str, Any]]
COMMANDS: dict[str, tuple[Command, Sequence[Option]]] = {}


def option(*names: str, **settings: Any) -> Option:
    """An option or argument, as argparse takes it."""
    return names, settings


def command(name: str, *options: Option) -> Callable[[Command], Command]:
    """Make a function the command ``name`` ("grid run" is the command run of the group grid) with these options."""

    def keep(function: Command) -> Command:
        COMMANDS[name] = function, options
        return function

    return keep


STUDY = (
    option("--profile", default="demo", help="name of a profile, or the path of a YAML file (demo)"),
    option("--data", metavar="PATH", help="folder or archive of the real faces"),
    option("--device", help="auto, cpu, cuda, cuda:1 (auto)"),
    option("--seed", type=int, help="seed of a single run (100)"),
    option("--runs", metavar="FOLDER", help="where runs are kept (data/runs)"),
    option("-p", dest="parameters", metavar="NAME=VALUE", action="append", default=[], help="change a parameter"),
)
POOL = (
    option("--model", metavar="NAME", help="text-to-image model: short name, folder or hub name: -p generator=NAME"),
    option("--draw", type=int, metavar="N", help="which draw of the synthetic faces: -p draw=N (0)"),
)
SEEDS = option("--seeds", nargs="+", default=["100"], help="seeds, or all (100)")
REUSE = option("--no-reuse", dest="reuse", action="store_false", help="do not look among the published runs")
TABLES = (
    option("--table", nargs="+", type=int, default=[], metavar="N", help="numbers of the paper's tables (all)"),
    option("--figure", nargs="+", type=int, default=[], metavar="N", help="numbers of its figures (all)"),
    option("--beyond", nargs="*", metavar="NAME", help="experiments beyond the paper (all of them)"),
)
GRID = (
    *STUDY,
    *TABLES,
    option("--methods", nargs="+", default=[], metavar="METHOD", help="only the runs of these methods"),
    option("--seeds", nargs="+", default=["all"], help="seeds, or all of the table (all)"),
    REUSE,
)
JUDGING = (
    option("--clip", metavar="MODEL", help="folder or hub name of a CLIP model that judges, too or alone"),
    option("--no-training", action="store_true", help="do not train a classifier on the set"),
)
TOKENIZER = option("--tokenizer", metavar="MODEL", help="count tokens as this text-to-image model does")


# ------------------------------------------------------------------------------------------ what common options mean


def parse_pairs(given: Sequence[str]) -> dict[str, Any]:
    """``["lr=0.01", "batchnorm=eval"]`` -> {"lr": 0.01, "batchnorm": "eval"}; values are numbers, true, false or text."""
    found: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not (equals and name.isidentifier()):
            raise AimfairError(f"{text!r} is not of the form name=value")
        found[name] = {"true": True, "false": False}.get(value.lower(), value)
        for kind in (float, int):
            with suppress(ValueError):
                found[name] = kind(value)
    return found


def read_parameters(options: Namespace) -> dict[str, Any]:
    """The parameters that every notebook shares, as far as they were given, and those of ``-p``."""
    given = parse_pairs(options.parameters)
    for name, why in (
        ("profile", "a profile is named by --profile"),
        ("reuse", "published runs are left out by --no-reuse, and book takes them by --reuse"),
    ):
        if name in given:
            raise AimfairError(f"-p {name}={given[name]}: {why}")
    for name in ("seed", "device", "draw"):
        if getattr(options, name, None) is not None:
            given[name] = getattr(options, name)
    if not isinstance(seed := given.get("seed", 0), int) or seed < 0:
        raise AimfairError(f"--seed {seed}: a seed is a whole number, 0 or more")
    if options.data and not Path(options.data).expanduser().exists():
        raise AimfairError(f"--data {options.data}: there is no such file or folder")
    # Paths in full, because notebooks run in a folder of their own.
    for name, path in (("data_root", options.data), ("runs_root", options.runs)):
        if path:
            given[name] = str(Path(path).expanduser().resolve())
    if model := getattr(options, "model", None):
        path = Path(model).expanduser()
        given["generator"] = str(path.resolve()) if path.is_dir() and not (home() / path).is_dir() else model
    if options.profile.endswith((".yaml", ".yml")):
        options.profile = str(Path(options.profile).expanduser().resolve())
    return given


def split_parameters(options: Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """What was given, told apart: changes of the profile's fields, and where and how to compute."""
    from aimfair.study import profiles

    given = read_parameters(options) | {"reuse": getattr(options, "reuse", True)}
    common = {name: given.pop(name) for name in list(given) if name in profiles.COMMON}
    typed = {"generator": f"--model {getattr(options, 'model', '')}", "draw": f"--draw {given.get('draw')}"}
    typed |= {text.partition("=")[0]: f"-p {text}" for text in options.parameters}
    try:
        profiles.load(options.profile, **given)
    except AimfairError as error:  # names a wrong value as it was typed
        place = re.compile(rf"^parameter(?=: (?:unknown key ')?({'|'.join(typed)})\b)", re.MULTILINE)
        raise AimfairError(place.sub(lambda found: typed[found[1]], str(error))) from error
    return given, common


def open_study(options: Namespace, **changes: Any) -> Any:
    """The study that the common options describe, with further changes of its profile."""
    from aimfair import study

    given, common = split_parameters(options)
    return study.open_study(options.profile, changes=given | changes, **common)


def open_machine(options: Namespace) -> Any:
    """Where and how the cells of tables are looked up and computed."""
    from aimfair.environment import gpus
    from aimfair.study.grid import Machine

    _, common = split_parameters(options)
    common.pop("seed", None)
    workers = getattr(options, "workers", None)
    workers = (gpus(common.get("device", "auto")) or cores()) if workers is None else workers
    if workers < 1:
        raise AimfairError(f"--workers {workers}: at least one is needed")
    return Machine(**common, workers=workers, dask=getattr(options, "dask", ""))


def read_seeds(given: Sequence[str], known: Sequence[int]) -> list[int]:
    """Seeds as numbers, each once; ``all`` are the known ones."""
    if list(given) == ["all"]:
        return list(known)
    if not all(text.isdigit() for text in given):
        raise AimfairError(f"--seeds takes whole numbers or the word all, got {' '.join(given)}")
    return list(dict.fromkeys(map(int, given)))


def read_cells(options: Namespace) -> list[tuple[Any, list[Any]]]:
    """The tables and figures that are asked for, each with its cells: all of the paper where none is named."""
    from aimfair import methods
    from aimfair.paper import tables
    from aimfair.study import profiles
    from aimfair.study.grid import experiments

    changes, _ = split_parameters(options)
    profile = profiles.load(options.profile, **changes)
    wanted = [methods.get(name).name for name in getattr(options, "methods", [])]
    chosen = [] if options.beyond is None else tables.select(tables.beyond(profile), options.beyond)
    if options.table or options.figure or options.beyond is None:
        names = [f"Table {n}" for n in options.table] + [f"Figure {n}" for n in options.figure]
        chosen = tables.select(tables.all_of(profile), names) + chosen
    given = getattr(options, "seeds", ["all"]) if options.seed is None else [str(options.seed)]
    found = []
    for experiment in chosen:
        cells = experiments.cells(experiment, options.profile, changes, read_seeds(given, experiment.seeds(profile)))
        found.append((experiment, [cell for cell in cells if not wanted or cell.method in wanted]))
    return found


HEAD = f"{'ACC':>6} {'WST':>6} {'EO max':>6} {'EO mean':>7} {'STD':>5}"


def show_report(report: Any) -> str:
    """A fairness report below :data:`HEAD`."""
    return f"{report.acc:6.2f} {report.wst:6.2f} {report.eo_max:6.2f} {report.eo_mean:7.2f} {report.std:5.2f}"


# --------------------------------------------------------------------------------------------------------- the book


@command(
    "book",
    *STUDY,
    *POOL,
    option("--only", nargs="+", default=(), metavar="TEXT", help="only chapters whose name contains a TEXT"),
    option("--fresh", action="store_true", help="run chapters again that were already run"),
    option("--everything", action="store_true", help="compute also what takes hours"),
    option("--reuse", action="store_true", help="take published runs instead of computing everything here"),
    option("--timeout", type=float, metavar="SECONDS", help="the longest that one cell may take (no limit)"),
)
def book(options: Namespace) -> None:
    """Run every chapter of a profile by papermill, publish clean copies and build the book.

    $ aimfair book                                                  the demo study, computed here
    $ aimfair book --profile utkface --data path/to/UTKFace.tar.gz  real faces (--profile smoke: all in small)
    $ aimfair book --only 06 08 --reuse                             two chapters, from the published runs

    A chapter that was run before with the same code and parameters is not run again. Chapters whose runs take hours show
    the published ones where there are any."""
    from aimfair.book.build import make

    parameters = read_parameters(options) | {"reuse": options.reuse}
    how = {name: getattr(options, name) for name in ("only", "fresh", "everything", "timeout")}
    print(f"\nThe book is built. Open {make(options.profile, parameters, **how)}")


@command("build")
def build(options: Namespace) -> None:
    """Build the book from the published copies in book/notebooks/, without running anything.

    $ aimfair build"""
    from aimfair.book.build import build

    print(f"The book is built. Open {build(home() / 'book')}")


# ------------------------------------------------------------------------------------------------- runs of a study


@command(
    "run",
    option("names", nargs="*", metavar="METHOD", help="names of methods, or all"),
    *STUDY,
    *POOL,
    SEEDS,
    REUSE,
    option("--methods", nargs="+", default=[], metavar="METHOD", help="the same, as an option"),
    option("--hyper", nargs="+", default=[], metavar="NAME=VALUE", help="hyper-parameters of the method"),
    option("--search", action="store_true", help="each value of what is searched, with the first three seeds"),
)
def run(options: Namespace) -> int:
    """Train methods with seeds, or find their finished runs, and print a fairness report of each on the test set.

    $ aimfair run erm full-finetuning --seeds 100 200 300 --hyper lr=0.003
    $ aimfair run aim-fair --search --seeds all       every value with three seeds, then the best of them with all
    $ aimfair run synthetic-only --model sdxl         with faces by another model, drawn first if need be

    Finished runs are kept in data/runs/ and found again: a stopped command goes on where it was. A method that fails
    does not stop the others: it is told at the end, with exit status 1."""
    from aimfair import methods
    from aimfair.study import profiles, recipes

    names = [*options.names, *options.methods]
    if not names:
        raise AimfairError(f"which methods? all, or some of: {', '.join(recipes.names())}")
    opened = open_study(options)
    known = {name: recipes.resolve(name, opened) for name in (methods.registry() if "all" in names else names)}
    seeds = read_seeds(options.seeds, profiles.SEEDS[: opened.profile.seeds])
    print(f"{'method':24} {'seed':>5} {HEAD}   (test set, per cent)")
    failed: dict[str, list[str]] = {}  # methods by what was wrong
    for name, (lab, method, fixed) in known.items():
        try:
            for line in run_lines(lab, methods.get(method), seeds, fixed | parse_pairs(options.hyper), options.search):
                print(f"{name:24} {line}", flush=True)
        except AimfairError as error:
            if len(known) == 1:
                raise
            failed.setdefault(str(error), []).append(name)
    for said, those in failed.items():
        print(f"failed: {', '.join(those)}: {said}", file=sys.stderr)
    return 1 if failed else 0


def run_lines(lab: Any, method: Any, seeds: Sequence[int], given: dict[str, Any], searched: bool) -> Iterable[str]:
    """Train ``method`` with each seed; a line for each run."""
    from aimfair.study import search

    for seed in seeds:
        for hyper in search.wanted(lab, method.name, seed, **given) if searched else [given]:
            found = (lab.attempt if searched else lab.run)(method.name, seed, **hyper)
            shown = [f"{k}={v}" for k, v in hyper.items() if k in given or k in method.search]
            shown += [f"note: {found.scores['note']}"] if found.scores.get("note") else []
            yield f"{seed:5} {show_report(found.report())}   {', '.join(shown)}"


@command(
    "measure",
    option("name", nargs="?", default="", metavar="NAME", help="what is measured (its names, if left out)"),
    option("methods", nargs="*", metavar="METHOD", help="methods whose classifiers are measured"),
    *STUDY,
    *POOL,
    SEEDS,
)
def measure(options: Namespace) -> None:
    """Measure something of a study beside trainings.

    $ aimfair measure                                     names of what can be measured; nothing is computed
    $ aimfair measure style-lean erm repairing            of the classifiers of these methods

    One run per seed (and method) is kept. Only ERM's weights are: any other classifier is trained again for this."""
    from aimfair.study import measurements, profiles

    if not options.name:
        print(*measurements.registry(), sep="\n")
        return
    opened = open_study(options)
    seeds = read_seeds(options.seeds, profiles.SEEDS[: opened.profile.seeds])
    for of in options.methods or [""]:
        for seed in seeds:
            scores = opened.measure(options.name, seed, **({"of": of} if of else {})).scores
            numbers = [f"{name} {value:.4g}" for name, value in scores.items() if isinstance(value, int | float)]
            print(f"{options.name:16} {of:24} {seed:5}   {', '.join(numbers)}", flush=True)


@command("publish", *STUDY, *POOL, *TABLES)
def publish(options: Namespace) -> None:
    """Pack all finished runs of a study into data/published/, where every clone of the repository finds them.

    $ aimfair publish -p minority=1.0     a variation of a study goes into the same folder
    $ aimfair publish --table 6 7         what these tables show: the study and its variations

    A run that is published already stays as it is: others may have started from it."""
    from aimfair.study.grid import study_of

    if options.table or options.figure or options.beyond is not None:
        machine = open_machine(options)
        cells = [cell for _, cells in read_cells(options) for cell in cells]
        studies = list({(cell.profile, cell.changes): study_of(cell, machine) for cell in cells}.values())
        written = [path for opened in studies for path in opened.publish()]
    else:
        written = open_study(options).publish()
    for path in dict.fromkeys(written):
        print(f"{path.relative_to(home())}  {path.stat().st_size / 1e6:.2f} MB")


# ------------------------------------------------------------------------------------ the paper's tables and figures


@command(
    "grid run",
    *GRID,
    option("--dry-run", action="store_true", help="say what it would cost, and stop"),
    option("--workers", type=int, metavar="N", help="processes, or jobs of a cluster (one per GPU, else one per core)"),
    option("--dask", default="", metavar="WHERE", help="tcp://HOST:PORT of a scheduler, or slurm"),
    option("--minutes", type=float, default=0.0, metavar="N", help="stop after so many minutes (when all is done)"),
    option("--commit-every", type=float, default=0.0, metavar="N", help="publish and commit what is done, in minutes"),
)
def grid_run(options: Namespace) -> int:
    """Compute the runs of tables and figures that are missing; first says what it will cost.

    $ aimfair grid run --table 6 --dry-run             what is missing, hours and gigabytes; nothing is started
    $ aimfair grid run --beyond factorial --seeds 100 200 300   an experiment beyond the paper, three seeds
    $ aimfair grid run --workers 4                     four processes that share the cores
    $ aimfair grid run --dask slurm --workers 20       on twenty Slurm jobs, as ~/.config/dask/jobqueue.yaml says
    $ aimfair grid run --minutes 120 --commit-every 20  for two hours; what is done is published and committed on the way

    It may be stopped at any time and goes on where it was. A run that fails does not stop the others: it is told at the
    end, with exit status 1. Slurm jobs need an extra: pip install 'aimfair[dask]'."""
    from aimfair.study import grid
    from aimfair.study.grid import costs

    machine = open_machine(options)
    cells = grid.identified((cell for _, cells in read_cells(options) for cell in cells), machine)
    missing = grid.missing(cells, machine)
    todo = grid.graph(missing, machine)
    hours, gigabytes = costs.estimate(todo.values(), machine, costs.rates(machine))
    shared = f", and {len(todo) - len(missing)} things that they share" if len(todo) > len(missing) else ""
    print(f"{len(cells)} runs, {len(cells) - len(missing)} are there, {len(missing)} to compute{shared}")
    if todo:
        spread = f" on {machine.workers} workers" if machine.workers > 1 else " on one worker"
        print(f"About {hours / machine.workers:.1f} hours{spread} and {gigabytes:.2f} GB")
    if options.dry_run or not todo:
        return 0
    began = perf_counter()

    def keep(always: bool = False) -> None:
        nonlocal began
        if options.commit_every and (always or perf_counter() - began > 60 * options.commit_every):
            began = perf_counter()
            if grid.publish(cells.values(), machine):
                still = len(grid.missing(cells, machine))
                message = f"Runs of {options.profile}: {len(cells) - still} of {len(cells)}"
                for words in (["add"], ["commit", "-q", "-m", message]):
                    subprocess.run(["git", "-C", str(home()), *words, "data/published"], check=False)

    failed = grid.compute(todo, machine, options.minutes, keep)
    keep(always=True)
    for outcome in failed:
        print(f"failed: {outcome.task}: {outcome.error}", file=sys.stderr)
    print(f"{len(todo) - len(failed)} done, {len(failed)} failed")
    return 1 if failed else 0


@command("grid status", *GRID, option("--long", action="store_true", help="each run with its id, there or missing"))
def grid_status(options: Namespace) -> None:
    """Show for each table and figure how many runs are there, how many are missing, and the hours that these need.

    $ aimfair grid status --table 6 --long                 each of its runs
    $ aimfair grid status --beyond --seeds 100 200 300     the experiments beyond the paper"""
    from aimfair.study import grid
    from aimfair.study.grid import costs

    machine = open_machine(options)
    known, everything = costs.rates(machine), dict[str, Any]()
    parts = [(f"{e.name:13} {e.title}", grid.identified(cells, machine)) for e, cells in read_cells(options)]
    print(f"{'':60} {'runs':>6} {'there':>6} {'missing':>7} {'hours':>6}")
    for _, cells in parts:
        everything |= cells
    for title, cells in [*parts, ("together, each run counted once", everything)]:
        missing = grid.missing(cells, machine)
        hours, _ = costs.estimate(grid.graph(missing, machine).values(), machine, known)
        print(f"{title:60} {len(cells):6} {len(cells) - len(missing):6} {len(missing):7} {hours:6.1f}", flush=True)
        for identity, cell in cells.items() if options.long and cells is not everything else ():
            print(f"  {identity}  {'missing' if identity in missing else 'there':8} {grid.described(cell)}")


@command(
    "grid table",
    option("number", nargs="*", type=int, metavar="N", help="number of the table"),
    *GRID,
    option("--out", metavar="FILE", help="a file that ends in .csv, .tex or .md"),
    option("--against", metavar="ROW", help="title of a row: paired differences of the others to it"),
)
def grid_table(options: Namespace) -> None:
    """Print a table from its finished runs, or write it as CSV, LaTeX (booktabs) or Markdown.

    $ aimfair grid table 3 --out table3.tex
    $ aimfair grid table --figure 5 --out topk.csv --against "AIM-Fair, k = 55"   with paired differences to a row

    Means over the seeds with 95 % intervals; of what a method searches, the best on the validation faces of three seeds."""
    from aimfair.study import grid, tables

    options.table = options.table + options.number  # never in place: the default belongs to every call
    chosen = read_cells(options)
    if len(chosen) != 1:
        raise AimfairError("one table at a time: such as aimfair grid table 3 or aimfair grid table --figure 5")
    ((experiment, cells),) = chosen
    summary, missing = grid.summary(experiment, cells, open_machine(options), options.against)
    if options.out:
        print(f"{experiment.name} is in {tables.export(summary, options.out, differences=bool(options.against))}")
    else:
        print(tables.text(summary, differences=bool(options.against)), end="")
    for (setting, row), absent in groupby(missing, key=lambda cell: (cell.setting, cell.row)):
        seeds = [cell.seed for cell in absent]
        named = ", ".join(map(str, sorted(set(seeds))))
        print(f"missing: {experiment.name}, {setting}, {row}: {len(seeds)} runs, of seeds {named}", file=sys.stderr)


@command(
    "grid report",
    *STUDY,
    REUSE,
    option("--beside", nargs="+", default=[], metavar="PROFILE", help="further studies, a column each"),
    option("--out", metavar="FILE", help="a file that ends in .csv, .tex or .md: all comparisons"),
)
def grid_report(options: Namespace) -> None:
    """Say which of the paper's claims stand in the finished runs, or write all its comparisons as CSV, LaTeX or Markdown.

    $ aimfair grid report --beside celeba-smiling-male utkface
    $ aimfair grid report --out comparisons.csv     the paper's differences, ours with intervals, a verdict on each

    Nothing is computed: what has no run is counted as not run."""
    import pandas as pd

    from aimfair.paper import comparisons, reading
    from aimfair.study import tables

    machine = open_machine(options)
    readings = [reading.read(options.profile, split_parameters(options)[0], machine)]
    readings += [reading.read(name, machine=machine) for name in options.beside]
    if not options.out:
        print(tables.text(comparisons.show_claims(readings)), end="")
        return
    every = pd.concat([comparisons.comparisons(reading) for reading in readings])
    every["verdict"] = every["verdict"].map(comparisons.WORDS)
    print(f"{len(every)} comparisons are in {tables.export(every, options.out)}")


# ---------------------------------------------------------------------------------------------------- synthetic faces


@command(
    "generate",
    *STUDY,
    *POOL,
    option("--out", metavar="FOLDER", help="where the images go (data/synthetic/...)"),
    option("--list-models", action="store_true", help="show the models that have a short name, and stop"),
    option("--dry-run", action="store_true", help="say what is there and what the rest takes, and stop"),
    option("--processes", type=int, metavar="N", help="how many draw at once (one per GPU)"),
    option("--batch-size", type=int, metavar="N", help="images at a time"),
    option("--dtype", help="float32, float16 or bfloat16"),
    option("--offload", action="store_true", help="parts of the model wait in main memory: for a small GPU"),
    option("--audit", action="store_true", help="then audit them; --seed and --runs are of the audit's training"),
    *JUDGING,
)
def generate(options: Namespace) -> None:
    """Draw the synthetic faces of a profile, or with any text-to-image pipeline of diffusers; resumable.

    $ aimfair generate --list-models                            models with a short name: licence, memory, settings
    $ aimfair generate --model sdxl --dry-run                   what is there, and what the rest takes
    $ aimfair generate --model stabilityai/sd-turbo -p steps=4 -p guidance=0 -p image_size=512 --out some/folder
    $ aimfair generate --profile paper-utkface --data path/to/utkface --audit   a balanced, audited set as the paper's

    Each image has its own seed, made of task, group, prompt and replicate: the same image whatever the batch, the order,
    the number of processes or of interruptions. manifest.csv in the folder has a row per image. A short name brings its
    own steps and guidance. For large images choose a profile whose name begins with paper-, or -p image_size=512."""
    import pandas as pd

    from aimfair.generate import presets
    from aimfair.generate.pipelines import Compute
    from aimfair.study import pool
    from aimfair.study.audit import choose_judges

    if options.list_models:
        columns = ["gigabytes", "size", "steps", "guidance", "licence", "model", "revision", "note"]
        print(pd.DataFrame({name: vars(presets.find(name)) for name in presets.available()}).T[columns].to_string())
        print("Gigabytes: weights in the GPU's memory, and about what is fetched. Read the licence first.")
        return
    for_audit = {"--clip": options.clip, "--no-training": options.no_training, "--runs": options.runs}
    for_audit["--seed"] = options.seed is not None
    if not options.audit and (named := [name for name, value in for_audit.items() if value]):
        another = "; another set of images is --draw 1" if "--seed" in named else ""
        raise AimfairError(f"{' and '.join(named)}: only with --audit{another}")
    names = ("dtype", "offload", "batch_size")
    compute = Compute(**{name: getattr(options, name) for name in names})
    opened = open_study(options)
    folder = Path(options.out).expanduser() if options.out else pool.pool_folder(opened.profile)
    if folder.exists() and not folder.is_dir():
        raise AimfairError(f"--out {options.out} is a file: name a folder")
    if options.dry_run:
        print(*pool.foresee_drawing(opened.profile, folder, opened.data_root), sep="\n")
        return
    if options.audit:  # a judge or real faces that are missing are told before hours of drawing
        choose_judges(opened, options.clip or "")
        opened.faces("validation")
    missing = len(pool.missing_images(opened.profile, pool.pool_jobs(opened.profile), folder))
    if missing:
        print(pool.foresee_drawing(opened.profile, folder, opened.data_root)[0], flush=True)
    began = perf_counter()
    pool.draw_pool(opened.profile, folder, opened.device, opened.data_root, compute, options.processes)
    took = perf_counter() - began
    if missing:
        print(f"{missing} images in {took:.0f} seconds, {missing / took:.2f} images/s with loading the model")
    print(f"The images and their manifest.csv are in {folder}", flush=True)
    if options.audit:
        elsewhere = {"generator": f"{pool.ELSEWHERE}{folder.resolve()}"} if options.out else {}
        report_audit(opened.varied(**elsewhere), options)


@command(
    "audit",
    *STUDY,
    *POOL,
    option("--images", metavar="FOLDER", help="a folder of images made elsewhere"),
    option("--skip-broken", action="store_true", help="leave out images that cannot be decoded, and say so"),
    *JUDGING,
    option("--out", metavar="FOLDER", help="where the results go (data/synthetic/audit/...)"),
)
def audit(options: Namespace) -> None:
    """Audit a synthetic set: labels, variety, copies, nuisances, distance to real faces, usefulness, group by group.

    $ aimfair audit -p selection=faithful         the pool of the demo study, drawn first if need be; what a rule selects
    $ aimfair audit --images some/folder --profile celeba-smiling-male --data path/to/celeba    images made elsewhere
    $ aimfair audit --model sdxl --clip openai/clip-vit-base-patch32    the pool of another model, CLIP as a second judge

    A folder made elsewhere holds its images in 0_0, 0_1, 1_0, 1_1 (target_protected) or in folders such as Smiling_Male;
    manifest.csv (path, target, protected, more) may say how each was made. Tables, a contact sheet and a datasheet go to
    data/synthetic/audit/. The judge knows the profile's corpus: photographs want a profile of photographs, or --clip."""
    changes: dict[str, Any] = {}
    if options.images:
        if options.model:
            raise AimfairError("--images and --model: one of the two says which images are audited")
        folder = Path(options.images).expanduser().resolve()
        folder = folder.parent if folder.name == "manifest.csv" else folder
        if not folder.is_dir():
            raise AimfairError(f"--images {options.images}: there is no such folder")
        changes["generator"] = f"folder:{folder}"
        if "images_per_group" not in parse_pairs(options.parameters):
            changes["images_per_group"] = 10**6  # the whole folder, whatever the profile takes of a pool
    report_audit(open_study(options, **changes), options, options.out, options.skip_broken)


def report_audit(opened: Any, options: Namespace, out: str | None = None, skip_broken: bool = False) -> None:
    """Audit the synthetic set of a study, print what was found and keep it in ``out``."""
    from aimfair import plots
    from aimfair.audit import datasheet
    from aimfair.datasets._images import BrokenImage
    from aimfair.study.audit import audit_pool
    from aimfair.study.pool import pool_folder

    folder, p = pool_folder(opened.profile), opened.profile
    try:
        found = audit_pool(opened, options.clip or "", not options.no_training, skip_broken)
    except BrokenImage as error:
        hint = ", or leave it out with --skip-broken" if str(error).startswith(str(folder)) else ""
        raise AimfairError(f"{error}{hint}") from error
    name = f"{folder.resolve().name}-{p.task}" + (f"-{p.selection}" if p.selection != "none" else "")
    place = Path(out).expanduser() if out else home() / "data" / "synthetic" / "audit" / name
    images, titles = datasheet.tiles(found, opened.selected(opened.seed), datasheet.COLUMNS)
    paths = datasheet.write(found, plots.contact_sheet(images, titles, datasheet.COLUMNS), place)
    print(datasheet.shown(found))
    print(*(f"- {line}" for line in datasheet.caveats(found)), "", *paths, sep="\n")


@command(
    "evaluate",
    option("predictions", type=Path, metavar="FILE", help="a table with a line per image: CSV of any separator"),
    option("--target", required=True, metavar="COLUMN", help="the true class"),
    option(
        "--predicted", required=True, metavar="COLUMN", help="the class that the model says; with --threshold a score"
    ),
    option("--group", nargs="+", required=True, metavar="COLUMN", help="protected attributes; several are crossed too"),
    option("--threshold", type=float, metavar="T", help="scores from here upwards say the second of the two classes"),
    option("--oracle", action="store_true", help="also: a threshold of its own for each group, chosen on these images"),
    option("--out", type=Path, metavar="FILE", help="the page to write (beside the table, NAME_fairness.html)"),
)
def evaluate(options: Namespace) -> None:
    """Report how fair the decisions of any model are, of any framework, with any number of classes and groups.

    $ aimfair evaluate predictions.csv --target y --predicted p --group sex race
    $ aimfair evaluate scores.csv --target smiling --predicted score --threshold 0.5 --oracle --group sex

    Accuracies of all cells with intervals, both forms of equalised odds, and which groups are too small to say."""
    from aimfair.practice import evaluation

    names = (options.target, options.predicted, options.group)
    print(evaluation.evaluate(options.predictions, *names, options.threshold, options.oracle, options.out))


@command(
    "repair",
    option("--images", required=True, type=Path, metavar="FOLDER", help="photographs, in a folder or a zip file"),
    option(
        "--labels", required=True, type=Path, metavar="FILE", help="a table with a line per image: CSV of any separator"
    ),
    option("--target", required=True, metavar="COLUMN", help="what the classifier says"),
    option("--protected", nargs="+", default=(), metavar="COLUMN", help="report by these, where the labels have them"),
    option("--synthetic", type=Path, metavar="FOLDER", help="synthetic images in {class}_{group}/"),
    option("--generator", default="", metavar="NAME", help="or a text-to-image model that draws them"),
    option("--prompts", type=Path, metavar="FILE", help='for it: JSON, {"{class}_{group}": ["sentence", ...], ...}'),
    option("--per-group", type=int, default=2500, metavar="N", help="images that it draws of each (2500)"),
    option("--steps", type=int, default=0, help="of its denoising (what its preset says)"),
    option("--guidance", type=float, default=0.0, help="of it (what its preset says)"),
    option("--model", required=True, metavar="NAME", help="timm:NAME or torchvision:NAME"),
    option("--weights", type=Path, metavar="FILE", help="of your biased model (it is trained here)"),
    option("--out", required=True, type=Path, metavar="FOLDER", help="where the repaired model and its report go"),
    option("--size", type=int, metavar="PIXELS", help="side of the images (the model's usual)"),
    option("--ratio", type=float, default=1 / 9, help="minority to majority, where no label tells (1/9)"),
    option("--batchnorm", choices=("train", "keep", "re-estimate"), default="train", help="running statistics (train)"),
    option("--lr", type=float, nargs="+", default=(0.01,), help="learning rate, or several to choose from (0.01)"),
    option("--epochs", type=int, default=15, help="of the repair (15)"),
    option("--pretrain-epochs", type=int, default=15, help="of the biased model, without --weights (15)"),
    option("--batch-size", type=int, default=128, help="images per step (128)"),
    option("--seed", type=int, default=0, help="of everything that is drawn (0)"),
    option("--device", default="auto", help="auto, cpu, cuda, cuda:1 (auto)"),
)
def repair(options: Namespace) -> None:
    """Repair a biased classifier of your own with synthetic images: model, ONNX file, report, card and predictions.

    $ aimfair repair --images photos/ --labels labels.csv --target smiling --protected sex --model timm:resnet18 --weights mine.safetensors --synthetic faces/ --out repaired/

    The labels may name no protected attribute: the report then says what cannot be known. A column split (train, validation,
    test) is followed. A command that was stopped goes on where it was; one that is finished says what is there."""
    from aimfair.practice import job

    given = {name: getattr(options, name) for name in job.Job.__dataclass_fields__}
    print(job.run(job.Job(**given | {name: tuple(given[name]) for name in ("protected", "lr")})))


@command(
    "train-sd",
    *STUDY,
    option("--minutes", type=float, help="how long to train (the profile's generator_minutes)"),
    option("--steps", type=int, nargs=2, metavar=("A", "U"), help="of autoencoder and U-Net, in place of minutes"),
    option("--out", metavar="FOLDER", help="where the pipeline goes (the profile's generator)"),
)
def train_sd(options: Namespace) -> None:
    """Train the tiny Stable Diffusion of a profile on its captioned corpus; ends with a folder that diffusers can load.

    $ aimfair train-sd --profile celeba-smiling-male --data path/to/celeba --minutes 45 --out data/synthetic/my-celeba-sd
    $ aimfair train-sd --steps 12000 4500 --out data/synthetic/my-sd     as many as the shipped model of drawn faces took

    How far a number of minutes goes depends on the machine; a number of steps is the same training everywhere."""
    from aimfair.study.pool import train_generator

    if options.steps and (min(options.steps) < 1 or options.minutes):
        raise AimfairError("--steps takes two numbers above 0, and no --minutes beside them")
    changes: dict[str, Any] = {"generator": str(Path(options.out).resolve())} if options.out else {}
    opened = open_study(options, **changes, **({"generator_minutes": options.minutes} if options.minutes else {}))
    p = opened.profile
    if (home() / p.generator).exists():
        raise AimfairError(f"{p.generator} exists: name another folder with --out")
    if not p.corpus:
        raise AimfairError(
            f"profile {p.profile} names no corpus to train on: set -p corpus=faceworld, celeba or fairface"
        )
    steps = tuple(options.steps) if options.steps else None
    print(f"The pipeline is in {train_generator(p, opened.device, opened.data_root, steps)}")


# ------------------------------------------------------------------------------------------------------- prompt banks


@command(
    "prompts show",
    option("bank", nargs="?", metavar="BANK", help="<dataset>/<Target>_<Protected>, or the path of a JSON file"),
    option("--variant", default="contextual", help="contextual, contextual-25, no-pose, plain (contextual)"),
    option("--group", metavar="T_P", help="one group, such as 1_0 (all)"),
    option("--instruction", action="store_true", help="what a language model is asked, not what is recorded"),
)
def prompts_show(options: Namespace) -> None:
    """Show the sentences of a bank, or what a language model is asked for; without a name, which banks there are.

    $ aimfair prompts show celeba/Smiling_Male --variant no-pose --group 1_0
    $ aimfair prompts show utkface/Female_White --group 0_1 --instruction

    Groups are named by target and protected value: 1_0 in Smiling_Male are smiling women. Variants are the rows of the
    paper's Table 5. The recorded banks come from a seeded grammar; -p prompts=contextual@NAME takes one with an @."""
    from aimfair import prompts
    from aimfair.prompts import writing

    if not options.bank:
        for name in prompts.banks():
            record = prompts.read(name)
            each = sorted({len(group["prompts"]) for group in record["groups"].values()})
            made_by = record.get("made_by", {})
            by = f"{made_by['model']}, {made_by.get('date', '')}" if "model" in made_by else made_by.get("how", "")
            print(f"{name:32} {' to '.join(map(str, each))} prompts per group   {by}")
        return
    record = read_bank(options.bank)
    if options.variant not in prompts.VARIANTS:
        raise AimfairError(f"no variant {options.variant!r}; there are: {', '.join(prompts.VARIANTS)}")
    for name in list(record["groups"]) if options.group is None else [options.group]:
        if name not in record["groups"]:
            raise AimfairError(f"no group {name!r}; there are: {', '.join(record['groups'])}")
        if options.instruction:
            asked = writing.request_text(writing.empty_bank(record, {}), name, prompts.PER_GROUP)
            print(f"--- group {name}\n{asked}\n")
            continue
        for id, text in prompts.VARIANTS[options.variant](record["groups"][name]):
            print(f"{id:10} {text}")


@command("prompts check", option("bank", metavar="BANK", help="a bank's name, or the path of a JSON file"), TOKENIZER)
def prompts_check(options: Namespace) -> int:
    """Check a bank: is every label named, nothing contradictory, nothing twice, all within what CLIP reads, all even?

    $ aimfair prompts check my-bank.json --tokenizer path/to/pipeline     count tokens as this model does

    One line per problem, and exit status 1 if there is one. Without --tokenizer tokens are counted rather too high."""
    from aimfair import prompts
    from aimfair.prompts import wording

    record = read_bank(options.bank)
    tokens = wording.token_counter(options.tokenizer) if options.tokenizer else wording.ESTIMATED
    problems = prompts.check(record, tokens)
    print(*problems, sep="\n", end="\n" * bool(problems))
    texts = [p["text"] for group in record["groups"].values() for p in group["prompts"]]
    longest = f"{max(map(tokens.count, texts))} of {tokens.limit} tokens{'' if options.tokenizer else ' at most'}"
    print(
        f"{len(texts)} prompts, the longest {longest}: {f'{len(problems)} problems' if problems else 'nothing found'}"
    )
    return 1 if problems else 0


def read_bank(name: str) -> dict[str, Any]:
    """The record of a bank in data/prompts, or of a file if ``name`` is the path of one."""
    from aimfair import prompts

    return prompts.read_file(Path(name)) if name.endswith((".json", ".partial")) else prompts.read(name)


@command(
    "prompts write",
    option("--task", required=True, help="<dataset>/<Target>_<Protected>, as in `aimfair prompts show`"),
    option("--writer", default="recorded", help="recorded, huggingface, openai_compatible (recorded)"),
    option("--model", default="", help="folder or hub name, or the name of the model at the endpoint"),
    option("--revision", default="", help="of a model of the hub: a branch, tag or commit"),
    option("--url", default="", help="address of an OpenAI-compatible endpoint, such as http://localhost:8000/v1"),
    option("--out", metavar="FILE", help="where the bank goes (data/prompts/<task>@<model>.json)"),
    option("--seed", type=int, default=0, help="seed of the requests (0)"),
    option("--rounds", type=int, default=10, help="most requests per group (10)"),
    option("--temperature", type=float, help="how freely the model chooses (its own default)"),
    option("--timeout", type=float, default=300.0, metavar="SECONDS", help="for one reply (300)"),
    option("--device", default="auto", help="of a local model: auto, cpu, cuda, cuda:1 (auto)"),
    option("--per-group", type=int, default=50, metavar="N", help="prompts of each group (50)"),
    option("--tolerance", type=float, default=0.1, help="largest difference of what is mentioned (0.1)"),
    TOKENIZER,
)
def prompts_write(options: Namespace) -> None:
    """Have a bank written by a language model: asked per group, each sentence checked, asked again for what is missing.

    $ aimfair prompts write --task celeba/Smiling_Male --writer huggingface --model Qwen/Qwen3-4B-Instruct-2507
    $ AIMFAIR_LLM_KEY=... aimfair prompts write --task utkface/Female_White --writer openai_compatible \\
          --url https://some.host/v1 --model NAME

    Writers: huggingface, a model on this machine; openai_compatible, any server with chat completions; recorded, the bank
    that is there, through the same checks. A key comes from AIMFAIR_LLM_KEY and is stored nowhere. The bank is written
    when it is complete and even; until then what was accepted lies in a .partial file, and the same command goes on."""
    from aimfair.prompts import wording, writing

    tokens = wording.token_counter(options.tokenizer) if options.tokenizer else wording.ESTIMATED
    names = "seed rounds per_group tolerance model revision url device temperature timeout".split()
    given = {name: getattr(options, name) for name in names}
    tell = partial(print, flush=True)
    path = writing.write_bank(options.task, options.writer, options.out, tokens=tokens, tell=tell, **given)
    print(f"The bank is in {path}")
    if "@" in path.stem:
        print(f"A study takes it by -p prompts=contextual@{path.stem.partition('@')[2]}")


# -------------------------------------------------------------------------------------------------------- this machine


@command(
    "bench",
    *STUDY,
    option("--record", metavar="FILE", help="add the measurement to this JSON file"),
    option("--text-to-image", action="store_true", help="measure only the text-to-image model"),
)
def bench(options: Namespace) -> None:
    """Measure how fast the parts are here: training, evaluation, gradients, drawing, text to image.

    $ aimfair bench --record data/published/benchmarks.json   keep it for the book's appendix
    $ aimfair bench -p generator=sd21-base-fast --text-to-image    only that, with any text-to-image model"""
    from aimfair.book import bench
    from aimfair.study.pool import model_of

    opened = open_study(options)
    p, device, rows = opened.profile, opened.device, []
    print(bench.machine(device))

    def drawn() -> list[Any]:
        return bench.generation(model_of(p), device, p.steps, p.guidance)

    def trained() -> list[Any]:
        return bench.training(p.backbone, p.image_size, device)

    parts: list[Callable[[], Iterable[Any]]] = [
        lambda: bench.beside_another(trained(), trained),
        lambda: bench.training("resnet18", p.image_size, device, rounds=8),
        lambda: bench.passes(p.backbone, p.image_size, device),
        bench.drawing,
        lambda: bench.beside_another(drawn(), drawn),
    ]
    for part in parts[-1:] if options.text_to_image else parts:
        for what, value, unit in part():
            print(f"  {what:50} {value:10.1f} {unit}", flush=True)
            rows.append((what, value, unit))
    if options.record:
        bench.record(rows, device, Path(options.record))


def known_splits() -> dict[str, str]:
    """The hash of the split behind the published runs of each profile, from ``data/splits.csv``, if it is there."""
    path = home() / "data" / "splits.csv"
    return {row["profile"]: row["sha256"] for row in csv.DictReader(path.open())} if path.exists() else {}


@command("split", option("file", nargs="?", metavar="FILE", help="CSV to write, or to compare with"), *STUDY)
def split(options: Namespace) -> int:
    """Which faces a study has: the names of its training, validation and test faces, with a hash.

    $ aimfair split --profile utkface --data path/to/utkface     is my copy split as the one behind the book's runs?
    $ aimfair split mine.csv --profile utkface --data path/to/utkface   write the list, or compare with it

    A file that is there is never replaced: exit status 1 where it lists other faces. Nothing is decoded."""
    from aimfair import sampling
    from aimfair.study import profiles

    opened = open_study(options)
    p, usual = opened.profile, profiles.load(options.profile)
    names = {part: list(opened.catalogue.names[rows]) for part, rows in opened.split.items()}
    digest = sampling.split_hash(names)
    print(f"{p.profile}: " + ", ".join(f"{len(members):,} {part}" for part, members in names.items()))
    print(f"sha256 {digest}")
    if options.file is None:
        changed = any(getattr(p, field) != getattr(usual, field) for field in profiles.REAL)
        known = None if changed else known_splits().get(usual.profile)
        if known is None:
            print("The book has no split of such a study to compare with.")
        elif digest == known:
            print("The faces behind the book's runs.")
        else:
            print(f"Not the faces behind the book's runs, which have {known}: another version or part of the data set?")
        return int(known not in (None, digest))
    path = Path(options.file).expanduser()
    if not path.exists():
        sampling.write_split(path, names)
        print(f"written to {path}")
        return 0
    listed = {part: list(members) for part, members in sampling.read_split(path).items()}
    parts = [part for part in names | listed if names.get(part, []) != listed.get(part, [])]
    print(f"{path} lists {'other faces; it was left as it is:' if parts else 'the same faces'}")
    for part in parts:
        mine, theirs = names.get(part, []), listed.get(part, [])
        both = len({*mine} & {*theirs})
        order = ", in another order" if both == len(mine) == len(theirs) else ""
        print(f"  {part}: {len(theirs):,} listed, {len(mine):,} here, {both:,} of them in both{order}")
    return 1 if parts else 0


@command("status")
def status(options: Namespace) -> None:
    """Show the profiles and what is done of each: chapters run and published, runs in the repository and on this machine.

    $ aimfair status"""
    import pandas as pd

    from aimfair.book import chapters
    from aimfair.book.execution import stamp_of
    from aimfair.study import profiles, runs

    rows = {}
    for name in profiles.available():
        p = profiles.load(name)
        rows[name] = {
            "task": f"{p.dataset}/{p.task}",
            "chapters run": len([*filter(stamp_of, chapters.executed_folder(name).glob("*.ipynb"))]),
            "in the book": len([*chapters.published_folder(name).glob("*.ipynb")]),
            "published runs": len([*runs.published_scores(home() / "data" / "published", name)]),
        }
    print(pd.DataFrame(rows).T.to_string())
    print(f"{'data/runs':24} {len(list((home() / 'data' / 'runs').glob('*/config.json')))} runs of this machine")
    page = home() / "book" / "_build" / "html" / "index.html"
    print(f"{'book':24} {page if page.exists() else 'not built yet: aimfair build'}")


@command("refresh", option("notebooks", nargs="*", type=Path, metavar="NOTEBOOK", help="paths (all of notebooks/)"))
def refresh(options: Namespace) -> None:
    """Run notebooks with their default parameters and store the outputs in them: the reference that nbval compares with.

    $ aimfair refresh notebooks/01_fairness_metrics.ipynb

    Time stamps and other traces of the run are stripped, so a changed byte means a changed result."""
    from aimfair.book.execution import refresh

    for path in options.notebooks or sorted((home() / "notebooks").glob("*.ipynb")):
        print(f"{path.name}: {'changed' if refresh(path) else 'unchanged'}", flush=True)


@command("test")
def test(options: Namespace) -> None:
    """Run all tests: the library, every notebook against its stored outputs, the book. Arguments go to pytest.

    $ aimfair test -k gradients -x -n 0

    Files are shared out among as many processes as there are cores, four at most; -n 0 keeps them in one."""
    print("Running the tests: the library, the notebooks, the book. This takes about eight minutes.", flush=True)
    shared_out = ["-n", str(min(4, cores())), "--dist", "loadfile"]
    os.environ["OMP_NUM_THREADS"] = "1"  # threads of several processes get in each other's way
    become("pytest", *shared_out, *options.arguments)


@command("lab")
def lab(options: Namespace) -> None:
    """Open JupyterLab on the notebooks. Arguments go to JupyterLab.

    $ aimfair lab --no-browser --port 8890"""
    from aimfair.book.lab import write_extension

    folder = home() / "data" / "cache" / "lab"
    write_extension(folder)
    os.environ["JUPYTER_PATH"] = os.pathsep.join(filter(None, (str(folder), os.environ.get("JUPYTER_PATH"))))
    become("jupyterlab", "notebooks", *options.arguments)


def become(module: str, *arguments: str) -> None:
    """Go on as another program in the checkout, which then gets the signals and says how it ended."""
    os.chdir(home())
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", module, *arguments])


def parser() -> argparse.ArgumentParser:
    """All commands with their options, in the order of this file."""
    plain = argparse.RawDescriptionHelpFormatter
    top = argparse.ArgumentParser("aimfair", description=ABOUT, formatter_class=plain)
    top.set_defaults(command=lambda options: top.print_help())
    groups = {"": top.add_subparsers(title="commands", metavar="COMMAND")}
    for name, (function, options) in COMMANDS.items():
        group, _, last = name.rpartition(" ")
        if group not in groups:
            made = groups[""].add_parser(group, help=GROUPS[group], description=GROUPS[group])
            made.set_defaults(command=lambda options, made=made: made.print_help())
            groups[group] = made.add_subparsers(title="commands", metavar="COMMAND")
        text = inspect.cleandoc(function.__doc__ or "")
        first = text.split(".")[0].split(":")[0].split(";")[0]
        sub = groups[group].add_parser(last, help=first, description=text, formatter_class=plain)
        sub.set_defaults(command=function)
        for names, settings in options:
            sub.add_argument(*names, **settings)
    return top


@contextmanager
def stopping() -> Iterator[None]:
    """SIGTERM (a job's time limit) and SIGHUP (a closed terminal) end a command as Ctrl-C does, its children included."""

    def stop(number: int, _: object) -> None:
        raise KeyboardInterrupt(number)

    here = threading.current_thread() is threading.main_thread()
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if here and hasattr(signal, name)]
    caught = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]  # nohup ignores SIGHUP
    for number in caught:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in caught:
            signal.signal(number, signal.SIG_DFL)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, 2 for what the user can mend, 130 after Ctrl-C, 141 where
    nobody reads the output to its end."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a character that the terminal cannot show ends no command
            stream.reconfigure(errors="replace")
    top = parser()
    options, more = top.parse_known_args(arguments)
    options.arguments = more
    if more and options.command not in (test, lab):
        top.error(f"{' '.join(more)}: not an option of this command; see --help")
    try:
        with stopping():
            status = options.command(options) or 0
            sys.stdout.flush()
        return status
    except AimfairError as error:
        print(f"\naimfair: {error}" if sys.stdout.isatty() else f"aimfair: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # who reads our output, such as head, has seen enough; nothing more can be said to it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        if error.errno not in (*NOT_WRITABLE, errno.ENOSPC, errno.EDQUOT):
            raise
        print(f"aimfair: {error.filename or 'cannot write'}: {error.strerror}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stopped:
        print("\nStopped. What was finished is kept: the same command goes on from there.", file=sys.stderr)
        return 128 + (stopped.args[0] if stopped.args else signal.SIGINT)
