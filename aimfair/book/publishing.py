"""Publish an executed notebook: the clean copy that the book is built from, or a refusal that says why."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from aimfair.book.chapters import clock
from aimfair.book.execution import Stamp, stamp_of
from aimfair.book.notebook import absolute_paths, faults, read, tidy, write
from aimfair.environment import AimfairError, home
from aimfair.study import profiles

DRAWN = ("faceworld",)
"""Data sets whose faces belong to nobody: only their pictures may be published."""
BUDGET = 1_000_000  # bytes of a published notebook


def publish(executed: Path, folder: Path) -> Path:
    """Write the clean copy of an executed notebook into ``folder``; returns its path.

    Raises AimfairError instead of publishing: no stamp, an error, a cell that was not run, a path of this machine,
    a picture of real faces, more bytes than the budget.
    """
    stamp = stamp_of(executed)
    if stamp is None:
        raise AimfairError(f"{executed} has no stamp of a finished run: it is not published; run it again")
    notebook = tidy(read(executed))
    problems = faults(notebook) + pictures_of_people(notebook, stamp)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if not (o.output_type == "stream" and o.name == "stderr")]
    _present_parameters(notebook, stamp)
    notebook = _without_machine(notebook, stamp)
    given = stamp.parameters.get("profile", profiles.MAIN)  # a name or the path of a YAML file
    if Path(given).stem != profiles.MAIN:
        siblings = {path.stem for place in (executed.parent, folder) for path in place.glob("[0-9]*.ipynb")}
        notebook = for_profile(notebook, Path(given).stem, siblings)
    problems += [f"it names {path}, a path of this machine" for path in absolute_paths(notebook)]
    shown = {key: value for key, value in asdict(stamp).items() if key != "parameters"}
    shown["reuse"] = stamp.parameters.get("reuse", True)
    notebook.metadata["aimfair"] = notebook.metadata.get("aimfair", {}) | shown
    size = len(nbformat.writes(notebook).encode())
    if size > BUDGET:
        problems.append(f"it has {size / 1e6:.1f} MB, more than {BUDGET / 1e6:.0f} MB")
    if problems:
        raise AimfairError(f"{executed} is not published: {'; '.join(problems)}")
    write(notebook, folder / executed.name)
    return folder / executed.name


def pictures_of_people(notebook: NotebookNode, stamp: Stamp) -> list[str]:
    """Cells with a picture that may show real faces, or faces drawn by a model that was trained on them.

    On a data set of real people a cell may show a picture only if it is tagged ``figure-without-faces``.
    """
    changes = {k: v for k, v in stamp.parameters.items() if k in profiles.FIELDS and k not in profiles.COMMON}
    study = profiles.load(stamp.parameters.get("profile", profiles.MAIN), **changes)
    if study.dataset in DRAWN and (study.corpus or study.dataset) in DRAWN:
        return []
    found = []
    for number, cell in enumerate(notebook.cells, 1):
        text = json.dumps(cell.get("outputs", [])) + (cell.source if cell.cell_type == "markdown" else "")
        shows = any(mark in text for mark in ('"image/', "data:image", "<img", "<svg")) or cell.get("attachments")
        if shows and "figure-without-faces" not in cell.metadata.get("tags", []):
            found.append(f"cell {number} shows a picture on {study.dataset} without the tag figure-without-faces")
    return found


def _present_parameters(notebook: NotebookNode, stamp: Stamp) -> None:
    """Hide the defaults and put a note with the facts of the run above the injected cell."""
    tags = [cell.metadata.get("tags", []) for cell in notebook.cells]
    if not any("injected-parameters" in names for names in tags):
        return
    for cell, names in zip(notebook.cells, tags, strict=True):
        if "parameters" in names and "remove-input" not in names:
            cell.metadata["tags"] = [*names, "remove-input"]
    text = (
        "```{admonition} Parameters of this run\n:class: note\n"
        f"Profile `{stamp.parameters.get('profile', profiles.MAIN)}`, run on {stamp.date} in {clock(stamp.seconds)} on "
        f"{stamp.device}. All other parameters have the defaults of the notebook and of its profile.\n```"
    )
    tagged = {"tags": ["parameters-note"]}
    note = nbformat.v4.new_markdown_cell(text, id="parameters-of-this-run", metadata=tagged)
    notebook.cells.insert(next(i for i, names in enumerate(tags) if "injected-parameters" in names), note)


def _without_machine(notebook: NotebookNode, stamp: Stamp) -> NotebookNode:
    """The notebook with this checkout's and the data's places written as a reader would write them."""
    names = {f"{home()}/": "", str(home()): "."}
    for value in stamp.parameters.values():
        if isinstance(value, str) and Path(value).is_absolute():
            inside = Path(value).is_relative_to(home())
            names[value] = str(Path(value).relative_to(home())) if inside else f"path/to/{Path(value).name}"
    text = nbformat.writes(notebook)
    for path in sorted(names, key=len, reverse=True):
        text = text.replace(json.dumps(path)[1:-1], names[path])
    return nbformat.reads(text, as_version=4)


LABEL = re.compile(r"^:(?:label|name): *(\S+)|^\(([\w-]+)\)=", re.MULTILINE)


def for_profile(notebook: NotebookNode, profile: str, siblings: set[str]) -> NotebookNode:
    """The same chapter as another profile's page of the same book; changes ``notebook``, returns it.

    Its title names the profile. Its figures, tables and equations get names of their own, since a book has each name
    once. Links to chapters that this profile does not have (``siblings`` are those it has) lead to the main study's.
    """
    texts = [cell for cell in notebook.cells if cell.cell_type == "markdown"]
    figures = [
        cell.metadata["mystnb"]["figure"] for cell in notebook.cells if "figure" in cell.metadata.get("mystnb", {})
    ]
    labels = {label for cell in texts for found in LABEL.findall(cell.source) for label in found if label}
    labels |= {figure["name"] for figure in figures}
    for figure in figures:
        figure["name"] = f"{profile}-{figure['name']}"
    texts[0].source = re.sub(r"\A# (.+)", rf"# \1: {profile}", texts[0].source)
    for cell in texts:
        for label in labels:
            cell.source = re.sub(rf"(?<![\w-]){re.escape(label)}(?![\w-])", f"{profile}-{label}", cell.source)
        for link in set(re.findall(r"\{doc\}`([\w-]+)`", cell.source)) - siblings:
            cell.source = cell.source.replace(f"{{doc}}`{link}`", f"{{doc}}`../{link}`")
    return notebook
