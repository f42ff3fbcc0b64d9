"""What is measured of a study beside trainings: each a function of the study and a seed, kept as a run without predictions.

``study.measure(name, seed)`` finds such a run or calls its function. A new one is one more function and its line in
:data:`MEASUREMENTS`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from aimfair import gradients, methods, models
from aimfair.analysis import features, inspection, stability, style
from aimfair.environment import AimfairError
from aimfair.methods import repairing
from aimfair.study import search

if TYPE_CHECKING:
    from aimfair.study import Study

MAJORITIES = (0.45, 0.40, 0.35, 0.30)
"""Share of each majority group at the assumed bias ratios 1:9, 2:8, 3:7 and 4:6 of Table 6."""

SCORES = ("absolute", "cosine")
"""Scores of :func:`aimfair.gradients.gap` that are kept of a study: the paper's two."""


def gradient_gaps(study: Study, seed: int) -> dict[str, Any]:
    """The gradient gaps of the seed's biased model, in every form the book needs.

    ``["train"][score]`` are (domain_gap, bias_gap) in the official form; ``["eval"][majority][score]`` the deterministic
    ones for each assumed bias ratio of :data:`MAJORITIES`, and for the profile's, from one pass per group.
    """
    model, (balanced, biased) = study.biased_model(seed), study.synthetic_sets(seed)
    real = study.faces("train").without_protected()
    on_real, on_biased, on_balanced = (
        gradients.mean_gradients(model, faces, seed=seed + i, **_official(study))
        for i, faces in enumerate((real, biased, balanced))
    )
    official = {
        score: [gradients.gap(on_real, on_biased, score), gradients.gap(on_biased, on_balanced, score)]
        for score in SCORES
    }
    real_eval = gradients.mean_gradients(model, real, device=study.device)
    by_group = gradients.group_gradients(model, study.selected(seed), device=study.device)
    level = gradients.combine(by_group, gradients.BALANCED)
    exact: dict[str, Any] = {}
    for majority in sorted({*MAJORITIES, round(max(study.profile.shares()), 2)}, reverse=True):
        tilted = gradients.combine(by_group, (0.5 - majority, majority, majority, 0.5 - majority))
        exact[f"{majority:.2f}"] = {
            score: [gradients.gap(real_eval, tilted, score), gradients.gap(tilted, level, score)] for score in SCORES
        }
    return {"train": official, "eval": exact}


def score_noise(study: Study, seed: int) -> dict[str, Any]:
    """The noise of the gradient gaps: ``["real"]``, ``["biased"]`` and ``["balanced"]`` are the gaps between two halves of
    these sets, official form (:func:`aimfair.analysis.stability.half_gap`)."""
    model, (balanced, biased) = study.biased_model(seed), study.synthetic_sets(seed)
    sets = {"real": study.faces("train").without_protected(), "biased": biased, "balanced": balanced}
    return {name: stability.half_gap(model, faces, seed, **_official(study)) for name, faces in sets.items()}


def _official(study: Study) -> dict[str, Any]:
    """How gradients are taken in the official form: as in a training step."""
    profile = study.profile
    return {
        "mode": "train",
        "batch_size": profile.batch_size,
        "crop_scale": profile.pretraining().crop_scale,
        "device": study.device,
    }


def inspect_pool(study: Study, seed: int) -> dict[str, Any]:
    """Sizes of the sets and what :func:`aimfair.analysis.inspection.inspect` tells of the pool.

    It looks with the biased model of the seed; the pool is the same for all seeds, so the first one's serves them all.
    """
    validation, model = study.faces("validation"), study.biased_model(seed)
    scores = inspection.inspect(study.profile, study.pool, validation, model, study.device, study.data_root)
    sets = {split: study.faces(split).counts() for split in ("train", "validation", "test")}
    corpus = len(study.split.get("corpus", ())) or scores["training"].get("images", 0)
    return scores | {"sets": sets | {"synthetic pool": study.pool.counts()}, "corpus": corpus}


def feature_map(study: Study, seed: int, of: str) -> dict[str, Any]:
    """Where a classifier puts the test faces and what its features give away: :func:`aimfair.analysis.features.portrait`.

    of  name of a method: its classifier of this seed, of the configuration that counts (:mod:`aimfair.study.search`); or
        "untrained": the network that it started from
    Only weights of biased models are kept; any other classifier is trained once more for its map. ``["agrees"]`` says on
    how many of the test faces, in per cent, it then predicts what the run predicted: 100 where that run was computed on
    this machine. Raises AimfairError for an unknown method.
    """
    test = study.faces("test")
    if of == features.UNTRAINED:
        model = models.build(study.profile.backbone, seed, study.profile.weights)
        return features.portrait(model.to(study.device), test, study.device)
    if of not in methods.registry():
        raise AimfairError(
            f"no method {of!r} whose features could be mapped; {features.UNTRAINED!r} is the network before"
        )
    run = search.run(study, of, seed)
    model = study.classifier(of, seed, **run.config["hyper"]).to(study.device)
    said = run.predictions.loc[run.predictions["split"] == "test", "logit"].to_numpy() >= 0
    says = models.evaluate(model, test, study.device).numpy() >= 0
    told = {"hyper": run.config["hyper"], "agrees": 100 * float((said == says).mean())}
    return features.portrait(model, test, study.device) | told


def style_lean(study: Study, seed: int, of: str) -> dict[str, Any]:
    """How a classifier treats real and synthetic faces: :func:`aimfair.analysis.style.treatment`.

    of  name of a method: its classifier of this seed, of the configuration that counts, trained once more
    The synthetic faces are such as data repairing did not train with, as long as the pool has any left. Raises
    AimfairError for an unknown method.
    """
    model = study.classifier(of, seed, **search.chosen(study, of)).to(study.device)
    repaired, _, _ = repairing.repaired(study.faces("train"), study.profile.shares(), study.pool, seed + 2)
    drawn = style.unseen(study.pool, repaired)
    return style.treatment(model, study.faces("validation"), study.faces("test"), drawn, study.device, seed)


MEASUREMENTS: dict[str, Callable[..., dict[str, Any]]] = {
    "gradient-gaps": gradient_gaps,
    "inspection": inspect_pool,
    "score-noise": score_noise,
    "feature-map": feature_map,
    "style-lean": style_lean,
}
"""Names of these runs, where those of trainings have the name of a method: (study, seed, its hyper-parameters) -> scores."""
