"""Lumina-Image 2.0."""

from aimfair.generate.presets import Preset

PRESET = Preset(
    model="Alpha-VLLM/Lumina-Image-2.0",
    licence="Apache-2.0 (its text encoder: Gemma)",
    pipeline="Lumina2Pipeline",
    steps=50,
    guidance=4.0,
    size=1024,
    dtype="bfloat16",
    gigabytes=10.6,
    billions=2.6,
    note="the smallest undistilled one at 1024 px",
)
