"""As varied as can be: the greedy k-centre of Gonzalez (1985), which core-set selection uses."""

import torch
from torch import Tensor

from aimfair.audit.selection import Candidates


def choose(candidates: Candidates, budget: int, seed: int) -> Tensor:
    """First the face nearest to the mean of all, then again and again the one farthest from all that were chosen.

    No face is then farther from a chosen one than twice what the best choice of as many faces would reach.
    """
    x = candidates.features.double()
    place = int((x - x.mean(0)).norm(dim=1).argmin())
    chosen, apart = [place], (x - x[place]).norm(dim=1)
    apart[place] = -1.0  # never again, though others may lie at the very same point
    while len(chosen) < budget:
        place = int(apart.argmax())
        chosen.append(place)
        apart = torch.minimum(apart, (x - x[place]).norm(dim=1))
        apart[chosen] = -1.0
    return torch.tensor(chosen)
