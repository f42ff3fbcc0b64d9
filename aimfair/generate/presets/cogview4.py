"""CogView4."""

from aimfair.generate.presets import Preset

PRESET = Preset(
    model="zai-org/CogView4-6B",
    licence="Apache-2.0",
    pipeline="CogView4Pipeline",
    steps=50,
    guidance=3.5,
    size=1024,
    dtype="bfloat16",
    largest_batch=1,  # the pipeline pads prompts to the longest of a batch, and the padding shows in the images
    gigabytes=31.0,
    billions=6.4,
    note="most of its memory is the text encoder; one image at a time, or images depend on the batch",
)
