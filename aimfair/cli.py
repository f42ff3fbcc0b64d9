"""The command line: one sub-command, one short function. Everything it does is done by the library."""

from __future__ import annotations

import argparse
import inspect
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import yaml

from aimfair.commands import audit as audit_command
from aimfair.commands import generate as generate_command
from aimfair.commands import measure as measure_commands
from aimfair.commands import prompts as prompt_commands
from aimfair.errors import AimfairError
from aimfair.paths import home

# The library is imported inside the functions: `aimfair --help` must not wait for torch.

ABOUT = """\
AIM-Fair as a research book that runs.

  aimfair book                      run the demo study and build the book
  aimfair lab                       open JupyterLab on the notebooks
  aimfair run aim-fair --seeds 100  train one method, print its fairness report
  aimfair test                      run all tests

Real faces from your disk:

  aimfair book --profile celeba-smiling-male --data path/to/celeba

aimfair COMMAND --help explains a command, with examples. `python -m aimfair` is the same as `aimfair`."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, 2 for what the user can mend, 130 after Ctrl-C."""
    top = parser()
    options, more = top.parse_known_args(arguments)
    if options.command in (command_test, command_lab):
        options.arguments = more
    elif more:
        top.error(f"{' '.join(more)}: not an option of this command; see --help")
    try:
        return options.command(options) or 0
    except AimfairError as error:
        print(f"\naimfair: {error}" if sys.stdout.isatty() else f"aimfair: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nStopped. What was finished is kept: the same command goes on from there.", file=sys.stderr)
        return 130


# ------------------------------------------------------------------------------------------------------- the commands


def command_book(options: argparse.Namespace) -> None:
    """Run every chapter of a profile by papermill, publish clean copies, build the book and check its pages.

    $ aimfair book                                                  the demo study, everything computed here
    $ aimfair book --profile smoke                                  the same in small, to see that all works
    $ aimfair book --profile utkface --data path/to/UTKFace.tar.gz  real faces
    $ aimfair book --only 06 --reuse                                one chapter, from the published runs
    $ aimfair book -p train_images=2000 --seed 300                  a study of your own

    A chapter that was run before with the same code and parameters is not run again (--fresh: it is)."""
    from aimfair import book

    parameters = common_parameters(options) | {"reuse": options.reuse}
    page = book.make(options.profile, parameters, only=options.only, fresh=options.fresh, timeout=options.timeout)
    print(f"\nThe book is built. Open {page}")


def command_build(options: argparse.Namespace) -> None:
    """Build the book from the published copies in book/notebooks/, without running anything, and check its pages.

    $ aimfair build"""
    from aimfair import book

    print(f"The book is built. Open {book.build(home() / 'book')}")


def command_run(options: argparse.Namespace) -> None:
    """Train methods with seeds, or find their finished runs, and print a fairness report of each on the test set.

    $ aimfair run erm aim-fair --seeds 100 200 300
    $ aimfair run full-finetuning --hyper lr=0.003
    $ aimfair run aim-fair --search --seeds all       every value that the method searches, all seeds of the profile
    $ aimfair run --methods all --profile smoke       every registered method, in small
    $ aimfair run erm --no-reuse                      train even where a published run exists

    Finished runs are kept in data/runs/ and found again: a stopped command goes on where it was."""
    from aimfair import methods, study

    names = [*options.names, *options.methods]
    if not names:
        raise AimfairError(f"which methods? all, or some of: {', '.join(methods.registry())}")
    known = list(methods.registry().values()) if "all" in names else [methods.get(name) for name in names]
    opened = open_study(options)
    seeds = chosen_seeds(options.seeds, study.SEEDS, opened.profile.seeds)
    print(
        f"{'method':24} {'seed':>5} {'ACC':>6} {'WST':>6} {'EO max':>6} {'EO mean':>7} {'STD':>5}   (test set, per cent)"
    )
    for method in known:
        for seed in seeds:
            for hyper in searched(method, pairs(options.hyper), options.search):
                run = opened.run(method.name, seed, **hyper)
                report = run.report()
                scores = (
                    f"{report.acc:6.2f} {report.wst:6.2f} {report.eo_max:6.2f} {report.eo_mean:7.2f} {report.std:5.2f}"
                )
                shown = ", ".join(f"{k}={v}" for k, v in hyper.items())
                print(f"{method.name:24} {seed:5} {scores}   {shown}", flush=True)


