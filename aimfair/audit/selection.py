"""Which of many generated faces to train on: rules with a fixed budget per group. The paper names this as future work.

A rule may know the judge's certainty that a face shows what its prompt asked for, and the features in which the judge
sees synthetic and real faces. The judge learnt from an external corpus, and the real faces come without any label: no
protected label of a real face is read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from aimfair.audit import measures
from aimfair.environment import AimfairError
from aimfair.faces import GROUPS, FaceSet
from aimfair.generate.classifier import Judge


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


def candidates(faces: FaceSet, judge: Judge, names: Mapping[str, str], real: Tensor) -> Candidates:
    """What rules may know of ``faces``, in their order.

    names  attribute behind each label, ``{"target": "Smiling", "protected": "Male"}``
    real   (M, 3, H, W) uint8 images of the real training set: no label of theirs is read
    """
    logits, features = judge.see(faces.images)
    certain = []
    for label, attribute in names.items():
        shown = logits[:, judge.column(attribute)].sigmoid()
        certain.append(torch.where(getattr(faces, label).bool(), shown, 1 - shown))
    distance = measures.nearest(features, judge.see(real)[1])
    return Candidates(torch.stack(certain, 1).amin(1), distance, features)


def select(rule: str, known: Candidates, groups: Tensor, budget: int, seed: int) -> np.ndarray:
    """Places (int64, ascending) of ``budget`` faces of each group, chosen by ``rule``.

    groups  (N,) group of each of the N ``known`` faces, 0 to 3: what their prompts asked for
    Raises AimfairError for an unknown rule, a budget below 1, and a group that has fewer faces than the budget.
    """
    if rule not in RULES:
        raise AimfairError(f"no selection rule {rule!r}; there are: {', '.join(RULES)}")
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
        chosen.append(members[RULES[rule](known.at(members), budget, 4 * seed + group)].numpy())
    return np.sort(np.concatenate(chosen))


def agreement(known: Candidates, budget: int, seed: int) -> Tensor:
    """Right labels first: the faces of which the judge is surest that they show what the prompt asked for."""
    return known.agreement.argsort(descending=True, stable=True)[:budget]


def diversity(known: Candidates, budget: int, seed: int) -> Tensor:
    """As varied as can be: the greedy k-centre of Gonzalez (1985), which core-set selection uses.

    First the face nearest to the mean of all, then again and again the one farthest from all that were chosen. No face
    is then farther from a chosen one than twice what the best choice of as many faces would reach.
    """
    x = known.features.double()
    place = int((x - x.mean(0)).norm(dim=1).argmin())
    chosen, apart = [place], (x - x[place]).norm(dim=1)
    apart[place] = -1.0  # never again, though others may lie at the very same point
    while len(chosen) < budget:
        place = int(apart.argmax())
        chosen.append(place)
        apart = torch.minimum(apart, (x - x[place]).norm(dim=1))
        apart[chosen] = -1.0
    return torch.tensor(chosen)


def faithful(known: Candidates, budget: int, seed: int) -> Tensor:
    """Agreement, realism and diversity in turn, each for a part of the faces that must go until ``budget`` are left:

    1. those whose label the judge does not see (agreement below one half), the surest mistakes first;
    2. of what then still must go, half: the farthest from the real faces;
    3. the rest by the greedy k-centre, which leaves out what repeats others.

    The order matters: k-centre alone would seek out the broken pictures, which lie apart from all others.
    """
    kept = agreement(known, max(budget, int((known.agreement >= 0.5).sum())), seed).sort().values
    kept = kept[realism(known.at(kept), len(kept) - (len(kept) - budget) // 2, seed)].sort().values
    return kept[diversity(known.at(kept), budget, seed)]


def random(known: Candidates, budget: int, seed: int) -> Tensor:
    """By lot: what every other rule is compared with."""
    return torch.from_numpy(np.random.default_rng(seed).permutation(len(known))[:budget])


def realism(known: Candidates, budget: int, seed: int) -> Tensor:
    """The most real first: the faces that lie nearest to the unlabelled real training set."""
    return known.distance.argsort(stable=True)[:budget]


Rule = Callable[[Candidates, int, int], Tensor]
"""(candidates of a group, budget, seed) -> (budget,) int64 places, no two the same. Ties go to the lower place; only what
is drawn by lot depends on the seed."""

RULES: dict[str, Rule] = {rule.__name__: rule for rule in (agreement, diversity, faithful, random, realism)}
"""Every rule by name. A rule of your own is one more entry."""
