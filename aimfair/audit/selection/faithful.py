"""Label agreement, realism and diversity in turn: each drops a part of what must go."""

from torch import Tensor

from aimfair.audit.selection import Candidates, diversity


def choose(candidates: Candidates, budget: int, seed: int) -> Tensor:
    """Of the faces that must go, so that ``budget`` are left:

    1. those whose label the judge does not see (agreement below one half), the surest mistakes first;
    2. of what then still must go, half: the farthest from the real faces;
    3. the rest by the greedy k-centre, which leaves out what repeats others.

    The order matters: k-centre alone would seek out the broken pictures, which lie apart from all others.
    """
    kept = candidates.agreement.argsort(descending=True, stable=True)
    kept = kept[: max(budget, int((candidates.agreement >= 0.5).sum()))].sort().values
    order = candidates.distance[kept].argsort(stable=True)
    kept = kept[order[: len(kept) - (len(kept) - budget) // 2]].sort().values
    return kept[diversity.choose(candidates.at(kept), budget, seed)]