def command_publish(options: argparse.Namespace) -> None:
    """Pack all finished runs of a study into data/published/, where every clone of the repository finds them.

    $ aimfair publish
    $ aimfair publish --profile utkface --data path/to/UTKFace.tar.gz
    $ aimfair publish -p minority=1.0     a variation of a study goes into the same folder"""
    for path in open_study(options).publish():
        print(f"{path.relative_to(home())}  {path.stat().st_size / 1e6:.2f} MB")


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


def command_bench(options: argparse.Namespace) -> None:
    """Measure how fast the parts are here: training, evaluation, gradients, drawing, text to image.

    $ aimfair bench
    $ aimfair bench --record data/published/benchmarks.json   keep it for the book's appendix
    $ aimfair bench --text-to-image full    Stable Diffusion 2.1-base in full size, the paper's settings against fewer steps
    $ aimfair bench --text-to-image tiny    the same measurement with a tiny network, on any device

    Stable Diffusion in full size has random weights here, and needs a GPU."""
    from aimfair import bench
    from aimfair.drawing import bench_generation

    opened = open_study(options)
    p, device = opened.profile, opened.device
    print(bench.machine(device))
    rows = []
    tiny = options.text_to_image == "tiny"
    parts: Sequence[Callable[[], Iterable[Any]]] = (
        lambda: bench.training(p.backbone, p.image_size, device),
        lambda: bench.training("resnet18", p.image_size, device, rounds=8),
        lambda: bench.passes(p.backbone, p.image_size, device),
        bench.drawing,
        lambda: bench.generation(str(home() / p.generator), device, p.steps, p.guidance),
    )
    if options.text_to_image:
        parts = (lambda: bench_generation.measure(device, tiny, compiled=not options.no_compile),)
    for measure in parts:
        for what, value, unit in measure():
            print(f"  {what:50} {value:10.1f} {unit}", flush=True)
            rows.append((what, value, unit))
    if options.record:
        bench.record(rows, device, Path(options.record))


def command_refresh(options: argparse.Namespace) -> None:
    """Run notebooks with their default parameters and store the outputs in them: the reference that nbval compares with.

    $ aimfair refresh                                        all of notebooks/
    $ aimfair refresh notebooks/01_fairness_metrics.ipynb

    Time stamps and other traces of the run are stripped, so a changed byte means a changed result."""
    from aimfair.execution import refresh

    for path in options.notebooks or sorted((home() / "notebooks").glob("*.ipynb")):
        print(f"{Path(path).name}: {'changed' if refresh(Path(path)) else 'unchanged'}", flush=True)


def command_profiles(options: argparse.Namespace) -> None:
    """List the profiles in notebooks/profiles/.

    $ aimfair profiles"""
    from aimfair import profiles

    for name in profiles.available():
        p = profiles.load(name)
        print(f"{name:24} {p.dataset:10} {p.target} / {p.protected}, {p.train_images} training images, {p.backbone},")
        print(f"{'':24} {p.images_per_group} images per group by {p.generator}, {p.seeds} seed{'s' * (p.seeds > 1)}")


def command_status(options: argparse.Namespace) -> None:
    """Show what is done: chapters run and published, runs on this machine and in the repository, the built book.

    $ aimfair status"""
    from aimfair import chapters, profiles
    from aimfair.execution import stamp_of

    for name in profiles.available():
        stamps = [s for p in chapters.executed_folder(name).glob("*.ipynb") if (s := stamp_of(p))]
        copies = len(list(chapters.published_folder(name).glob("*.ipynb")))
        packed = (home() / "data" / "published" / name).glob("*.jsonl")
        published = sum(len(path.read_text().splitlines()) for path in packed)
        print(f"{name:24} {len(stamps)} chapters run, {copies} in the book, {published} published runs")
    runs = len(list((home() / "data" / "runs").glob("*/config.json")))
    print(f"{'data/runs':24} {runs} runs of this machine")
    page = home() / "book" / "_build" / "html" / "index.html"
    print(f"{'book':24} {page if page.exists() else 'not built yet: aimfair build'}")


