"""Build the pages of the book with Jupyter Book, warnings as errors."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from aimfair.book import chapters
from aimfair.book.publishing import publish
from aimfair.environment import AimfairError, home


def make(profile: str, parameters: Mapping[str, Any], **how: Any) -> Path:
    """Run the chapters of ``profile``, publish them and build the book; returns the path of its first page.

    how  only, fresh, everything, timeout: see :func:`aimfair.book.chapters.run`
    """
    for executed in chapters.run(profile, parameters, **how):
        publish(executed, chapters.published_folder(profile))
    return build(home() / "book")


def build(book: Path, out: Path | None = None) -> Path:
    """Build the pages of ``book`` and return the path of ``index.html``.

    Published chapters that the table of contents does not list (of a profile that is not part of the book as shipped)
    get a part of their own before the appendix. Raises AimfairError that lists what Jupyter Book complained about.
    """
    out = out or book
    contents = out / "_build" / "_toc.yml"
    contents.parent.mkdir(parents=True, exist_ok=True)
    contents.write_text(yaml.safe_dump(table_of_contents(book), sort_keys=False))
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", str(book)]
    command += ["--path-output", str(out), "--toc", str(contents), "--all", "-W", "-n", "--keep-going"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"NO_COLOR": "1"})
    said = done.stdout + done.stderr
    (out / "_build" / "build.log").write_text(said, encoding="utf-8")
    if done.returncode != 0:
        wrong = [line for line in said.splitlines() if "WARNING" in line or "ERROR" in line or "Error" in line]
        raise AimfairError("the book does not build:\n" + "\n".join(wrong[:20] or said.splitlines()[-20:]))
    return out / "_build" / "html" / "index.html"


def table_of_contents(book: Path) -> dict[str, Any]:
    """``_toc.yml``, with a part for each folder of published chapters that it does not list."""
    contents = yaml.safe_load((book / "_toc.yml").read_text())
    listed = {Path(entry["file"]).with_suffix("") for part in contents["parts"] for entry in part["chapters"]}
    more: dict[str, dict[str, Any]] = {}
    for path in sorted((book / "notebooks").rglob("[!.]*.ipynb")):
        name = path.relative_to(book).with_suffix("")
        if name not in listed and not any(part.startswith(".") or part == "_build" for part in name.parts):
            folder = name.parent.name
            caption = "More chapters" if folder == "notebooks" else f"Profile {folder}"
            part = more.setdefault(folder, {"caption": caption, "numbered": True, "chapters": []})
            part["chapters"].append({"file": name.as_posix()})
    contents["parts"][-1:-1] = more.values()  # before the appendix
    return contents
