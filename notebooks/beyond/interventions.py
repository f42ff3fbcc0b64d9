"""The same face with one label set from outside: what a prediction owes to that label and to nothing else.

Only a drawn world can be drawn again with everything else held fixed; no photograph allows it.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from torch import Tensor, nn

from aimfair import datasets, models
from aimfair.environment import AimfairError
from aimfair.study import Study

FACES = 1000
"""How many test faces are drawn again, from the first on."""


def possible(study: Study) -> bool:
    """Whether the faces of a study are drawn and can be drawn again."""
    return study.profile.dataset == "faceworld"


def redrawn(study: Study, model: nn.Module, label: str) -> tuple[np.ndarray, np.ndarray]:
    """Logits (N,) of the first :data:`FACES` test faces with ``label`` set to 0, and with it set to 1.

    Raises AimfairError for a study of photographs.
    """
    if not possible(study):
        raise AimfairError(
            f"{study.profile.dataset} holds photographs, whose labels cannot be set"
        )
    p, index = study.profile, study.split["test"][:FACES]
    worlds = (datasets.load("faceworld", do={label: value}) for value in (0, 1))
    first, second = (
        models.evaluate(
            model, world.faces(index, p.target, p.protected, p.image_size), study.device
        ).numpy()
        for world in worlds
    )
    return first, second


def effects(study: Study, model: nn.Module) -> pd.DataFrame:
    """What setting the target, and the protected attribute, from 0 to 1 does to the predictions of ``model``.

    A row per label: the mean change of the logit, and the per cent of predictions that change.
    """
    rows = {}
    for label in (study.profile.target, study.profile.protected):
        before, after = redrawn(study, model, label)
        rows[label] = {
            "mean change of the logit": (after - before).mean(),
            "predictions changed (%)": 100 * np.mean((before >= 0) != (after >= 0)),
        }
    return pd.DataFrame(rows).T


def swayed(study: Study, model: nn.Module, n: int = 8) -> np.ndarray:
    """Catalogue indices of at most ``n`` test faces of group (1, 1) whose protected attribute misleads ``model``.

    It calls them 0, and 1 when that attribute is set to 0. The faces whose logit moves most come first.
    """
    without, with_ = redrawn(study, model, study.profile.protected)
    groups = study.faces("test").groups.numpy()[: len(without)]
    misled = (groups == 3) & (with_ < 0) & (without >= 0)
    order = np.argsort(with_ - without)
    return study.split["test"][order[misled[order]][:n]]


def pictures(study: Study, indices: np.ndarray, value: int) -> Tensor:
    """(n, 3, H, W) uint8: these faces with their protected attribute set to ``value``."""
    world = datasets.load("faceworld", do={study.profile.protected: value})
    return world.read(indices, study.profile.image_size)
