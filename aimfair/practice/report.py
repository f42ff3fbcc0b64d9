"""Tables and text as a page that stands alone, and as text for a terminal."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import pandas as pd

from aimfair.masks import scalar_share
from aimfair.practice.fairness import FEW, Fairness, groupings, measure
from aimfair.repairing import Repaired

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


def repair_parts(
    tested: pd.DataFrame,
    protected: Sequence[str],
    classes: Sequence[str],
    repaired: Repaired,
    seen: pd.DataFrame,
    notes: Sequence[str],
) -> Iterable[Part]:
    """What a report says of a repair.

    tested  a row per test image: class, before, after, and the ``protected`` columns
    seen    of each class and group of the synthetic images: their number, accuracy of the biased model, and what
            :func:`aimfair.practice.synthetic.look_at` found
    """
    grouped = groupings(tested, protected) if protected else {"class": pd.Series("all", index=tested.index)}
    yield f"{len(tested):,} test images; accuracies and rates in per cent with 95 % intervals."
    for name, group in grouped.items():
        before, after = (measure(tested["class"], tested[when], group, classes) for when in ("before", "after"))
        yield f"# Before and after, by {name}"
        if protected:
            yield before.summary.drop(columns="what").merge(after.summary, on="measure", suffixes=(" before", " after"))
        cells = before.cells.drop(columns="note")
        yield cells.merge(after.cells, on=["group", "target", "images"], suffixes=(" before", " after"))
    if not protected:
        yield (
            "The labels hold no protected attribute. How groups of real people fare, before or after, cannot be known from "
            "them: label a few hundred test images, and run aimfair evaluate on predictions.csv."
        )
    yield "# The synthetic images"
    yield seen
    yield (
        "In per cent: images in which a face is found, that are there twice, that are copies of photographs, and whose class "
        "the biased model says. Low accuracy means a bias, or images that do not show what their folder is called."
    )
    yield "# What learnt"
    names, learnt = [name for name, _ in repaired.model.named_parameters()], repaired.mask
    share = 100 * scalar_share(repaired.model, learnt)
    yield f"{len(learnt)} of {len(names)} tensors, {share:.0f} % of the weights; all others are bit-identical to the model's."
    yield "Frozen: " + (", ".join(name for name in names if name not in learnt) or "none")
    history = repaired.history
    yield f"Epoch {history.chosen + 1} of {len(history.loss)} was chosen by validation accuracy, at a rate of {repaired.lr:g}."
    yield pd.DataFrame(
        {"loss": [f"{loss:.4f}" for loss in history.loss], "validation accuracy": history.validation_accuracy}
    )
    yield "# What else to know"
    yield from notes


def write_card(path: Path, model: str, parts: Iterable[Part], tested: pd.DataFrame) -> None:
    """A model card as the Hugging Face hub reads it, with the accuracy after the repair in its metadata."""
    from huggingface_hub import EvalResult, ModelCardData

    accuracy = float((tested["after"] == tested["class"]).mean())
    task = "image-classification"
    result = EvalResult(
        task_type=task,
        dataset_type="private",
        dataset_name="test images of the user",
        metric_type="accuracy",
        metric_value=round(accuracy, 4),
    )
    about = ModelCardData(
        library_name=model.partition(":")[0],
        pipeline_tag=task,
        tags=["fairness", "aim-fair", "bias-mitigation"],
        model_name=f"{model}, repaired",
        eval_results=[result],
    )
    text = [f"---\n{about.to_yaml()}\n---", f"# {model}, repaired by AIM-Fair"]
    text.append(
        "Fine-tuned on synthetic images of equal groups, in the tensors that react to bias. Check it on people of its use."
    )
    for part in parts:
        table = isinstance(part, pd.DataFrame)
        text.append(part.to_markdown(index=False, floatfmt=".1f") if table else part.replace("# ", "## ", 1))
    path.write_text("\n\n".join(text) + "\n", encoding="utf-8")


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
