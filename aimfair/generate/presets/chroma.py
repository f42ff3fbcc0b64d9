"""Chroma1-HD, an undistilled descendant of FLUX.1 schnell."""

from aimfair.generate.presets import Preset

PRESET = Preset(
    model="lodestones/Chroma1-HD",
    licence="Apache-2.0",
    pipeline="ChromaPipeline",
    steps=40,
    guidance=3.0,
    size=1024,
    dtype="bfloat16",
    gigabytes=27.0,
    billions=8.9,
)
