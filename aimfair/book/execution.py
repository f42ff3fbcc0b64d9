"""Run a notebook by papermill: its parameters checked before, its failure told in one line, its success stamped."""

from __future__ import annotations

import ast
import builtins
import difflib
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
import typing
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nbformat
import yaml
from pydantic import TypeAdapter, ValidationError

from aimfair.book.notebook import code_cells, faults, read, tidy, write
from aimfair.environment import AimfairError, aside, choose_device, device_name, home
from aimfair.progress import FILE
from aimfair.study import profiles

LOOK_EVERY = 0.5  # seconds between two looks at a running notebook


@dataclass(frozen=True)
class Stamp:
    """What a finished run of a notebook was: written only after the last cell ended well."""

    notebook: str
    parameters: dict[str, Any]
    parameters_hash: str
    code_hash: str
    seconds: float
    device: str
    date: str


def notebook_parameters(path: Path) -> dict[str, str]:
    """Names of the parameters that a notebook declares in its cell tagged ``parameters``, with their types as written."""
    cells = [cell for cell in code_cells(read(path)) if "parameters" in cell.metadata.get("tags", [])]
    lines = ast.parse(cells[0].source).body if cells else []
    return {ast.unparse(line.target): ast.unparse(line.annotation) for line in lines if isinstance(line, ast.AnnAssign)}


def check_parameters(path: Path, parameters: Mapping[str, Any]) -> None:
    """Refuse what papermill would inject without a word: a name that nothing reads, a value of another type.

    Besides what the notebook declares, the common parameters and the fields of a profile are known everywhere.
    """
    known = profiles.FIELDS | profiles.COMMON
    declared = notebook_parameters(path)
    for name, kind in declared.items():
        try:
            known = known | {name: eval(kind, vars(builtins) | vars(typing))}
        except NameError:  # a type that the notebook imports
            known = known | {name: Any}
    for name, value in parameters.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it declares {', '.join(declared) or 'none'}"
            raise AimfairError(f"{path.name}: unknown parameter {name!r}; {hint}")
        try:
            TypeAdapter(known[name]).validate_python(value, strict=True)
        except ValidationError as error:
            kind = getattr(known[name], "__name__", str(known[name]))
            given = f"{value!r} ({type(value).__name__})"
            raise AimfairError(f"{path.name}: parameter {name} must be {kind}, got {given}") from error


def code_hash(path: Path) -> str:
    """Hash of what decides what the notebook computes and says: its cells, the library, the profiles, the published runs."""
    digest = hashlib.sha256()
    for cell in read(path).cells:
        digest.update(f"{cell.cell_type}\n{cell.source}\n".encode())
    library = [*(home() / "aimfair").rglob("*.py"), *(home() / "notebooks").rglob("*.py")]
    for file in sorted([*library, *(home() / "notebooks" / "profiles").glob("*.yaml")]):
        digest.update(file.read_bytes())
    for file in sorted((home() / "data" / "published").rglob("*.*")):  # a published file is never written again
        digest.update(f"{file.name} {file.stat().st_size}".encode())
    return digest.hexdigest()[:16]


def parameters_hash(parameters: Mapping[str, Any]) -> str:
    """Hash of a run's parameters, whatever their order."""
    return hashlib.sha256(json.dumps(parameters, sort_keys=True).encode()).hexdigest()[:16]


def stamp_of(executed: Path) -> Stamp | None:
    """The stamp of an executed notebook; None if its run never ended well."""
    try:
        return Stamp(**json.loads(executed.with_suffix(".json").read_text())) if executed.exists() else None
    except (OSError, ValueError, TypeError):
        return None


def is_current(stamp: Stamp | None, notebook: Path, parameters: Mapping[str, Any]) -> bool:
    """Whether running ``notebook`` again with ``parameters`` would repeat the stamped run."""
    same = stamp is not None and stamp.parameters_hash == parameters_hash(parameters)
    return same and stamp is not None and stamp.code_hash == code_hash(notebook)


