"""The most real first: the faces that lie nearest to the unlabelled real training set."""

from torch import Tensor

from aimfair.audit.selection import Candidates


def choose(candidates: Candidates, budget: int, seed: int) -> Tensor:
    """The ``budget`` smallest distances, smallest first."""
    return candidates.distance.argsort(stable=True)[:budget]
