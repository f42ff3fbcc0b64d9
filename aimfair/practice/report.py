"""Tables and text as a page that stands alone, and as text for a terminal."""

from __future__ import annotations

import html
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeAlias

import pandas as pd

from aimfair.practice.fairness import FEW, Fairness

Part: TypeAlias = Any  # str | pd.DataFrame; pandas has no types
"""Of a report: a heading ("# ..."), a paragraph, or a table."""

STYLE = """body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1b1b1b }
table { border-collapse: collapse; margin: 1rem 0 } th { text-align: left } th, td { padding: .2rem .8rem .2rem 0; border-bottom: 1px solid #ddd }
td { font-variant-numeric: tabular-nums } @media (prefers-color-scheme: dark) { body { background: #161616; color: #eee } }"""


def fairness_parts(found: dict[str, Fairness]) -> Iterable[Part]:
    """What a report says of the decisions of one model, for each grouping of the images."""
    for name, fairness in found.items():
        yield f"# By {name}"
        yield fairness.summary
        yield fairness.cells
        if len(fairness.classes) > 2:
            yield fairness.by_class
        few = fairness.cells.loc[fairness.cells["note"] != "", ["group", "target"]].agg(", ".join, axis=1)
        if len(few):
            yield f"Fewer than {FEW} images, too few to say: {'; '.join(few)}. The summaries count them all the same."


def as_text(parts: Iterable[Part]) -> str:
    """The parts for a terminal."""
    return "\n\n".join(
        part.removeprefix("# ") if isinstance(part, str) else part.to_string(index=False, float_format="{:.1f}".format)
        for part in parts
    )


def write_page(path: Path, title: str, parts: Iterable[Part]) -> None:
    """The parts as a page of HTML that needs nothing else; it appears whole or not at all."""
    body = [f"<h1>{html.escape(title)}</h1>"]
    for part in parts:
        if isinstance(part, pd.DataFrame):
            body.append(part.to_html(index=False, float_format="{:.1f}".format, na_rep="-", border=0))
        elif part.startswith("# "):
            body.append(f"<h2>{html.escape(part[2:])}</h2>")
        else:
            body.append(f"<p>{html.escape(part)}</p>")
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title><style>{STYLE}</style>'
    partial = path.with_suffix(".partial")
    partial.write_text("\n".join([head, *body]), encoding="utf-8")
    partial.replace(path)
