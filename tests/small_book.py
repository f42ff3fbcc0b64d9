"""A small chapter with everything a chapter has, and the real book with that chapter in it, built once."""

import atexit
import json
import shutil
import tempfile
from dataclasses import asdict
from functools import cache
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from aimfair.book.execution import Stamp, parameters_hash
from aimfair.environment import home

PARAMETERS = """profile: str = "demo"  # name of a profile, or the path of a YAML file
seed: int = 100  # seed of the run
device: str = "auto"  # auto, cpu, cuda
data_root: str = ""  # folder of the real faces
runs_root: str = ""  # where runs are kept
reuse: bool = True  # take published runs
shift: float = 0.5  # what is added"""

CAPTION = "A line of this seed rises."
ALT = "Line chart: a straight line that rises from left to right."


def chapter(*cells):
    """A notebook with the common parameters and ``cells``, not run."""
    notebook = new_notebook(cells=[new_markdown_cell("# A small chapter"), parameters_cell(), *cells])
    notebook.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata["language_info"] = {"name": "python"}
    return notebook


def parameters_cell():
    return new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]})


def full_chapter():
    """Maths, a table, a numbered figure, a glued number, a citation, a claim."""
    figure = new_code_cell(
        "from matplotlib import pyplot\n\nfigure, axes = pyplot.subplots(figsize=(4, 2.5))\n"
        "axes.plot([0, 1], [shift, seed / 100])\naxes.set(xlabel='step', ylabel='value');",
        metadata={"mystnb": {"figure": {"caption": CAPTION, "name": "fig-small"}, "image": {"alt": ALT}}},
    )
    return chapter(
        new_markdown_cell(
            "## Maths\n\nThe gap of the true positive rates {cite}`zhao2025aimfair`, with $\\boldsymbol{y}$ in bold:\n\n"
            "$$\\Delta = \\max_a |P(\\hat y = 1 \\mid y = 1, a) - P(\\hat y = 1 \\mid y = 1)|$$ (eq-small)\n"
        ),
        new_code_cell(
            "import numpy as np\nfrom myst_nb import glue\n\nvalues = np.round(np.linspace(shift, seed / 100, 4), 3)\n"
            "glue('small-mean', float(values.mean()), display=False)\nprint(len(values), 'values')"
        ),
        new_markdown_cell(
            "## Figure\n\nThe mean is {glue:text}`small-mean:.3f`; see {numref}`fig-small` and {eq}`eq-small`."
        ),
        figure,
        new_code_cell(
            "from aimfair.study.claims import claim\n\nclaim('shift is positive', shift > 0, f'it is {shift}')"
        ),
        new_markdown_cell("## Table\n\n| group | faces |\n|---|---|\n| (0, 0) | 5 |\n| (0, 1) | 45 |"),
    )


def write(notebook, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return path


def executed(notebook, path, **parameters):
    """Store ``notebook`` as papermill would after a good run with ``parameters``, without running it; with a stamp."""
    for count, cell in enumerate((c for c in notebook.cells if c.cell_type == "code"), 1):
        cell.execution_count = cell.execution_count or count
    write(notebook, path)
    stamp = Stamp(path.name, parameters, parameters_hash(parameters), "0" * 16, 12.3, "2 CPU cores", "2026-01-02")
    path.with_suffix(".json").write_text(json.dumps(asdict(stamp)))
    return path


@cache
def built():
    """Folder of the HTML pages of the real book with the small chapter added, run and built for this test session."""
    from aimfair.book import build as book
    from aimfair.book import execution, publishing
    from aimfair.study import profiles

    folder = Path(tempfile.mkdtemp(prefix="aimfair-book-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    copy = folder / "book"
    shutil.copytree(home() / "book", copy, ignore=shutil.ignore_patterns("_build"))
    shutil.copytree(
        home() / "data" / "tiny-sd", folder / "data" / "tiny-sd", ignore=shutil.ignore_patterns("*.safetensors")
    )
    notebook = write(full_chapter(), folder / "notebooks" / "00_small.ipynb")
    out = folder / "runs" / "00_small.ipynb"
    execution.execute(notebook, out, {"profile": profiles.MAIN, "device": "cpu", "seed": 200})
    publishing.publish(out, copy / "notebooks")
    return book.build(copy).parent
