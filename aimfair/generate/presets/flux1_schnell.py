"""FLUX.1 schnell, distilled to four steps."""

from aimfair.generate.presets import Preset

PRESET = Preset(
    model="black-forest-labs/FLUX.1-schnell",
    revision="741f7c3ce8b383c54771c7003378a50191e9efe9",
    licence="Apache-2.0",
    pipeline="FluxPipeline",
    steps=4,
    guidance=0.0,
    size=1024,
    dtype="bfloat16",
    arguments={"max_sequence_length": 256},
    gigabytes=33.7,
    billions=12.0,
    note="the hub asks to accept its terms; distilled models draw less varied faces",
)
