"""This book's own combination: train on real, edited and drawn faces together, then tune selected tensors if it pays."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from aimfair.environment import Diverged
from aimfair.gradients import gap
from aimfair.methods import LEARNING_RATES, Bench, Fitted, Method
from aimfair.methods.aim_fair import COSINE
from aimfair.methods.aim_fair import fit as tune
from aimfair.methods.diga import two_edits
from aimfair.methods.erm import from_scratch
from aimfair.methods.finetuning import three_gradients


def fit(bench: Bench, hyper: Mapping[str, Any]) -> Fitted:
    """Three steps, each of which helps by itself somewhere in this book, and none of which reads a group label:

    edit  two edits of every training face that ask for opposite protected values, as in :mod:`aimfair.methods.diga`
    add   the balanced synthetic faces, as in :mod:`aimfair.methods.real_and_synthetic`; ERM from scratch on all together
    tune  AIM-Fair by the cosine score from there (:mod:`aimfair.methods.aim_fair`), once with each of the learning rates
          that others search

    The result is the best of the six by accuracy on real validation faces: that before tuning, which is kept where it is
    not surpassed, and those of the five rates. They stand in ``scores["by_rate"]``, that before tuning at rate 0; a rate
    with which the tuning diverges is not among them.

    weakest, strongest       range of the edits' strength
    k, gradients, batchnorm  of the tuning, see :mod:`aimfair.methods.aim_fair`
    An epoch of the training holds four images for each real face, where as many are drawn as there are real ones: a run
    costs about four of ERM and five of fine-tuning, so there is nothing more to search.
    """
    first, second = two_edits(bench, hyper)
    every = bench.train.without_protected() + first + second + bench.balanced
    trained = from_scratch(replace(bench, train=every), "edit and add", part="trained")

    start = replace(bench, biased_model=lambda: copy.deepcopy(trained.model))
    on_real, on_biased, on_balanced = three_gradients(start, hyper["gradients"])
    gaps = gap(on_real, on_biased, "cosine"), gap(on_biased, on_balanced, "cosine")
    found = {0.0: trained}
    for lr in LEARNING_RATES:
        part = replace(start, gaps=lambda score, mode: gaps, resume=bench.resume_of(f"{lr:g}"))
        with suppress(Diverged):  # tried, and no candidate
            found[lr] = tune(part, {**COSINE.defaults, **hyper, "lr": lr})

    by_rate = {
        lr: fitted.history.validation_accuracy[fitted.history.chosen]
        for lr, fitted in found.items()
    }
    rate = max(
        by_rate, key=by_rate.__getitem__
    )  # the first of equals: no tuning, then the smallest rate
    chosen = found[rate]
    rates = {
        "rate": rate,
        "by_rate": {f"{lr:g}": round(accuracy, 3) for lr, accuracy in by_rate.items()},
    }
    return Fitted(chosen.model, chosen.history, {"mask": [], **chosen.scores, **rates})


METHOD = Method(
    name="edit-add-tune",
    title="Edit, add, tune",
    source="this book's own combination of DiGA-style editing, supplementation and AIM-Fair",
    start="scratch",
    fit=fit,
    needs=frozenset({"synthetic"}),
    defaults={"weakest": 0.4, "strongest": 0.8}
    | {name: COSINE.defaults[name] for name in ("batchnorm", "k", "gradients")},
    beyond=True,
)
