"""Right labels first: the faces of which the judge is surest that they show what the prompt asked for."""

from torch import Tensor

from aimfair.audit.selection import Candidates


def choose(candidates: Candidates, budget: int, seed: int) -> Tensor:
    """The ``budget`` highest agreements, highest first."""
    return candidates.agreement.argsort(descending=True, stable=True)[:budget]
