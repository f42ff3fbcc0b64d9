"""The command line: one sub-command, one short function. Everything it does is done by the library."""

from __future__ import annotations

import argparse
import inspect
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

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


def command_generate(options: argparse.Namespace) -> None:
    """Draw the synthetic faces of a profile, or with any text-to-image pipeline of diffusers; resumable.

    $ aimfair generate                                          the pool of the demo study
    $ aimfair generate -p images_per_group=50 --out some/folder
    $ aimfair generate --model stabilityai/sd-turbo -p steps=4 -p guidance=0 -p image_size=512 --out some/folder

    Each image has its own seed, made of task, group, prompt and replicate: the same image whatever the batch, the order
    or the number of interruptions. manifest.csv in the folder has a row per image."""
    from aimfair import synthetic

    opened = open_study(options, {"generator": options.model} if options.model else {})
    folder = Path(options.out) if options.out else synthetic.pool_folder(opened.profile)
    synthetic.generate(opened.profile, folder, opened.device, opened.data_root)
    print(f"The images and their manifest.csv are in {folder}")


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
    $ aimfair bench --record data/published/benchmarks.json   keep it for the book's appendix"""
    from aimfair import bench

    opened = open_study(options)
    p, device = opened.profile, opened.device
    print(bench.machine(device))
    rows = []
    for measure in (
        lambda: bench.training(p.backbone, p.image_size, device),
        lambda: bench.training("resnet18", p.image_size, device, rounds=8),
        lambda: bench.passes(p.backbone, p.image_size, device),
        bench.drawing,
        lambda: bench.generation(str(home() / p.generator), device, p.steps, p.guidance),
    ):
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
        print(f"{'':24} {p.images_per_group} images per group by {p.generator}, {p.seeds} seeds")


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


def command_test(options: argparse.Namespace) -> int:
    """Run all tests: the library, every notebook against its stored outputs, the book. Arguments go to pytest.

    $ aimfair test
    $ aimfair test tests/test_metrics.py
    $ aimfair test -k gradients -x"""
    print("Running the tests: the library, the notebooks, the book. This takes several minutes.", flush=True)
    return subprocess.call([sys.executable, "-m", "pytest", *options.arguments], cwd=home())


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

    def add(command: Callable[[argparse.Namespace], int | None], study: bool = False) -> argparse.ArgumentParser:
        text = command.__doc__ or ""
        name = command.__name__.removeprefix("command_").replace("_", "-")
        sub = commands.add_parser(
            name,
            help=text.split(".")[0].split(":")[0].split(";")[0],
            description=inspect.cleandoc(text),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.set_defaults(command=command)
        if study:
            sub.add_argument("--profile", default="demo", help="name of a profile, or the path of a YAML file (demo)")
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
    generate = add(command_generate, study=True)
    generate.add_argument("--model", help="folder or name of any text-to-image pipeline of diffusers")
    generate.add_argument("--out", metavar="FOLDER", help="where the images go (data/synthetic/...)")
    train = add(command_train_sd, study=True)
    train.add_argument("--minutes", type=float, help="how long to train (the profile's generator_minutes)")
    train.add_argument("--out", metavar="FOLDER", help="where the pipeline goes (the profile's generator)")
    bench = add(command_bench, study=True)
    bench.add_argument("--record", metavar="FILE", help="keep the measurement in this JSON file")
    add(command_refresh).add_argument("notebooks", nargs="*", metavar="NOTEBOOK", help="paths (all of notebooks/)")
    add(command_profiles)
    add(command_publish, study=True)
    add(command_status)
    add(command_test)
    add(command_lab)
    return top
