"""Text-to-image models by a short name, each with the settings that its authors give. One file each.

A preset is data: which model, at which commit, under which licence, and how it is asked to draw. To add one, copy a file
of this folder and change it; it appears in ``aimfair generate --list-models`` and in the automatic test.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Preset:
    """What is asked of a text-to-image model; nothing but ``model`` is needed for one that has no preset.

    model              name on the Hugging Face hub, or a folder
    revision           commit of the hub, "" where none is pinned: the manifest has the one that was loaded
    licence            of the weights, as the model's page names it; read it before you publish images
    pipeline           class of diffusers that draws
    steps, guidance    of the denoising
    size               side in pixels at which the model draws; None: its own
    dtype              of a GPU; "" where the kind of network decides (:func:`aimfair.generate.drawing.pipelines.choose`)
    batch_size         of a GPU; None where its memory decides
    largest_batch      of any device, where the pipeline fails with more, or images of a larger batch depend on each other
    scheduler          class of diffusers that takes the place of the model's own, with ``scheduler_options`` on top
    guidance_argument  what the pipeline calls the guidance
    negative_prompt    where none is given
    arguments          more that the pipeline is called with
    gigabytes          of all weights on a GPU, text encoder included; about what has to be fetched, unless ``fetch`` says more
    fetch              gigabytes of files in float32, which are halved on their way to the GPU
    billions           of parameters of the network that is called in every step
    teraflops          of one call of that network for one image, where they were counted
    note               one line for whoever chooses
    """

    model: str
    revision: str = ""
    licence: str = ""
    pipeline: str = ""
    steps: int = 0
    guidance: float = 0.0
    size: int | None = None
    dtype: str = ""
    batch_size: int | None = None
    largest_batch: int | None = None
    scheduler: str = ""
    scheduler_options: Mapping[str, Any] = field(default_factory=dict)
    guidance_argument: str = "guidance_scale"
    negative_prompt: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    gigabytes: float = 0.0
    fetch: float = 0.0
    billions: float = 0.0
    teraflops: float = 0.0
    note: str = ""

    def work(self) -> float:
        """Teraflops of one call of the network for one image; 0 where nothing is known.

        Where they were not counted: a transformer multiplies and adds each parameter once per token, has a token per
        16 x 16 pixels and some hundred of text; its attention comes on top, about a fifth at 1024 px.
        """
        tokens = ((self.size or 0) / 16) ** 2 + 256
        return self.teraflops or (2 * self.billions * tokens * 1.2 / 1e3 if self.size else 0.0)

    def calls(self, steps: int, guidance: float) -> int:
        """How often the network is called for one image: twice a step where guidance compares with no prompt."""
        return steps * (2 if guidance > 1 else 1)


def available() -> list[str]:
    """Names of all presets: those of the files, with hyphens."""
    return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__))


def find(name: str) -> Preset:
    """The preset called ``name``; for any other text one that says no more than that the model is called so."""
    if name in available():
        return importlib.import_module(f"{__name__}.{name.replace('-', '_')}").PRESET
    return Preset(name)


def completed(preset: Preset, pipeline: str) -> Preset:
    """``preset``, or for a model without one what holds for all models that this class of diffusers draws.

    That is the name of the guidance, a negative prompt where it is not guided without, and the largest batch, as the
    first preset of the class says.
    """
    if preset != Preset(preset.model):
        return preset
    kin = next((p for p in map(find, available()) if p.pipeline == pipeline), preset)
    shared = {name: getattr(kin, name) for name in ("guidance_argument", "negative_prompt", "largest_batch")}
    return replace(preset, pipeline=pipeline, **shared)
