"""What the methods share that look at gradients beyond the gaps per tensor, which the bench has."""

from collections.abc import Callable
from typing import TypeVar

from aimfair.gradients import Gradients, mean_gradients
from aimfair.methods import Bench

Measured = TypeVar("Measured")


def three_gradients(bench: Bench, mode: str) -> tuple[Gradients, Gradients, Gradients]:
    """Mean gradients of the biased model on the real, the biased synthetic and the balanced synthetic faces.

    mode as in :func:`aimfair.gradients.mean_gradients`; with "train" the very gradients of which the bench has the gaps.
    """
    return on_three_sets(bench, mode, mean_gradients)


def on_three_sets(bench: Bench, mode: str, measure: Callable[..., Measured]) -> tuple[Measured, Measured, Measured]:
    """Likewise with another ``measure`` of the same arguments, such as :func:`aimfair.gradient_noise.moments`."""
    on_real, on_biased, on_balanced = (
        measure(
            bench.biased_model(),
            faces.without_protected(),
            mode=mode,
            batch_size=bench.finetuning.batch_size,
            seed=bench.seed + i,
            crop_scale=bench.finetuning.crop_scale,
            device=bench.device,
        )
        for i, faces in enumerate((bench.train, bench.biased, bench.balanced))
    )
    return on_real, on_biased, on_balanced
