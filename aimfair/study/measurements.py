"""What is measured of a study beside trainings: each a function of the study and a seed, kept as a run without predictions.

``study.measure(name, seed)`` finds such a run or calls its function. Files in the folders of methods outside the library
(:func:`aimfair.methods.folders`) may declare more of them, as a dictionary ``MEASUREMENTS`` like the one below.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aimfair import gradients, methods, models, repairing
from aimfair.audit import features
from aimfair.environment import AimfairError
from aimfair.study import search

MAJORITIES = (0.45, 0.40, 0.35, 0.30)
"""Share of each majority group at the assumed bias ratios 1:9, 2:8, 3:7 and 4:6 of Table 6."""

SCORES = ("absolute", "cosine")
"""Scores of :func:`aimfair.gradients.gap` that are kept of a study: the paper's two."""

Measurement = Callable[..., dict[str, Any]]
"""(study, seed, hyper-parameters by name) -> scores."""


def official(study: Any) -> dict[str, Any]:
    """Options of :func:`aimfair.gradients.mean_gradients` in the official form: gradients as in a training step."""
    profile = study.profile
    crop = profile.pretraining().crop_scale
    return {"mode": "train", "batch_size": profile.batch_size, "crop_scale": crop, "device": study.device}


def gradient_gaps(study: Any, seed: int) -> dict[str, Any]:
    """The gradient gaps of the seed's biased model, in every form the book needs.

    ``["train"][score]`` are (domain_gap, bias_gap) in the official form; ``["eval"][majority][score]`` the deterministic
    ones for each assumed bias ratio of :data:`MAJORITIES`, and for the profile's, from one pass per group.
    """
    model, (balanced, biased) = study.biased_model(seed), study.synthetic_sets(seed)
    real = study.faces("train").without_protected()
    on_real, on_biased, on_balanced = repairing.three_gradients(model, real, biased, balanced, seed, **official(study))
    real_eval = gradients.mean_gradients(model, real, device=study.device)
    by_group = gradients.group_gradients(model, study.selected(seed), device=study.device)
    level = gradients.combine(by_group, gradients.BALANCED)
    exact: dict[str, Any] = {}
    for majority in sorted({*MAJORITIES, round(max(study.profile.shares()), 2)}, reverse=True):
        tilted = gradients.combine(by_group, (0.5 - majority, majority, majority, 0.5 - majority))
        exact[f"{majority:.2f}"] = _both_gaps(real_eval, tilted, level)
    return {"train": _both_gaps(on_real, on_biased, on_balanced), "eval": exact}


def _both_gaps(real: Any, biased: Any, balanced: Any) -> dict[str, Any]:
    return {score: [gradients.gap(real, biased, score), gradients.gap(biased, balanced, score)] for score in SCORES}


def feature_map(study: Any, seed: int, of: str) -> dict[str, Any]:
    """Where a classifier puts the test faces and what its features reveal: :func:`aimfair.audit.features.portrait`.

    of  name of a method: its classifier of this seed, of the configuration that counts (:mod:`aimfair.study.search`); or
        "untrained": the network that training starts from, a yardstick
    Only weights of biased models are kept; any other classifier is trained once more for its map. ``["agrees"]`` is the
    per cent of the test faces of which it then predicts what the run predicted: 100 where that run was computed on
    this machine. Raises AimfairError for an unknown method.
    """
    test = study.faces("test")
    if of == "untrained":
        model = models.build(study.profile.backbone, seed, study.profile.weights)
        return features.portrait(model.to(study.device), test, study.device)
    if of not in methods.registry():
        raise AimfairError(
            f"no method {of!r} whose features could be mapped; 'untrained' is the network before training"
        )
    run = search.run(study, of, seed)
    model = study.classifier(of, seed, **run.config["hyper"]).to(study.device)
    stored = run.predictions.loc[run.predictions["split"] == "test", "predicted"].to_numpy(bool)
    again = models.evaluate(model, test, study.device).numpy() >= 0
    agreement = {"hyper": run.config["hyper"], "agrees": 100 * float((stored == again).mean())}
    return features.portrait(model, test, study.device) | agreement


MEASUREMENTS: dict[str, Measurement] = {
    "gradient-gaps": gradient_gaps,
    "feature-map": feature_map,
}
"""The library's own measurements. Their names are those of the runs, where trainings have the name of a method."""


def registry() -> dict[str, Measurement]:
    """Every measurement by name: the library's, then those of files outside it."""
    found = dict(MEASUREMENTS)
    for module in methods.modules():
        found |= getattr(module, "MEASUREMENTS", {})
    return found
