"""A stored notebook: read it, see what is wrong with it, bring it into the form in which it is kept."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from aimfair.environment import AimfairError, aside


def read(path: Path) -> NotebookNode:
    """The notebook at ``path``. Raises AimfairError if it is missing or no notebook."""
    try:
        return nbformat.read(path, as_version=4)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise AimfairError(f"no notebook {path}") from error
    except (nbformat.ValidationError, ValueError, AttributeError, TypeError, KeyError) as error:  # of other JSON, any
        raise AimfairError(f"{path} is not a notebook: {str(error).splitlines()[0]}") from error


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """Code cells that hold code; Jupyter never runs empty ones."""
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]


def faults(notebook: NotebookNode) -> list[str]:
    """What a stored notebook must not have: error outputs, cells never run or run out of order."""
    found, cells = [], code_cells(notebook)
    for number, cell in enumerate(cells, 1):
        expected = "raises-exception" in cell.metadata.get("tags", [])
        if not expected and any(output.output_type == "error" for output in cell.outputs):
            found.append(f"code cell {number} holds an error")
    counts = [cell.execution_count for cell in cells]
    if counts != list(range(1, len(cells) + 1)):
        found.append(f"its code cells were not run once each in order: counts {counts}")
    return found


ABSOLUTE = re.compile(r"(?<![\w.:/~<*\\-])/(?!path/to)(?:[\w.+-]+/)+[\w.+-]*|(?<!\w)[A-Z]:\\\\?\w+")


def absolute_paths(notebook: NotebookNode) -> list[str]:
    """Paths of somebody's machine in the text of a notebook: its sources and textual outputs."""
    texts = [cell.source for cell in notebook.cells]
    for cell in code_cells(notebook):
        for output in cell.outputs:
            texts.append("".join(output.get("text", "")) + "\n".join(output.get("traceback", [])))
            texts += [str(value) for mime, value in output.get("data", {}).items() if not mime.startswith("image/")]
    pictures = re.compile(r"base64,[A-Za-z0-9+/=\\n]+|iVBORw0KG[A-Za-z0-9+/=\\n]+")
    return sorted({match for text in texts for match in ABSOLUTE.findall(pictures.sub("", text))})


def tidy(notebook: NotebookNode) -> NotebookNode:
    """The stored form: sources, outputs, counts and the tags that mean something. Changes ``notebook``, returns it.

    Time stamps, widget states, kernel versions, random ids of styled tables and the splitting of printed text into
    chunks differ between equal runs; without them the same results give the same bytes.
    """
    kept = {key: notebook.metadata[key] for key in ("aimfair",) if key in notebook.metadata}
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
            "language_info": {"name": "python", "pygments_lexer": "ipython3", "file_extension": ".py"},
        }
        | kept
    )
    for cell in notebook.cells:
        for key in ("papermill", "execution", "ExecuteTime", "collapsed", "scrolled", "trusted", "jupyter"):
            cell.metadata.pop(key, None)
        if not cell.metadata.get("tags", True):
            del cell.metadata["tags"]
        if cell.cell_type == "code":
            cell.outputs = _merged(cell.outputs)
    _number_styled_tables(notebook)
    return notebook


def _merged(outputs: Iterable[NotebookNode]) -> list[NotebookNode]:
    merged: list[NotebookNode] = []
    for output in outputs:
        if output.output_type == "stream" and merged and merged[-1].get("name") == output.name:
            merged[-1].text += output.text
        else:
            output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)
            merged.append(output)
    return merged


def _number_styled_tables(notebook: NotebookNode) -> None:
    """Give the tables of pandas' Styler ids in the order of their appearance, and no address in memory."""
    numbers: dict[str, str] = {}
    for output in (output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs):
        for mime, value in output.get("data", {}).items():
            if isinstance(value, str) and not mime.startswith("image/"):
                value = re.sub(r"Styler at 0x[0-9a-f]+", "Styler", value)
                output.data[mime] = re.sub(
                    r"\bT_[0-9a-f]{5}", lambda found: numbers.setdefault(found[0], f"T_{len(numbers):05d}"), value
                )


def write(notebook: NotebookNode, path: Path) -> None:
    """Write a notebook as Jupyter does, under a temporary name that is renamed at the end."""
    with aside(path) as partial:
        nbformat.write(notebook, partial)
