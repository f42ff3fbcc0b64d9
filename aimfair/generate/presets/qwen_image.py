"""Qwen-Image."""

from aimfair.generate.presets import Preset

PRESET = Preset(
    model="Qwen/Qwen-Image",
    revision="75e0b4be04f60ec59a75f475837eced720f823b6",
    licence="Apache-2.0",
    pipeline="QwenImagePipeline",
    steps=50,
    guidance=4.0,
    size=1024,
    dtype="bfloat16",
    guidance_argument="true_cfg_scale",
    negative_prompt=" ",  # without one it is not guided
    gigabytes=57.7,
    billions=20.4,
    note="heavy",
)
