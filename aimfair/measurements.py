"""What is measured of a study beside trainings, for its runs without predictions: functions of models and faces."""

from __future__ import annotations

from typing import Any

from torch import nn

from aimfair import gradients, methods, models
from aimfair.analysis import features, stability, style
from aimfair.errors import AimfairError
from aimfair.faces import FaceSet
from aimfair.methods import repairing
from aimfair.profiles import Profile
from aimfair.runs import Run

MEASURED = ("gradient-gaps", "inspection", "score-noise", "feature-map", "style-lean")
"""Names of these runs, where those of trainings have the name of a method."""

MAJORITIES = (0.45, 0.40, 0.35, 0.30)
"""Share of each majority group at the assumed bias ratios 1:9, 2:8, 3:7 and 4:6 of Table 6."""


def gradient_gaps(
    model: nn.Module,
    real: FaceSet,
    balanced: FaceSet,
    biased: FaceSet,
    pool: FaceSet,
    profile: Profile,
    seed: int,
    device: str,
) -> dict[str, Any]:
    """Scores of :meth:`aimfair.study.Study.gradient_gaps`.

    model  the biased one; ``balanced`` and ``biased`` were drawn for this seed from the ``pool`` of synthetic faces
    """
    on_real, on_biased, on_balanced = (
        gradients.mean_gradients(model, faces, seed=seed + i, device=device, **_official(profile))
        for i, faces in enumerate((real, biased, balanced))
    )
    official = {
        score: [gradients.gap(on_real, on_biased, score), gradients.gap(on_biased, on_balanced, score)]
        for score in ("absolute", "cosine")
    }
    real_eval = gradients.mean_gradients(model, real, device=device)
    by_group = gradients.group_gradients(model, pool, device=device)
    level = gradients.combine(by_group, gradients.BALANCED)
    exact: dict[str, Any] = {}
    for majority in sorted({*MAJORITIES, round(max(profile.shares()), 2)}, reverse=True):
        tilted = gradients.combine(by_group, (0.5 - majority, majority, majority, 0.5 - majority))
        exact[f"{majority:.2f}"] = {
            score: [gradients.gap(real_eval, tilted, score), gradients.gap(tilted, level, score)]
            for score in ("absolute", "cosine")
        }
    return {"train": official, "eval": exact}


def score_noise(
    model: nn.Module, real: FaceSet, balanced: FaceSet, biased: FaceSet, profile: Profile, seed: int, device: str
) -> dict[str, Any]:
    """Scores of :meth:`aimfair.study.Study.score_noise`."""
    sets = {"real": real, "biased": biased, "balanced": balanced}
    how = _official(profile) | {"device": device}
    return {name: stability.half_gap(model, faces, seed, **how) for name, faces in sets.items()}


def _official(profile: Profile) -> dict[str, Any]:
    """How gradients are taken in the official form: as in a training step."""
    return {
        "mode": "train",
        "batch_size": profile.batch_size,
        "crop_scale": profile.pretraining().crop_scale,
    }


def feature_map(model: nn.Module, test: FaceSet, device: str, of: Run | None) -> dict[str, Any]:
    """Scores of :meth:`aimfair.study.Study.feature_map`; ``of`` is the run whose classifier ``model`` is, if any."""
    model = model.to(device)
    scores = features.portrait(model, test, device)
    if of is None:
        return scores
    said = of.predictions.loc[of.predictions["split"] == "test", "logit"].to_numpy() >= 0
    says = models.evaluate(model, test, device).numpy() >= 0
    return scores | {"hyper": of.config["hyper"], "agrees": 100 * float((said == says).mean())}


def style_lean(
    model: nn.Module, faces: dict[str, FaceSet], pool: FaceSet, profile: Profile, seed: int, device: str
) -> dict[str, Any]:
    """Scores of :meth:`aimfair.study.Study.style_lean`; ``faces`` by the name of their split."""
    repaired, _, _ = repairing.repaired(faces["train"], profile.shares(), pool, seed + 2)
    drawn = style.unseen(pool, repaired)
    return style.treatment(model.to(device), faces["validation"], faces["test"], drawn, device, seed)


def of_map(of: str) -> dict[str, str]:
    """The hyper-parameters of a feature map. Raises AimfairError for what is no method and not "untrained"."""
    if of != features.UNTRAINED and of not in methods.registry():
        raise AimfairError(
            f"no method {of!r} whose features could be mapped; {features.UNTRAINED!r} is the network before"
        )
    return {"of": of}
