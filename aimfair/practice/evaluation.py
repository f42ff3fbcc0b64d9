"""The fairness report of any model of any framework, from a table of its decisions or scores."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from aimfair.environment import AimfairError
from aimfair.practice.fairness import groupings, measure, own_thresholds
from aimfair.practice.report import Part, as_text, fairness_parts, write_page


def evaluate(
    path: Path,
    target: str,
    predicted: str,
    groups: Sequence[str],
    threshold: float | None = None,
    oracle: bool = False,
    out: Path | None = None,
) -> str:
    """Report on the decisions in a table, write the report as a page beside it (or to ``out``) and return it as text.

    target, predicted, groups  its columns; classes may have any names, which both columns share
    threshold  predicted holds scores: from here upwards the answer is the last of the two classes in order
    oracle     also report what a threshold of its own for each group would do
    Raises AimfairError for a table that is none, and for columns, classes and scores that do not fit together.
    """
    table = read_table(path, [target, predicted, *groups])
    wanted = as_classes(table[target])
    classes = order_classes(wanted)
    if len(classes) < 2:
        raise AimfairError(f"{path}: every {target} is {classes[0]}: of one class no fairness can be measured")
    if oracle and threshold is None:
        raise AimfairError("thresholds of each group need scores: give the usual --threshold")
    decided, score = as_classes(table[predicted]), None
    if threshold is not None:
        if len(classes) != 2:
            raise AimfairError(f"a threshold tells two classes apart; {target} has {len(classes)}")
        score = pd.to_numeric(table[predicted], errors="coerce").to_numpy(float)
        if not np.isfinite(score).all():
            at = int(np.argmin(np.isfinite(score)))
            raise AimfairError(f"{path} line {at + 2}: {predicted} is {table[predicted].iloc[at]!r}, no score")
        decided = pd.Series(np.where(score >= threshold, classes[1], classes[0]))
    if unknown := sorted(set(decided) - set(classes)):
        hint = "" if np.isinf(_number(unknown[0])) else "; scores need --threshold"
        raise AimfairError(f"{path}: {predicted} holds {unknown[0]!r}, which {target} never is ({classes[:5]}){hint}")
    grouped = groupings(table, groups)
    found = {name: measure(wanted, decided, group, classes) for name, group in grouped.items()}
    parts = [f"{len(table):,} images; accuracies and rates in per cent with 95 % intervals", *_positive(classes)]
    parts += fairness_parts(found)
    if oracle and score is not None and threshold is not None:
        for name, group in grouped.items():
            parts += _oracle(name, wanted, score, group, classes, threshold)
    write_page(out or path.with_name(f"{path.stem}_fairness.html"), f"Fairness of {path.name}", parts)
    return as_text(parts)


def _positive(classes: Sequence[str]) -> list[str]:
    return [f"True positives are images of class {classes[1]} that are called so."] if len(classes) == 2 else []


def _oracle(
    name: str, wanted: pd.Series, score: np.ndarray, group: pd.Series, classes: Sequence[str], threshold: float
) -> Iterable[Part]:
    cuts = own_thresholds((wanted == classes[1]).to_numpy(), score, group.to_numpy(), threshold)
    decided = np.where(score >= group.map(cuts), classes[1], classes[0])
    yield f"# A threshold for each {name}"
    yield (
        "An oracle: the thresholds were chosen on these very images, for the most alike error rates at the price of at most "
        "one point of accuracy, and need the group of everyone who is judged, which law may forbid to use."
    )
    yield cuts.rename("threshold").rename_axis("group").map("{:.4g}".format).reset_index()
    yield measure(wanted, decided, group, classes).summary


def as_classes(values: pd.Series) -> pd.Series:
    """Names of classes; numbers that are the same become the same name: "1.0" is "1"."""
    numbers = pd.to_numeric(values, errors="coerce")
    return values if numbers.isna().any() else numbers.map("{:g}".format)


def order_classes(values: Iterable[str]) -> list[str]:
    """The classes among ``values``: numbers by value, then names by alphabet."""
    return sorted(set(values), key=lambda name: (_number(name), name))


def _number(name: str) -> float:
    try:
        return float(name)
    except ValueError:
        return np.inf


def read_table(path: Path, wanted: Sequence[str]) -> pd.DataFrame:
    """A table of text with the columns ``wanted``, whatever its separator (, ; | or tab) and encoding (UTF-8, UTF-16,
    Windows). Raises AimfairError for what is no such table, for columns that are not there, and for empty fields."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise AimfairError(f"{path} cannot be read ({error.strerror})") from error
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        text = data.decode("cp1252", errors="replace")
    separator = max(",;\t|", key=text.partition("\n")[0].count)
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True))
    except csv.Error as error:
        raise AimfairError(f"{path} cannot be read as a table ({error})") from error
    if len(rows) < 2:
        raise AimfairError(f"{path} has no rows: a header and a line per image are wanted")
    wide = next((i for i, row in enumerate(rows) if row and len(row) != len(rows[0])), None)
    if wide is not None:
        raise AimfairError(f"{path} line {wide + 1}: {len(rows[wide])} fields, and {len(rows[0])} columns")
    table = pd.DataFrame([row for row in rows[1:] if row], columns=[name.strip() for name in rows[0]])
    if missing := [name for name in wanted if name not in table]:
        raise AimfairError(f"{path} has no column {', '.join(missing)}; it has: {', '.join(table.columns)}")
    if twice := [name for name in wanted if list(table.columns).count(name) > 1]:
        raise AimfairError(f"{path} has several columns {twice[0]}")
    for name in wanted:
        table[name] = table[name].str.strip()
        if (empty := table[name] == "").any():
            raise AimfairError(f"{path} line {empty.idxmax() + 2}: {name} is empty")
    return table
