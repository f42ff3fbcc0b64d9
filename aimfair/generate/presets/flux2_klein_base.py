"""FLUX.2 klein before its distillation: slower, and more varied."""

from aimfair.generate.presets import Preset

PRESET = Preset(
    model="black-forest-labs/FLUX.2-klein-base-4B",
    revision="a3b4f4849157f664bdbc776fd7453c2783562f4d",
    licence="Apache-2.0",
    pipeline="Flux2KleinPipeline",
    steps=50,
    guidance=4.0,
    size=1024,
    dtype="bfloat16",
    gigabytes=16.0,
    billions=4.0,
    note="more varied than the distilled one",
)
