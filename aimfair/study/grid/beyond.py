"""What the paper leaves open, as runs: experiments of the form of its tables, each with a name and a question.

Every row of an experiment has the same budget: five values of what it searches, where it learns at all, one of them chosen
on real validation faces without a group label. Runs that a table of the paper has too are the same runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from aimfair import methods
from aimfair.audit import selection as selection_rules
from aimfair.environment import AimfairError
from aimfair.methods._partial import BLOCKS
from aimfair.study.grid.experiments import Experiment, Row, lines, own, trained
from aimfair.study.grid.paper_tables import table_5
from aimfair.study.profiles import Profile

DRAWS = range(5)
"""Random masks that every selected mask is compared with."""

MASKS = (
    ("All tensors", "full-finetuning", "all"),
    ("AIM-Fair", "aim-fair", "aim-fair"),
    ("Random mask", "random-mask", "random"),
)
"""Title, method, and the word for it in :mod:`aimfair.methods.batchnorm_real`."""

CHECKPOINTS: dict[str, dict[str, Any]] = {"best": {}, "last": {"select": "last"}}
"""Which epoch is kept: the best on validation faces, as usual, or the last."""


def selected(profile: Profile, names: Sequence[str] = ()) -> list[Experiment]:
    """The experiments with these names, or all where none is named. Raises AimfairError for one that is not here."""
    there = {experiment.name: experiment for experiment in (make(profile) for make in ALL)}
    for name in names:
        if name not in there:
            raise AimfairError(f"no experiment {name!r} beyond the paper; there are: {', '.join(there)}")
    return [there[name] for name in names or there]


def random_rows(title: str, method: str, **fixed: Any) -> list[Row]:
    """A row for each of :data:`DRAWS`, called by the title with its number."""
    return [Row(f"{title} {draw + 1}", method, {**fixed, "draw": draw}) for draw in DRAWS]


def averaged(frame: pd.DataFrame, experiment: Experiment) -> pd.DataFrame:
    """Chosen runs of ``experiment`` with all :func:`random_rows` of a title as one, their mean: a row per method and seed.

    frame  as :func:`aimfair.analysis.table_runs.chosen` gives it; only its numbers are kept
    """
    numbered = {row.title: row.title.rpartition(" ")[0] for row in experiment.rows if "draw" in row.fixed}
    named = frame.assign(method=frame["method"].replace(numbered))
    return named.groupby(["setting", "method", "seed"], sort=False).mean(numeric_only=True).reset_index()


def selection(p: Profile) -> Experiment:
    """The one grid of learning rates for all, five random masks of AIM-Fair's size, and no selection at all: the baseline
    trained on real faces for twice as long, because fine-tuning is longer training, too."""
    rows = lines("erm", "full-finetuning", "aim-fair") + random_rows("Random mask", "random-mask")
    rows.append(Row("ERM, twice the epochs", "erm", changes=trained(p, 2)))
    return Experiment("selection", "Selection, full fine-tuning and random masks", own(p), rows)


def longer(p: Profile) -> Experiment:
    """A baseline trained as long as a method that sees three images per face and epoch; does it leave anything to repair?"""
    tuned = lines("full-finetuning", "aim-fair")
    kept = [Row(f"{row.title}, statistics kept", row.method, {"batchnorm": "eval"}) for row in tuned]
    thrice = [replace(row, title=f"{row.title}, longer ERM", changes=trained(p, 3)) for row in tuned + kept]
    rows = [
        *lines("erm", "diga"),
        Row("ERM, twice the epochs", "erm", changes=trained(p, 2)),
        Row("ERM, three times the epochs", "erm", changes=trained(p, 3)),
        *tuned,
        *thrice,
    ]
    return Experiment("longer", "A baseline that is trained longer", own(p), rows)


def blocks(p: Profile) -> Experiment:
    """Each block updated, with the last layer, and each block frozen, where Table 4 has the best by a short profile and
    Figure 2 the frozen ones."""
    single = [methods.get(name) for name in ("update-one-block", "freeze-one-block")]
    rows = [Row(f"{m.title}: {block}", m.name, {"block": block}) for m in single for block in BLOCKS]
    return Experiment("blocks", "Every block in turn", own(p), lines("erm", "full-finetuning") + rows)


def factorial(p: Profile) -> Experiment:
    """Three masks x three policies of batch norm x two checkpoint rules, and what happens where no weight learns.

    Statistics "follow" the synthetic faces as in the official loop, are "kept" from the biased model, or are "real":
    estimated again on the real faces after a fine-tuning in which they followed. The epoch kept is the "best" on the
    validation faces or the "last". Compare rows to "AIM-Fair; statistics follow; best", which is the paper's.
    """
    rows = [Row("No weights; statistics kept", "erm")]
    rows += [Row("No weights; statistics real", "batchnorm-real", {"mask": "none", "lr": 0.01})]
    for kept, rule in CHECKPOINTS.items():
        rows += [Row(f"No weights; statistics follow; {kept}", "random-ratio", {"ratio": 0.0, "lr": 0.01, **rule})]
    rows += crossed().values()
    return Experiment("factorial", "Mask, batch-norm statistics and checkpoint rule", own(p), rows)


def crossed() -> dict[tuple[str, str, str], Row]:
    """(mask, batch-norm statistics, checkpoint) -> the row of the factorial in which weights learn so."""
    found = {}
    for title, method, mask in MASKS:
        for kept, rule in CHECKPOINTS.items():
            ways: dict[str, tuple[str, dict[str, Any]]] = {
                "follow": (method, {"batchnorm": "train"}),
                "kept": (method, {"batchnorm": "eval"}),
                "real": ("batchnorm-real", {"mask": mask}),
            }
            for statistics, (name, fixed) in ways.items():
                row = Row(f"{title}; statistics {statistics}; {kept}", name, {**fixed, **rule})
                found[title, statistics, kept] = row
    return found


def interpolation(p: Profile) -> Experiment:
    """The ends, the interpolation as it is registered, and what its two fixed choices matter."""
    rows = lines("erm", "full-finetuning", "aim-fair", "weight-interpolation") + [
        Row("Weight interpolation, statistics real", "weight-interpolation", {"statistics": "re-estimated"}),
        Row("Weight interpolation, rate 0.003", "weight-interpolation", {"lr": 0.003}),
        Row("Weight interpolation, rate 0.03", "weight-interpolation", {"lr": 0.03}),
    ]
    return Experiment("interpolation", "Between the biased and the fine-tuned model", own(p), rows)


def batchnorm(p: Profile) -> Experiment:
    """A part of the factorial, for those who ask about the statistics alone."""
    real = [Row(f"{title}, statistics real", "batchnorm-real", {"mask": mask}) for title, _, mask in MASKS]
    rows = [*lines("erm"), Row("Baseline, statistics real", "batchnorm-real", {"mask": "none", "lr": 0.01})]
    rows += [*lines("full-finetuning"), real[0], *lines("aim-fair"), real[1]]
    return Experiment("batchnorm", "Batch-norm statistics of real faces, without labels", own(p), rows)


def granularity(p: Profile) -> Experiment:
    """Channels and single weights, as many as AIM-Fair's tensors have, each beside random ones; and as large a share."""
    rows = lines("full-finetuning", "aim-fair")
    for title, random, name in (
        ("channels", "Random channels", "channel-mask"),
        ("single weights", "Random weights", "scalar-mask"),
    ):
        rows += lines(name)
        rows += [Row(f"AIM-Fair, {title}, by share", name, {"size": "share"})]
        rows += random_rows(random, name, ranking="random")
    return Experiment("granularity", "Tensors, channels or single weights", own(p), rows)


