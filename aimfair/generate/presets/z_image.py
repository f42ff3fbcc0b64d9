"""Z-Image, not distilled."""

from aimfair.generate.presets import Preset

PRESET = Preset(
    model="Tongyi-MAI/Z-Image",
    revision="04cc4abb7c5069926f75c9bfde9ef43d49423021",
    licence="Apache-2.0",
    pipeline="ZImagePipeline",
    steps=50,
    guidance=4.0,
    size=1024,
    dtype="bfloat16",
    gigabytes=20.5,
    billions=6.2,
    note="more varied than its Turbo form",
)
