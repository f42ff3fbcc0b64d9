"""PRX at 512 px: a transformer about as costly as Stable Diffusion 2.1-base."""

from aimfair.generate.presets import Preset

PRESET = Preset(
    model="Photoroom/prx-512-t2i-sft",
    licence="Apache-2.0 (its text encoder: Gemma)",
    pipeline="PRXPipeline",
    steps=28,
    guidance=5.0,
    size=512,
    dtype="bfloat16",
    largest_batch=1,  # with guidance the pipeline fails for more
    gigabytes=8.0,
    billions=1.3,
    note="closest in cost to the paper's generator; one image at a time",
)