def scores(p: Profile) -> Experiment:
    """The same selection by other scores, of which none depends on the size of a tensor's gradients, and by one of the two
    rankings alone: that by the bias gap is all that is left to who knows no bias ratio to assume."""
    rows = lines("full-finetuning", "aim-fair", "aim-fair-cosine", "aim-fair-relative", "aim-fair-noise")
    rows += [Row(f"AIM-Fair, {one} ranking alone", "aim-fair", {"rankings": one}) for one in ("bias", "domain")]
    return Experiment("scores", "Other scores, single rankings", own(p), rows)


RATES = (0.003, 0.01)
"""Learning rates at which scores are compared with nothing searched: validation names one or the other of them."""


def rates(p: Profile) -> Experiment:
    """The rows of :func:`scores` at equal learning rates: is it the score that wins, or the rate that was chosen for it?"""
    rows = [
        Row(f"{row.title}, rate {rate:g}", row.method, {**row.fixed, "lr": rate})
        for row in scores(p).rows
        for rate in RATES
    ]
    return Experiment("rates", "Scores at equal learning rates", own(p), rows)


def prompt_variants(p: Profile) -> Experiment:
    """AIM-Fair on what each kind of prompt draws, where Table 5 has training on synthetic faces only."""
    rows = [
        Row(f"AIM-Fair, {row.title[0].lower()}{row.title[1:]}", "aim-fair", changes=row.changes)
        for row in table_5(p).rows
    ]
    return Experiment("prompts", "AIM-Fair by prompts", own(p), rows)


def faithful(p: Profile) -> Experiment:
    """Synthetic faces chosen from the pool by each rule of :mod:`aimfair.audit.selection`: trained on alone, half of the pool or
    an eighth of it, and given to AIM-Fair."""
    rules = selection_rules.available()
    rows = [Row(f"Synthetic only, {rule}", "synthetic-only", changes={"selection": rule}) for rule in rules]
    for rule in ("random", "faithful"):
        eighth = {"selection": rule, "selected_per_group": max(1, p.images_per_group // 8)}
        rows.append(Row(f"Synthetic only, {rule}, an eighth", "synthetic-only", changes=eighth))
        rows.append(Row(f"AIM-Fair, {rule}", "aim-fair", changes={"selection": rule}))
    return Experiment("faithful", "Which synthetic faces to take", own(p), rows)


def combination(p: Profile) -> Experiment:
    """The book's own method beside the three that it is made of, each as it is registered."""
    parts = ("erm", "diga", "supplementation", "aim-fair-cosine", "aim-fair")
    return Experiment("combination", "Edited and drawn faces, then tuning", own(p), lines(*parts, "edit-add-tune"))


def extensions(p: Profile) -> Experiment:
    """Every registered method that is marked as going beyond the paper: a new one appears by itself."""
    marked = [method.name for method in methods.registry().values() if method.beyond]
    return Experiment("extensions", "All extensions", own(p), lines("erm", "full-finetuning", "aim-fair", *marked))


ALL: tuple[Callable[[Profile], Experiment], ...] = (
    selection,
    longer,
    blocks,
    factorial,
    interpolation,
    batchnorm,
    granularity,
    scores,
    rates,
    prompt_variants,
    faithful,
    combination,
    extensions,
)
