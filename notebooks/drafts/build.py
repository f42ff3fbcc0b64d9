"""Turn a draft into a notebook: ``build.py DRAFT.txt OUT.ipynb``; blocks start with ``#%% md`` or ``#%% code {metadata}``."""

import json
import re
import sys
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook


def cell(number, block):
    head, body = block.split("\n", 1)
    kind, _, metadata = head.partition(" ")
    if kind == "md":
        return new_markdown_cell(body.strip("\n"), id=f"c{number:02d}")
    metadata = json.loads(metadata) if metadata.strip() else {}
    if "fig" in metadata:
        name, caption, alt = metadata.pop("fig")
        metadata["mystnb"] = {"figure": {"caption": caption, "name": name}, "image": {"alt": alt}}
    return new_code_cell(body.strip("\n"), metadata=metadata, id=f"c{number:02d}")


blocks = re.split(r"(?m)^#%% ", Path(sys.argv[1]).read_text())[1:]
kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
metadata = {"kernelspec": kernel} | ({"aimfair": {"profiles": sys.argv[3:]}} if sys.argv[3:] else {})
notebook = new_notebook(cells=[cell(i, b) for i, b in enumerate(blocks)], metadata=metadata)
nbformat.write(notebook, sys.argv[2])
