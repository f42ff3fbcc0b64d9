"""Stable Diffusion XL, base model."""

from aimfair.generate.presets import Preset

PRESET = Preset(
    model="stabilityai/stable-diffusion-xl-base-1.0",
    revision="462165984030d82259a11f4367a4eed129e94a7b",
    licence="CreativeML OpenRAIL++-M",
    pipeline="StableDiffusionXLPipeline",
    steps=30,
    guidance=5.0,
    size=1024,
    dtype="float16",
    gigabytes=7.0,
    fetch=13.9,
    billions=2.57,
    teraflops=5.98,
    note="draws at 1024 px only",
)
