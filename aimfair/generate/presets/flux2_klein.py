"""FLUX.2 klein, distilled to four steps."""

from aimfair.generate.presets import Preset

PRESET = Preset(
    model="black-forest-labs/FLUX.2-klein-4B",
    revision="e7b7dc27f91deacad38e78976d1f2b499d76a294",
    licence="Apache-2.0",
    pipeline="Flux2KleinPipeline",
    steps=4,
    guidance=1.0,
    size=1024,
    dtype="bfloat16",
    gigabytes=16.0,
    billions=4.0,
    note="fast; distilled models draw less varied faces",
)
