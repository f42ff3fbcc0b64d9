"""CLIP as a judge without training: which of two kinds of sentences is a picture nearer to?

A second opinion beside the trained judge, from another corpus. It knows only attributes that :data:`SENTENCES` puts into
words. Nothing is fetched unless a hub name is given.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from aimfair.environment import AimfairError
from aimfair.progress import progress
from aimfair.prompts.wording import NON_WHITE

SENTENCES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "Smiling": (("a serious person", "a person with a neutral face"), ("a smiling person", "a person who laughs")),
    "Male": (("a woman", "a female person"), ("a man", "a male person")),
    "Female": (("a man", "a male person"), ("a woman", "a female person")),
    "Young": (("an old person", "an elderly person"), ("a young person", "a youthful person")),
    "White": (tuple(f"a person who is {race}" for race in NON_WHITE), ("a person who is White",)),
}
"""Attribute -> how value 0 and value 1 are said, behind "a portrait photo of "."""


@dataclass(frozen=True)
class ClipJudge:
    """A CLIP model with its processor, used as :class:`aimfair.audit.judge.Judge`: a logit for each of ``attributes``."""

    model: Any
    processor: Any
    attributes: tuple[str, ...] = tuple(SENTENCES)

    def see(self, images: Tensor, batch_size: int = 64) -> tuple[Tensor, Tensor]:
        """(N, 3, H, W) uint8 -> (N, L) logits and (N, d) normalised image embeddings, float32 on the CPU.

        Each sentence is a class (Radford et al., ICML 2021, section 3.1): the logit of an attribute is the log of the
        odds that the picture's sentence is one of those that say value 1.
        """
        device = self.model.device
        with torch.inference_mode():
            words = [self._texts(sentence) for name in self.attributes for sentence in SENTENCES[name]]
            parts = []
            for batch in progress(images.split(batch_size), "CLIP", -(-len(images) // batch_size), "batch"):
                pixels = self.processor.image_processor(images=list(batch), return_tensors="pt")["pixel_values"]
                found = self.model.get_image_features(pixels.to(device, self.model.dtype)).pooler_output
                parts.append(F.normalize(found.float(), dim=1))
            features = torch.cat(parts)
            scale = self.model.logit_scale.exp().float()
            evidence = [(scale * features @ text.T).logsumexp(1) for text in words]
        logits = torch.stack([one - none for none, one in zip(evidence[::2], evidence[1::2], strict=True)], 1)
        return logits.cpu(), features.cpu()

    def logits(self, images: Tensor, batch_size: int = 64) -> Tensor:
        """The logits of :meth:`see`."""
        return self.see(images, batch_size)[0]

    def column(self, attribute: str) -> int:
        """Which logit belongs to ``attribute``. Raises AimfairError for one that is not put into words."""
        if attribute not in self.attributes:
            raise AimfairError(f"CLIP is asked for {', '.join(self.attributes)} only, not for {attribute!r}")
        return self.attributes.index(attribute)

    def _texts(self, sentences: tuple[str, ...]) -> Tensor:
        texts = [f"a portrait photo of {sentence}" for sentence in sentences]
        tokens = self.processor.tokenizer(texts, padding=True, return_tensors="pt").to(self.model.device)
        return F.normalize(self.model.get_text_features(**tokens).pooler_output.float(), dim=1)


def load(name_or_folder: str | Path, device: str = "cpu") -> ClipJudge:
    """A CLIP model of transformers, from a folder or by its hub name; only safetensors are read.

    Raises AimfairError if it is not there, cannot be fetched or is no CLIP model.
    """
    try:
        from transformers import CLIPModel, CLIPProcessor
    except ImportError as error:
        raise AimfairError("CLIP needs transformers: pip install 'aimfair[generate]'") from error
    name = str(name_or_folder)
    if not Path(name).is_dir() and name.count("/") != 1:
        raise AimfairError(f"no folder {name}, and a model on the Hugging Face hub is called owner/name")
    try:
        model = CLIPModel.from_pretrained(name, use_safetensors=True)
        processor = CLIPProcessor.from_pretrained(name)
    except (OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise AimfairError(
            f"cannot load the CLIP model {name}: {reason} - give a folder, or a hub name while online"
        ) from error
    return ClipJudge(model.to(device).eval(), processor)
