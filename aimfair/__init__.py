"""aimfair: AIM-Fair as a research book that runs.

The library reads in the order of the method: faces and data sets, sampling of a biased subset,
prompts and diffusion, the classifier, its gradients, the mask, the methods, the metrics, the runs.
"""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aimfair.repairing import repair as repair

# Threads that wait for each other give their core away. By default they spin: beside one other busy process, two threads
# then compute a third of what they can. The variable is read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """``aimfair.repair`` is :func:`aimfair.repairing.repair`, imported when asked for: ``aimfair --help`` waits for no torch."""
    if name == "repair":
        from aimfair.repairing import repair

        return repair
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
