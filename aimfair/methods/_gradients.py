"""What the methods share that look at gradients beyond the gaps per tensor, which the bench has."""

from aimfair.gradients import Gradients, mean_gradients
from aimfair.methods import Bench


def three_gradients(bench: Bench, mode: str) -> tuple[Gradients, Gradients, Gradients]:
    """Mean gradients of the biased model on the real, the biased synthetic and the balanced synthetic faces.

    mode as in :func:`aimfair.gradients.mean_gradients`; with "train" the very gradients of which the bench has the gaps.
    """
    on_real, on_biased, on_balanced = (
        mean_gradients(
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
