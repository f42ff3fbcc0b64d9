"""Text-to-image models by a short name, each with the settings that its authors give: the blocks of ``presets.yaml``.

A preset says which model to load, at which commit, under which licence, and how it is asked to draw.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml

FILE = Path(__file__).with_name("presets.yaml")


@dataclass(frozen=True)
class Preset:
    """What is asked of a text-to-image model; nothing but ``model`` is needed for one that has no preset."""

    model: str  # name on the Hugging Face hub, or a folder
    revision: str = ""  # commit of the hub; "" where none is pinned: ``settings.json`` has the one that was loaded
    licence: str = ""  # of the weights, as the model's page names it; read it before you publish images
    pipeline: str = ""  # class of diffusers that draws
    steps: int = 0  # of the denoising
    guidance: float = 0.0
    size: int | None = None  # side in pixels at which the model draws; None: its own
    dtype: str = ""  # of a GPU; "" where the kind of network decides (aimfair.generate.pipelines.choose)
    batch_size: int | None = None  # of a GPU; None where its memory decides
    largest_batch: int | None = None  # of any device: the pipeline fails with more, or images depend on each other
    scheduler: str = ""  # class of diffusers that takes the place of the model's own
    scheduler_options: Mapping[str, Any] = field(default_factory=dict)  # on top of the model's own
    guidance_argument: str = "guidance_scale"  # what the pipeline calls the guidance
    negative_prompt: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)  # more that the pipeline is called with
    gigabytes: float = 0.0  # of all weights on a GPU; about what has to be fetched, unless ``fetch`` says more
    fetch: float = 0.0  # gigabytes of files in float32, which are halved on their way to the GPU
    note: str = ""  # one line for whoever chooses


@cache
def read(file: Path) -> dict[str, Preset]:
    """The presets of a YAML file, by name."""
    return {name: Preset(**block) for name, block in yaml.safe_load(file.read_text(encoding="utf-8")).items()}


def available() -> list[str]:
    """Names of all presets."""
    return sorted(read(FILE))


def find(name: str) -> Preset:
    """The preset called ``name``; for any other text one that says no more than that the model is called so."""
    return read(FILE).get(name) or Preset(name)


def completed(preset: Preset, pipeline: str) -> Preset:
    """``preset``, or for a model without one what the first preset of its class of diffusers says of all that it draws:
    the name of the guidance, a negative prompt where it is not guided without, and the largest batch."""
    if preset != Preset(preset.model):
        return preset
    kin = next((p for p in map(find, available()) if p.pipeline == pipeline), preset)
    shared = {name: getattr(kin, name) for name in ("guidance_argument", "negative_prompt", "largest_batch")}
    return replace(preset, pipeline=pipeline, **shared)
