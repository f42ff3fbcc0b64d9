"""Which of many generated faces to train on: rules with a fixed budget per group. One file each; the registry finds them.

A rule is a function ``choose(candidates, budget, seed)`` that returns the places of ``budget`` candidates of one group, in
the order in which it takes them. The paper names such a selection as future work.

What a rule may know: the judge's certainty that a face shows what its prompt asked for, and the features in which the
judge sees synthetic and real faces. The judge learnt from an external corpus (:func:`aimfair.audit.judges.judge_of`), and the real
faces come without any label: no protected label of a real face is read.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from aimfair.audit import feature_metrics
from aimfair.audit import judge as audit
from aimfair.audit.judge import Judge
from aimfair.environment import AimfairError
from aimfair.faces import GROUPS, FaceSet

NEIGHBOURS = 5
"""Real faces whose mean distance says how far a synthetic one is from real."""


@dataclass(frozen=True)
class Candidates:
    """The N synthetic faces of one group, among which a rule chooses.

    agreement  (N,) probability, by the judge, that the face shows the less certain of its two labels
    distance   (N,) mean distance, in the judge's features, to the nearest unlabelled real faces
    features   (N, d) of the judge
    """

    agreement: Tensor
    distance: Tensor
    features: Tensor

    def __len__(self) -> int:
        return len(self.features)

    def at(self, places: Tensor) -> Candidates:
        """Those at ``places``, in that order."""
        return Candidates(self.agreement[places], self.distance[places], self.features[places])


Rule = Callable[[Candidates, int, int], Tensor]
"""(candidates of a group, budget, seed) -> (budget,) int64 places, no two the same. Ties go to the lower place; only what
is drawn by lot depends on the seed."""


def available() -> list[str]:
    """Names of all rules."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def get(name: str) -> Rule:
    """The rule called ``name``. Raises AimfairError for one that no file of this folder is."""
    if name not in available():
        raise AimfairError(f"no selection rule {name!r}; there are: {', '.join(available())}")
    return importlib.import_module(f"{__name__}.{name}").choose


def candidates(faces: FaceSet, judge: Judge, names: dict[str, str], real: Tensor) -> Candidates:
    """What rules may know of ``faces``, in their order.

    names  attribute behind each label, ``{"target": "Smiling", "protected": "Male"}``
    real   (M, 3, H, W) uint8 images of the real training set: no label of theirs is read
    """
    logits, features = judge.see(faces.images)
    agreement = audit.certainty(judge, logits, faces, names).amin(1)
    return Candidates(agreement, feature_metrics.nearest(features, judge.see(real)[1], NEIGHBOURS), features)


def select(rule: str, known: Candidates, groups: Tensor, budget: int, seed: int) -> np.ndarray:
    """Places (int64, ascending) of ``budget`` faces of each group, chosen by ``rule``.

    groups  (N,) group of each of the N ``known`` faces, 0 to 3: what their prompts asked for
    Raises AimfairError for an unknown rule, a budget below 1, and a group that has fewer faces than the budget.
    """
    choose = get(rule)
    if budget < 1:
        raise AimfairError(f"the budget is {budget}: at least one face per group must be chosen")
    chosen = []
    for group, (target, protected) in enumerate(GROUPS):
        members = (groups == group).nonzero().flatten()
        if len(members) < budget:
            raise AimfairError(
                f"group (target {target}, protected {protected}) has {len(members)} faces to choose {budget} from: "
                "lower the budget (selected_per_group) or draw more (images_per_group)"
            )
        chosen.append(members[choose(known.at(members), budget, 4 * seed + group)].numpy())
    return np.sort(np.concatenate(chosen))
