"""AuraFlow."""

from aimfair.generate.presets import Preset

PRESET = Preset(
    model="fal/AuraFlow-v0.3",
    licence="Apache-2.0",
    pipeline="AuraFlowPipeline",
    steps=50,
    guidance=3.5,
    size=1024,
    dtype="bfloat16",
    gigabytes=17.0,
    billions=6.8,
)
