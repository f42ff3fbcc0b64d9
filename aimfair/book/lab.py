"""An extension of JupyterLab that shows in a chapter what its page of the book shows: numbers, citations, captions."""

from __future__ import annotations

import json
from pathlib import Path

from aimfair.environment import home

NAME = "aimfair-lab"


def write_extension(folder: Path) -> Path:
    """Write the extension below ``folder``, which belongs into JUPYTER_PATH; returns its own folder."""
    own = folder / "labextensions" / NAME
    (own / "static").mkdir(parents=True, exist_ok=True)
    built = {"load": "static/remoteEntry.js", "extension": "./extension"}
    about = {"name": NAME, "version": "1.0.0", "jupyterlab": {"extension": True, "_build": built}}
    (own / "package.json").write_text(json.dumps(about))
    script = Path(__file__).with_suffix(".js").read_text(encoding="utf-8")
    known = json.dumps(citations(home() / "book" / "references.bib"))
    (own / "static" / "remoteEntry.js").write_text(script.replace("CITATIONS = {}", f"CITATIONS = {known}", 1))
    return own


def citations(bibliography: Path) -> dict[str, str]:
    """How each entry of a BibTeX file is cited: ``[Zhao et al., 2025]``."""
    from pybtex.database import parse_file
    from pybtex.richtext import Text

    cited = {}
    for key, entry in parse_file(str(bibliography)).entries.items():
        people = (person.prelast_names + person.last_names for person in entry.persons.get("author", []))
        names = [str(Text.from_latex(" ".join(parts))) for parts in people]
        who = names[0] + " et al." if len(names) > 2 else " and ".join(names)
        cited[key] = f"[{who}, {entry.fields.get('year', '')}]"
    return cited
