"""The repository as a package: one list of dependencies, a tested set, a valid citation, nothing that does not belong."""

import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from pip._internal.network.session import PipSession
from pip._internal.req.req_file import parse_requirements

from aimfair.environment import home

ROOT = home()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def required():
    everything = [*PROJECT["dependencies"], *(r for extra in PROJECT["optional-dependencies"].values() for r in extra)]
    return [r for r in map(Requirement, everything) if r.name != "aimfair"]


def pinned():
    return {canonicalize_name(name): number for name, number in (line.split("==") for line in constraint_lines())}


def constraint_lines():
    return [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and line[0] != "#"]


def tracked():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("not a git checkout: there is no list of tracked files")
    return [name for name in listed.stdout.split("\0") if name and (ROOT / name).exists()]


def test_the_constraints_satisfy_every_dependency():
    pins = pinned()
    for requirement in required():
        name = canonicalize_name(requirement.name)
        assert name in pins, f"{name} is not in constraints.txt"
        assert requirement.specifier.contains(pins[name]), f"{requirement} is not met by {pins[name]}"


def test_the_lock_has_the_tested_versions_each_with_a_hash():
    locked = re.findall(
        r"^([\w.-]+)==(\S+) \\\n    --hash=sha256:[0-9a-f]{64}", (ROOT / "requirements.lock").read_text(), re.M
    )
    pins, found = pinned(), {canonicalize_name(name): number for name, number in locked}
    assert {canonicalize_name(requirement.name) for requirement in required()} <= found.keys()
    assert not {name for name, number in found.items() if pins.get(name, number) != number}


def test_torch_and_torchvision_are_a_pair_that_a_cpu_build_satisfies():
    pins = pinned()
    major, minor, patch = pins["torch"].split(".")
    assert pins["torchvision"] == f"0.{int(minor) + 15}.{patch}" and major == "2"
    assert "+" not in pins["torch"] + pins["torchvision"]
    assert not [name for name in pins if name.startswith(("nvidia-", "cuda-", "triton"))]


def test_the_installed_set_is_the_tested_one():
    for name in ("torch", "torchvision", "papermill", "nbval", "jupyter-book", "sphinx", "diffusers"):
        assert version(name).split("+")[0] == pinned()[name], f"{name}: install with -c constraints.txt"


def test_all_has_every_extra():
    (everything,) = map(Requirement, PROJECT["optional-dependencies"]["all"])
    assert everything.extras == set(PROJECT["optional-dependencies"]) - {"all"}


def test_conda_users_get_the_same_list_with_its_pins(tmp_path):
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["channels"] == ["conda-forge"]
    *plain, pip = environment["dependencies"]
    assert plain == ["python=3.11", "pip"]
    lines = tmp_path / "requirements.txt"  # what conda hands to pip: a line for each item
    lines.write_text(
        "\n".join(pip["pip"]).replace("constraints.txt", str(ROOT / "constraints.txt")).replace("-e .", f"-e {ROOT}")
    )
    asked = list(parse_requirements(str(lines), session=PipSession()))
    assert [a.requirement for a in asked if a.is_editable] == [f"{ROOT}[all]"]
    assert {a.requirement for a in asked if a.constraint} == set(constraint_lines())


def test_the_citation_names_the_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors", "version", "license"} <= citation.keys()
    assert citation["cff-version"] == "1.2.0"
    paper = citation["preferred-citation"]
    assert [author["family-names"] for author in paper["authors"]] == ["Zhao", "Liu", "Cao", "Gong", "Patras"]
    assert paper["year"] == 2025 and paper["title"].startswith("AIM-Fair")
    import aimfair

    assert citation["version"] == aimfair.__version__


def test_importing_the_library_is_light():
    heavy = ("diffusers", "transformers", "papermill", "sklearn", "seaborn", "matplotlib", "nbformat", "timm", "peft")
    probe = f"import sys, aimfair.study; print([m for m in {heavy} if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True)
    assert shown.stdout.strip() == "[]", shown.stdout + shown.stderr


def test_nothing_tracked_is_large_or_only_a_trace_of_a_run():
    for name in tracked():
        size = (ROOT / name).stat().st_size
        assert size <= 20_000_000, f"{name} has {size / 1e6:.0f} MB"
        assert not re.search(r"(^|/)(__pycache__|\.ipynb_checkpoints|_build|\.venv|[\w-]+\.egg-info)/|\.pyc$", name), (
            name
        )
        assert not re.match(r"data/(runs|synthetic|cache)/", name), f"{name} belongs to this machine"


def test_no_tracked_file_is_a_pickle():
    assert not [name for name in tracked() if re.search(r"\.(pkl|pickle|pt|pth|ckpt|bin|npy)$", name)]


@pytest.mark.parametrize("check", [["check"], ["format", "--check"]], ids=["lint", "format"])
def test_ruff_is_content(check):
    done = subprocess.run([sys.executable, "-m", "ruff", *check, "."], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-500:]


def test_ruff_leaves_no_module_out():
    show = [sys.executable, "-m", "ruff", "check", "--show-files", "."]
    seen = {Path(line) for line in subprocess.run(show, cwd=ROOT, capture_output=True, text=True).stdout.splitlines()}
    modules = {path for part in ("aimfair", "tests", "notebooks") for path in (ROOT / part).rglob("*.py")}
    assert len(modules) > 100 and modules <= seen and not any("_build" in path.parts for path in seen)


def test_mypy_is_content():
    done = subprocess.run([sys.executable, "-m", "mypy"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-500:]


def test_the_makefile_says_what_to_do_about_a_python_that_is_too_old_or_cannot_make_environments(tmp_path):
    def make(python, *arguments):
        (tmp_path / "python").write_text(f"#!/bin/sh\n{python}\n")
        (tmp_path / "python").chmod(0o755)
        command = ["make", "test", f"PYTHON={tmp_path / 'python'}", f"VENV={tmp_path / 'none'}", *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    old = make('case "$*" in *version_info*) exit 1;; *) echo Python 3.9.2;; esac')
    assert old.returncode != 0 and "needs Python 3.11 or newer; this is Python 3.9.2." in old.stdout
    bare = make('case "$*" in *ensurepip*) exit 1;; esac')
    assert bare.returncode != 0 and "sudo apt-get install python3-venv" in bare.stdout
    assert not (tmp_path / "none").exists()
