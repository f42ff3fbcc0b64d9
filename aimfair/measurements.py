"""What is measured of a study beside trainings: kept, found again and published as runs without predictions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import perf_counter
from typing import TYPE_CHECKING, Any

import pandas as pd

from aimfair import gradients, methods, models, runs
from aimfair.analysis import features, inspection, stability
from aimfair.errors import AimfairError
from aimfair.runs import Run

if TYPE_CHECKING:
    from aimfair.study import Study

MEASURED = ("gradient-gaps", "inspection", "score-noise", "feature-map")
"""Names of these runs, where those of trainings have the name of a method."""

MAJORITIES = (0.45, 0.40, 0.35, 0.30)
"""Share of each majority group at the assumed bias ratios 1:9, 2:8, 3:7 and 4:6 of Table 6."""


def kept(
    study: Study, name: str, seed: int, measure: Callable[[], dict[str, Any]], hyper: Mapping[str, Any] | None = None
) -> Run:
    """The run ``name`` of a study: found, or ``measure`` is called for its scores, which are stored with the seconds."""
    config = study.config(name, hyper or {}, seed)

    def compute() -> Run:
        began = perf_counter()
        scores = measure()
        scores["seconds"] = round(perf_counter() - began, 1)
        return runs.store(study.runs_root, config, pd.DataFrame({n: [] for n in [*runs.FACES, "logit"]}), scores)

    return study.once(config, lambda: study.find(config), compute)


def gradient_gaps(study: Study, seed: int) -> dict[str, Any]:
    """Scores of :meth:`aimfair.study.Study.gradient_gaps`."""
    model, real, pool = study.biased_model(seed), study.faces("train").without_protected(), study.selected(seed)
    balanced, biased = study.synthetic_sets(seed)
    on_real, on_biased, on_balanced = (
        gradients.mean_gradients(model, faces, seed=seed + i, **_official(study))
        for i, faces in enumerate((real, biased, balanced))
    )
    official = {
        score: [gradients.gap(on_real, on_biased, score), gradients.gap(on_biased, on_balanced, score)]
        for score in ("absolute", "cosine")
    }
    real_eval = gradients.mean_gradients(model, real, device=study.device)
    by_group = gradients.group_gradients(model, pool, device=study.device)
    level = gradients.combine(by_group, gradients.BALANCED)
    exact: dict[str, Any] = {}
    for majority in sorted({*MAJORITIES, round(max(study.profile.shares()), 2)}, reverse=True):
        tilted = gradients.combine(by_group, (0.5 - majority, majority, majority, 0.5 - majority))
        exact[f"{majority:.2f}"] = {
            score: [gradients.gap(real_eval, tilted, score), gradients.gap(tilted, level, score)]
            for score in ("absolute", "cosine")
        }
    return {"train": official, "eval": exact}


def score_noise(study: Study, seed: int) -> dict[str, Any]:
    """Scores of :meth:`aimfair.study.Study.score_noise`."""
    model = study.biased_model(seed)
    balanced, biased = study.synthetic_sets(seed)
    sets = {"real": study.faces("train").without_protected(), "biased": biased, "balanced": balanced}
    return {name: stability.half_gap(model, faces, seed, **_official(study)) for name, faces in sets.items()}


def _official(study: Study) -> dict[str, Any]:
    """How gradients are taken in the official form: as in a training step."""
    p = study.profile
    crop = p.pretraining().crop_scale
    return {"mode": "train", "batch_size": p.batch_size, "crop_scale": crop, "device": study.device}


def inspect(study: Study, seed: int) -> dict[str, Any]:
    """Scores of :meth:`aimfair.study.Study.inspection`, seen with the biased model of this seed."""
    validation, model = study.faces("validation"), study.biased_model(seed)
    scores = inspection.inspect(study.profile, study.pool, validation, model, study.device, study.data_root)
    scores["sets"] = {split: study.faces(split).counts() for split in ("train", "validation", "test")}
    scores["sets"]["synthetic pool"] = study.pool.counts()
    scores["corpus"] = len(study.split.get("corpus", ())) or scores["training"].get("images", 0)
    return scores


def feature_map(study: Study, of: str, seed: int) -> dict[str, Any]:
    """Scores of :meth:`aimfair.study.Study.feature_map`."""
    p, test, more = study.profile, study.faces("test"), {}
    if of == features.UNTRAINED:
        model = models.build(p.backbone, seed, p.weights)
    else:
        run = study.chosen(of, seed)
        model = study.classifier(of, seed, **run.config["hyper"])
        said = run.predictions.loc[run.predictions["split"] == "test", "logit"].to_numpy() >= 0
        says = models.evaluate(model.to(study.device), test, study.device).numpy() >= 0
        more = {"hyper": run.config["hyper"], "agrees": 100 * float((said == says).mean())}
    return features.portrait(model.to(study.device), test, study.device) | more


def of_map(of: str) -> dict[str, str]:
    """The hyper-parameters of a feature map. Raises AimfairError for what is no method and not "untrained"."""
    if of != features.UNTRAINED and of not in methods.registry():
        raise AimfairError(
            f"no method {of!r} whose features could be mapped; {features.UNTRAINED!r} is the network before"
        )
    return {"of": of}
