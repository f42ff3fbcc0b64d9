"""Z-Image Turbo, distilled to eight steps."""

from aimfair.generate.presets import Preset

PRESET = Preset(
    model="Tongyi-MAI/Z-Image-Turbo",
    revision="f332072aa78be7aecdf3ee76d5c247082da564a6",
    licence="Apache-2.0",
    pipeline="ZImagePipeline",
    steps=8,
    guidance=0.0,
    size=1024,
    dtype="bfloat16",
    gigabytes=20.5,
    billions=6.2,
    note="seeds of one prompt look much alike",
)
