"""What commands share: how they are declared, and how their options are read."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from aimfair.environment import AimfairError, home

# The library is imported inside the functions: `aimfair --help` must not wait for torch.


def add(
    among: Any,
    command: Callable[[argparse.Namespace], int | None],
    *,
    study: bool = False,
    pool: bool = False,
    group: str = "",
) -> argparse.ArgumentParser:
    """A sub-command: the function ``command_<group>_<name>``, whose docstring is its help.

    among  what :func:`group_of` gave, or all commands
    study  whether it takes the options that describe a study
    pool   whether it also takes those that say which synthetic faces the study has
    """
    text = command.__doc__ or ""
    name = command.__name__.removeprefix("command_").removeprefix(f"{group}_").replace("_", "-")
    sub: argparse.ArgumentParser = among.add_parser(
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
    if pool:
        about = "text-to-image model: a short name (see generate --list-models), folder or hub name: -p generator=NAME"
        sub.add_argument("--model", metavar="NAME", help=about)
        sub.add_argument("--draw", type=int, metavar="N", help="which draw of the synthetic faces: -p draw=N (0)")
    return sub


def group_of(among: Any, name: str, help: str, description: str) -> Any:
    """A command that only has sub-commands, such as ``aimfair grid``; alone it shows its help."""
    top = among.add_parser(
        name, help=help, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    top.set_defaults(command=lambda options: top.print_help())
    return top.add_subparsers(title="commands", metavar="COMMAND")


def common_parameters(options: argparse.Namespace) -> dict[str, Any]:
    """The parameters that every notebook shares, as far as they were given, and those of ``-p``."""
    given = pairs(options.parameters)
    if options.data:
        given["data_root"] = str(existing(options.data))
    if getattr(options, "model", None):
        given["generator"] = named_model(options.model)
    for name in ("seed", "device", "draw"):
        if getattr(options, name, None) is not None:
            given[name] = getattr(options, name)
    seed = given.get("seed", 0)
    if not isinstance(seed, int) or seed < 0:
        raise AimfairError(f"--seed {seed}: a seed is a whole number, 0 or more")
    if options.runs:
        given["runs_root"] = str(Path(options.runs).expanduser().resolve())
    return given


def open_study(options: argparse.Namespace, changes: dict[str, Any] | None = None) -> Any:
    """The study that the common options describe."""
    from aimfair import study
    from aimfair.study import profiles

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


def named_profile(given: str) -> str:
    """A name as it is, the path of a YAML file in full: notebooks run in a folder of their own."""
    return str(Path(given).expanduser().resolve()) if given.endswith((".yaml", ".yml")) else given


def named_model(given: str) -> str:
    """A name, or a folder below the checkout, as it is; another folder in full, because notebooks run in a folder of their
    own."""
    path = Path(given).expanduser()
    return str(path.resolve()) if path.is_dir() and not (home() / path).is_dir() else given


def existing(path: str) -> Path:
    """An absolute path. Raises AimfairError if there is nothing."""
    found = Path(path).expanduser().resolve()
    if not found.exists():
        raise AimfairError(f"--data {path}: there is no such file or folder")
    return found


def tell_sizes(written: Iterable[Path]) -> None:
    """A line for each file that was written into the repository, with its megabytes."""
    for path in written:
        print(f"{path.relative_to(home())}  {path.stat().st_size / 1e6:.2f} MB")