def command_grid_list(options: argparse.Namespace) -> None:
    """Say what the paper's tables and figures consist of, as runs of a profile.

    $ aimfair grid list                          every table and figure
    $ aimfair grid list --table 6                one of them: settings, rows, what is searched
    $ aimfair grid list --figure 5 --long        each run with its id, and whether it is there
    $ aimfair grid list --beyond                 what the paper leaves open; --beyond factorial: one of these

    A run that several tables show is one run, found again by the hash of its configuration."""
    from aimfair import grid

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
            searched = f"{len(row.configurations()):2} x {options.count} seeds"
            only = (
                f"  (in {' and '.join(row.settings)})" if len(row.settings) not in (0, len(experiment.settings)) else ""
            )
            print(
                f"    {row.title:38} {row.method:20} {searched}   {listed({**row.changes, **row.fixed})}{only}".rstrip()
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
    from aimfair import costs, engines, grid

    machine = grid_machine(options)
    name = options.engine or ("dask" if machine.dask else "processes" if machine.workers > 1 else "serial")
    engine = engines.get(name)
    cells = grid.identified((cell for _, cells in grid_cells(options) for cell in cells), machine)
    if options.shard:
        cells = grid.shard(cells, *part(options.shard))
    lacking = grid.missing(cells, machine)
    todo = grid.plan(lacking, machine)
    cost = costs.estimate(todo, machine, costs.records(machine))
    print(f"{len(cells)} runs, {len(cells) - len(lacking)} are there, {len(lacking)} to compute", end="")
    print(f", and {len(todo) - len(lacking)} things that they share" if len(todo) > len(lacking) else "")
    if todo:
        spread = f" on {machine.workers} workers" if machine.workers > 1 else " on one worker"
        print(
            f"About {cost.hours / machine.workers:.1f} hours{spread} and {cost.gigabytes:.2f} GB (runs: {cost.basis})"
        )
    if options.dry_run or not todo:
        return 0
    failed = grid.compute(todo, machine, engine)
    for outcome in failed:
        print(f"failed: {grid.described(outcome.cell)}: {outcome.error}", file=sys.stderr)
    print(f"{len(todo) - len(failed)} done, {len(failed)} failed")
    return 1 if failed else 0


def command_grid_status(options: argparse.Namespace) -> None:
    """Show for each table and figure how many runs are there, how many are missing, and the hours that these need.

    $ aimfair grid status
    $ aimfair grid status --beyond --seeds 100 200 300     the experiments beyond the paper
    $ aimfair grid status --profile utkface --data path/to/UTKFace.tar.gz"""
    from aimfair import costs, grid

    machine = grid_machine(options)
    known = costs.records(machine)
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

    Means over the seeds with 95 % intervals; of what a method searches, the best on the validation faces. A row that
    has no runs says so, and runs that are missing are named."""
    from aimfair import grid, tables

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


def command_grid_report(options: argparse.Namespace) -> None:
    """Say which of the paper's claims stand in the finished runs, or write all its comparisons as CSV, LaTeX or Markdown.

    $ aimfair grid report
    $ aimfair grid report --beside celeba-smiling-male utkface
    $ aimfair grid report --out comparisons.csv     the paper's differences, ours with intervals, a verdict on each

    Nothing is computed: what has no run is counted as not run. The rule is that of the reproduction chapter."""
    import pandas as pd

    from aimfair import profiles, tables
    from aimfair.paper import beside, reproduction

    changes = {k: v for k, v in common_parameters(options).items() if k not in profiles.COMMON}
    machine = grid_machine(options)
    readings = [reproduction.read(options.profile, changes, machine)]
    readings += [reproduction.read(name, machine=machine) for name in options.beside]
    if options.out:
        every = pd.concat([reproduction.comparisons(reading) for reading in readings])
        print(f"{len(every)} comparisons are in {tables.export(every, options.out)}")
    else:
        print(tables.text(beside.claims(readings)), end="")


def command_test(options: argparse.Namespace) -> int:
    """Run all tests: the library, every notebook against its stored outputs, the book. Arguments go to pytest.

    Files are shared out among as many processes as there are cores, four at most; -n 0 keeps them in one.

    $ aimfair test
    $ aimfair test tests/test_metrics.py
    $ aimfair test -k gradients -x -n 0"""
    from aimfair.processors import cores, environment

    print("Running the tests: the library, the notebooks, the book. This takes about ten minutes.", flush=True)
    shared_out = ["-n", str(min(4, cores())), "--dist", "loadfile"]
    with environment(OMP_NUM_THREADS="1"):  # threads of several processes get in each other's way
        return subprocess.call([sys.executable, "-m", "pytest", *shared_out, *options.arguments], cwd=home())


def command_lab(options: argparse.Namespace) -> int:
    """Open JupyterLab on the notebooks. Arguments go to JupyterLab.

    $ aimfair lab
    $ aimfair lab --no-browser --port 8890"""
    return subprocess.call([sys.executable, "-m", "jupyterlab", "notebooks", *options.arguments], cwd=home())


# -------------------------------------------------------------------------------------------------- reading arguments


def common_parameters(options: argparse.Namespace) -> dict[str, Any]:
    """The parameters that every notebook shares, as far as they were given, and those of ``-p``."""
    given = pairs(options.parameters)
    if options.data:
        given["data_root"] = str(existing(options.data))
    for name in ("seed", "device"):
        if getattr(options, name) is not None:
            given[name] = getattr(options, name)
    if options.runs:
        given["runs_root"] = str(Path(options.runs).expanduser().resolve())
    return given


def open_study(options: argparse.Namespace, changes: dict[str, Any] | None = None) -> Any:
    """The study that the common options describe."""
    from aimfair import profiles, study

    given = common_parameters(options)
    if "profile" in given:
        raise AimfairError(f"-p profile={given['profile']}: a profile is named by --profile {given['profile']}")
    common = {name: given.pop(name) for name in list(given) if name in profiles.COMMON}
    return study.open_study(
        options.profile, changes=given | (changes or {}), **common, reuse=getattr(options, "reuse", True)
    )


def pairs(given: Sequence[str]) -> dict[str, Any]:
    """``["lr=0.01", "batchnorm=eval"]`` -> {"lr": 0.01, "batchnorm": "eval"}; values are numbers, true, false or text."""
    found = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not (equals and name.isidentifier()):
            raise AimfairError(f"{text!r} is not of the form name=value")
        found[name] = _value(value)
    return found


def _value(text: str) -> Any:
    try:
        value = yaml.safe_load(text) if text else text
        return float(value) if isinstance(value, str) else value  # YAML takes 1e-3 for text
    except (ValueError, yaml.YAMLError):
        return text


def chosen_seeds(given: Sequence[str], known: Sequence[int], how_many: int) -> list[int]:
    """Seeds as numbers; ``all`` are those of the profile."""
    if list(given) == ["all"]:
        return list(known[:how_many])
    if not all(text.isdigit() for text in given):
        raise AimfairError(f"--seeds takes whole numbers or the word all, got {' '.join(given)}")
    return [int(text) for text in given]


def searched(method: Any, fixed: dict[str, Any], search: bool) -> list[dict[str, Any]]:
    """The hyper-parameters to run: those given, or with ``search`` each value of the one that the method searches."""
    if not search or not method.search:
        return [fixed]
    return [{**fixed, name: value} for name, values in method.search.items() if name not in fixed for value in values]


def part(text: str) -> tuple[int, int]:
    """``3/8`` -> (3, 8)."""
    number, _, of = text.partition("/")
    if not (number.isdigit() and of.isdigit()):
        raise AimfairError(f"--shard takes a part and the number of parts, such as 3/8, got {text}")
    return int(number), int(of)


def grid_cells(options: argparse.Namespace) -> list[tuple[Any, list[Any]]]:
    """The tables and figures that are asked for, each with its cells.

    Where none is named, all of the paper; experiments beyond it only with ``--beyond``."""
    from aimfair import beyond, experiments, methods, profiles, study

    changes = {k: v for k, v in common_parameters(options).items() if k not in profiles.COMMON}
    profile = profiles.load(options.profile, **changes)
    seeds = [options.seed] if options.seed is not None else chosen_seeds(options.seeds, study.SEEDS, profile.seeds)
    options.count = len(seeds)
    wanted = [methods.get(name).name for name in options.methods]
    chosen = [] if options.beyond is None else beyond.selected(profile, options.beyond)
    if options.table or options.figure or options.beyond is None:
        chosen = experiments.selected(profile, options.table, options.figure) + chosen
    return [
        (e, [c for c in experiments.cells(e, options.profile, changes, seeds) if not wanted or c.method in wanted])
        for e in chosen
    ]


def grid_machine(options: argparse.Namespace) -> Any:
    """Where and how cells are looked up and computed."""
    from aimfair import engines, profiles

    given = {k: v for k, v in common_parameters(options).items() if k in profiles.COMMON and k != "seed"}
    workers = getattr(options, "workers", None)
    if workers is None:
        workers = max(1, engines.gpus(given.get("device", "auto")))
    if workers < 1:
        raise AimfairError(f"--workers {workers}: at least one is needed")
    return engines.Machine(**given, reuse=options.reuse, workers=workers, dask=getattr(options, "dask", ""))


def listed(values: dict[str, Any]) -> str:
    """``{"k": 55, "lr": 0.01}`` -> "k=55, lr=0.01"."""
    return ", ".join(f"{name}={value}" for name, value in values.items())


def status_line(title: str, cells: dict[str, Any], machine: Any, known: list[Any]) -> None:
    """One line of ``aimfair grid status``."""
    from aimfair import costs, grid

    lacking = grid.missing(cells, machine)
    hours = costs.estimate(grid.plan(lacking, machine), machine, known).hours
    print(f"{title:60} {len(cells):6} {len(cells) - len(lacking):6} {len(lacking):7} {hours:6.1f}", flush=True)


def named_profile(given: str) -> str:
    """A name as it is, the path of a YAML file in full: notebooks run in a folder of their own."""
    return str(Path(given).expanduser().resolve()) if given.endswith((".yaml", ".yml")) else given


def existing(path: str) -> Path:
    """An absolute path. Raises AimfairError if there is nothing."""
    found = Path(path).expanduser().resolve()
    if not found.exists():
        raise AimfairError(f"--data {path}: there is no such file or folder")
    return found


def parser() -> argparse.ArgumentParser:
    """All commands and their options; a command's docstring is its help."""
    top = argparse.ArgumentParser("aimfair", description=ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.set_defaults(command=lambda options: top.print_help())
    commands = top.add_subparsers(title="commands", metavar="COMMAND")

    def add(
        command: Callable[[argparse.Namespace], int | None], study: bool = False, group: str = "", among: Any = commands
    ) -> argparse.ArgumentParser:
        text = command.__doc__ or ""
        name = command.__name__.removeprefix(f"command_{group}").replace("_", "-")
        sub = among.add_parser(
            name,
            help=text.split(".")[0].split(":")[0].split(";")[0],
            description=inspect.cleandoc(text),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.set_defaults(command=command)
        if study:
            about = "name of a profile, or the path of a YAML file (demo)"
            sub.add_argument("--profile", type=named_profile, default="demo", help=about)
            sub.add_argument("--data", metavar="PATH", help="folder or archive of the real faces")
            sub.add_argument("--device", help="auto, cpu, cuda, cuda:1 (auto)")
            sub.add_argument("--seed", type=int, help="seed of a single run (100)")
            sub.add_argument("--runs", metavar="FOLDER", help="where runs are kept (data/runs)")
            sub.add_argument(
                "-p", dest="parameters", metavar="NAME=VALUE", action="append", default=[], help="change a parameter"
            )
        return sub

    book = add(command_book, study=True)
    book.add_argument("--only", default="", metavar="TEXT", help="only chapters whose name contains TEXT")
    book.add_argument("--fresh", action="store_true", help="run chapters again that were already run")
    book.add_argument("--reuse", action="store_true", help="take published runs instead of computing everything here")
    book.add_argument("--timeout", type=float, metavar="SECONDS", help="the longest that one cell may take (no limit)")
    add(command_build)
    run = add(command_run, study=True)
    run.add_argument("names", nargs="*", metavar="METHOD", help="names of methods, or all")
    run.add_argument("--methods", nargs="+", default=[], metavar="METHOD", help="the same, as an option")
    run.add_argument("--seeds", nargs="+", default=["100"], help="seeds, or all (100)")
    run.add_argument("--hyper", nargs="+", default=[], metavar="NAME=VALUE", help="hyper-parameters of the method")
    run.add_argument("--search", action="store_true", help="run each value of the hyper-parameter that is searched")
    run.add_argument("--no-reuse", dest="reuse", action="store_false", help="do not look among the published runs")
    generate_command.add_options(add(generate_command.command_generate, study=True))
    audit_command.add_options(add(audit_command.command_audit, study=True))
    train = add(command_train_sd, study=True)
    train.add_argument("--minutes", type=float, help="how long to train (the profile's generator_minutes)")
    train.add_argument("--out", metavar="FOLDER", help="where the pipeline goes (the profile's generator)")
    bench = add(command_bench, study=True)
    bench.add_argument("--record", metavar="FILE", help="keep the measurement in this JSON file")
    bench.add_argument(
        "--text-to-image", choices=("full", "tiny"), help="only Stable Diffusion 2.1-base, random weights"
    )
    bench.add_argument("--no-compile", action="store_true", help="of that, only what is not compiled")
    add(command_refresh).add_argument("notebooks", nargs="*", metavar="NOTEBOOK", help="paths (all of notebooks/)")
    add(command_profiles)
    add(command_publish, study=True)
    add(command_status)
    add(command_test)
    add(command_lab)
    prompt_commands.register(commands, add)
    measure_commands.register(commands, add)
    grid = commands.add_parser(
        "grid", help="The runs of the paper's tables and figures", description="What is to be run."
    )
    grid.set_defaults(command=lambda options: grid.print_help())
    parts = grid.add_subparsers(title="commands", metavar="COMMAND")
    report = add(command_grid_report, study=True, group="grid_", among=parts)
    report.add_argument("--beside", nargs="+", default=[], metavar="PROFILE", help="further studies, a column each")
    report.add_argument("--no-reuse", dest="reuse", action="store_false", help="do not look among the published runs")
    report.add_argument("--out", metavar="FILE", help="a file that ends in .csv, .tex or .md: all comparisons")
    for command in (command_grid_list, command_grid_run, command_grid_status, command_grid_table):
        sub = add(command, study=True, group="grid_", among=parts)
        sub.add_argument(
            "--table", nargs="+", type=int, default=[], metavar="N", help="numbers of the paper's tables (all)"
        )
        sub.add_argument("--figure", nargs="+", type=int, default=[], metavar="N", help="numbers of its figures (all)")
        sub.add_argument("--beyond", nargs="*", metavar="NAME", help="experiments beyond the paper (all of them)")
        sub.add_argument("--methods", nargs="+", default=[], metavar="METHOD", help="only the runs of these methods")
        sub.add_argument("--seeds", nargs="+", default=["all"], help="seeds, or all of the profile (all)")
        sub.add_argument("--no-reuse", dest="reuse", action="store_false", help="do not look among the published runs")
        if command is command_grid_list:
            sub.add_argument("--long", action="store_true", help="each run with its id, and whether it is there")
        if command is command_grid_run:
            sub.add_argument("--dry-run", action="store_true", help="say what it would cost, and stop")
            sub.add_argument("--workers", type=int, metavar="N", help="processes, or jobs of a cluster (one per GPU)")
            sub.add_argument("--shard", default="", metavar="I/N", help="only part I of N, counted from 1")
            sub.add_argument("--dask", default="", metavar="WHERE", help="tcp://HOST:PORT, local:N or slurm")
            sub.add_argument("--engine", default="", help="serial, processes, dask (by what else is given)")
        if command is command_grid_table:
            sub.add_argument("number", nargs="*", type=int, metavar="N", help="number of the table")
            sub.add_argument("--out", metavar="FILE", help="a file that ends in .csv, .tex or .md")
            sub.add_argument("--against", metavar="ROW", help="title of a row: paired differences of the others to it")
    return top
