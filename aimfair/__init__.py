"""aimfair: AIM-Fair as a research book that runs.

The library reads in the order of the method: faces and data sets, sampling of a biased subset,
prompts and diffusion, the classifier, its gradients, the mask, the methods, the metrics, the runs.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aimfair.repairing import repair as repair

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """``aimfair.repair`` is :func:`aimfair.repairing.repair`, imported when asked for: ``aimfair --help`` waits for no torch."""
    if name == "repair":
        from aimfair.repairing import repair

        return repair
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