def execute(
    notebook: Path,
    out: Path,
    parameters: Mapping[str, Any],
    *,
    timeout: float | None = None,
    variables: Mapping[str, str] | None = None,
    tell: Callable[[int, int, str], None] = lambda done, total, doing: None,
) -> Stamp:
    """Run ``notebook`` by papermill in its own process, in the notebook's folder; ``out`` appears when all went well.

    Beside ``out`` lie its stamp (``.json``) and papermill's log (``.log``). A run that fails does not touch ``out``:
    what it got to is kept under ``<name>.failed.ipynb``.

    timeout    seconds that one cell may take; None: as long as it needs
    variables  environment variables of the notebook's process on top of this one's
    tell       called now and then with (code cells done, code cells in all, progress of what the cell is at or "")

    Raises AimfairError: unknown parameter or wrong type (before anything starts), an error in a cell, a kernel that
    died, a time-out; it names the cell.
    """
    check_parameters(notebook, parameters)
    device = device_name(choose_device(str(parameters.get("device", "auto"))))
    before, started = code_hash(notebook), time.monotonic()
    out.parent.mkdir(parents=True, exist_ok=True)
    partial, kept = out.with_name(f".{out.stem}.{os.getpid()}.ipynb"), out.with_name(f"{out.stem}.failed.ipynb")
    log, doing = out.with_suffix(".log"), out.with_suffix(".progress")
    command = [sys.executable, "-m", "papermill", str(notebook), str(partial)]
    command += [
        "--cwd",
        str(notebook.parent),
        "--kernel",
        "python3",
        "--language",
        "python",
        "--no-progress-bar",
        "--start-timeout",
        "180",
    ]
    command += ["-y", yaml.safe_dump(dict(parameters), sort_keys=False)] if parameters else []
    command += ["--execution-timeout", str(int(timeout))] if timeout else []
    surroundings = os.environ | {
        "AIMFAIR_PROGRESS": f"{FILE}{doing}",  # no bar in stored outputs
        "JUPYTER_PREFER_ENV_PATH": "1",  # the kernel of this environment before one of the user's other ones
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }
    with log.open("w") as journal:
        process = subprocess.Popen(command, stdout=journal, stderr=journal, env=surroundings | dict(variables or {}))
        try:
            while process.poll() is None:
                tell(*_cells_done(partial), doing.read_text() if doing.exists() else "")
                time.sleep(LOOK_EVERY)
        finally:
            doing.unlink(missing_ok=True)
            if process.poll() is None:
                process.terminate()
                process.wait()
                partial.unlink(missing_ok=True)
    if process.returncode != 0:
        raise AimfairError(_failure(notebook, partial, kept, log, timeout, process.returncode))
    date = datetime.now(UTC).strftime("%Y-%m-%d")
    seconds = round(time.monotonic() - started, 1)
    stamp = Stamp(notebook.name, dict(parameters), parameters_hash(parameters), before, seconds, device, date)
    out.with_suffix(".json").unlink(missing_ok=True)  # never an old stamp beside a new notebook
    partial.replace(out)
    with aside(out.with_suffix(".json")) as record:
        record.write_text(json.dumps(asdict(stamp), indent=1) + "\n")
    kept.unlink(missing_ok=True)
    return stamp


def _cells_done(partial: Path) -> tuple[int, int]:
    try:
        cells = code_cells(nbformat.read(partial, as_version=4))
    except Exception:  # papermill is just writing it, or has not begun
        return 0, 0
    return sum(cell.metadata.get("papermill", {}).get("status") == "completed" for cell in cells), len(cells)


def _failure(notebook: Path, partial: Path, kept: Path, log: Path, timeout: float | None, status: int) -> str:
    """One line: which cell of which notebook, why, and where to look."""
    said = log.read_text(errors="replace")
    last = next((line for line in reversed(said.splitlines()) if line.strip()), "papermill said nothing")[:200]
    cells = code_cells(read(partial)) if partial.exists() else []
    if not cells:
        return f"{notebook.name} did not start: {last}; see {log}"
    partial.replace(kept)
    # After a dead kernel or a time-out papermill calls every cell completed; those that never began have no start.
    at = max((i for i, cell in enumerate(cells) if cell.metadata.get("papermill", {}).get("start_time")), default=0)
    errors = [(i, o) for i, cell in enumerate(cells) for o in cell.outputs if o.output_type == "error"]
    why = f"papermill was killed by signal {-status}" if status < 0 else last
    if "DeadKernelError" in said:
        why = "its kernel died (killed, or out of memory)"
    elif "CellTimeoutError" in said:
        why = f"it took longer than {timeout:g} s"
    elif errors:
        at, error = errors[0]
        text = " ".join(str(error.evalue).split())[:300]
        why = text if error.ename == "AimfairError" else f"{error.ename}: {text}"
    first = cells[at].source.strip().splitlines()[0][:60]
    return f"{notebook.name} stopped in code cell {at + 1} of {len(cells)} (`{first}`): {why}; see {kept}"


def refresh(notebook: Path, timeout: float | None = None) -> bool:
    """Run ``notebook`` with its defaults and store the outputs in it; returns whether a byte of it changed.

    It sees the published runs only, not those of this machine, as a reader's clone would. Raises AimfairError for what is
    no notebook, and where a cell fails.
    """
    read(notebook)  # says what is wrong with it before anything runs
    before = notebook.read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        executed = Path(folder) / notebook.name
        execute(notebook, executed, {}, timeout=timeout, variables={"AIMFAIR_RUNS": f"{folder}/runs"})
        fresh = tidy(read(executed))
    if found := faults(fresh):
        raise AimfairError(f"{notebook.name}: {found[0]}")
    write(fresh, notebook)
    return notebook.read_bytes() != before
