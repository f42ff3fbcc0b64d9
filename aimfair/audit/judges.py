"""Judges: what does a synthetic face show, whatever its prompt asked for?

The label of a synthetic face is what its prompt said, which is not always what was drawn. A judge measures how often the
two agree: a classifier that learnt from labelled faces which the generator never saw, or CLIP, which needs no training.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from aimfair.environment import AimfairError, home, locked, reading
from aimfair.faces import GROUPS, FaceSet
from aimfair.generate.classifier import Classifier, Judge, load_classifier, train_classifier
from aimfair.generate.corpora import Corpus
from aimfair.progress import progress
from aimfair.prompts.wording import NON_WHITE

JUDGED = ("Smiling", "Male", "Young")
"""The attributes that FaceWorld's tasks are about."""

SENTENCES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "Smiling": (("a serious person", "a person with a neutral face"), ("a smiling person", "a person who laughs")),
    "Male": (("a woman", "a female person"), ("a man", "a male person")),
    "Female": (("a man", "a male person"), ("a woman", "a female person")),
    "Young": (("an old person", "an elderly person"), ("a young person", "a youthful person")),
    "White": (tuple(f"a person who is {race}" for race in NON_WHITE), ("a person who is White",)),
}
"""Attribute -> how CLIP is told of value 0 and of value 1, behind "a portrait photo of "."""


def agrees(judge: Judge, logits: Tensor, faces: FaceSet, names: Mapping[str, str]) -> Tensor:
    """(N, K) bool: does ``judge``, whose (N, L) ``logits`` these are, see the K labels that the faces have?

    names  attribute behind each label, ``{"target": "Smiling", "protected": "Male"}``
    """
    columns = [(logits[:, judge.column(a)] >= 0) == getattr(faces, label).bool() for label, a in names.items()]
    return torch.stack(columns, 1)


def agreement(judge: Judge, faces: FaceSet, names: Mapping[str, str]) -> dict[str, float]:
    """In how many per cent of the faces the judge sees each label that they have, by attribute."""
    right = agrees(judge, judge.logits(faces.images), faces, names)
    return dict(zip(names.values(), (100 * right.double().mean(0)).tolist(), strict=True))


def agreement_by_group(judge: Judge, faces: FaceSet, names: Mapping[str, str]) -> pd.DataFrame:
    """A row per group: target, protected, how many faces, and for each attribute what :func:`agreement` says (or NaN)."""
    right = agrees(judge, judge.logits(faces.images), faces, names).double()
    rows = []
    for group, (target, protected) in enumerate(GROUPS):
        member = right[faces.groups == group]
        shares = dict(zip(names.values(), (100 * member.mean(0)).tolist(), strict=True))
        rows.append({"target": target, "protected": protected, "faces": len(member)} | shares)
    return pd.DataFrame(rows)


def kept_judge(name: str, train: Callable[[], Classifier], device: str = "cpu") -> Classifier:
    """The judge ``name`` of ``data/cache``; trained and kept there if it is missing, by one process while others wait."""
    path = home() / "data" / "cache" / f"judge-{name}.safetensors"
    with locked(f"{path}.lock"):
        if not path.exists():
            train().save(path)
    return load_classifier(path, device)


def train_faceworld_judge(
    world: int = 7, images: int = 20_000, seed: int = 0, attributes: Sequence[str] = JUDGED, epochs: int = 12
) -> Classifier:
    """A judge of FaceWorld's web style, from another world than the generator's corpus."""
    from aimfair.datasets import faceworld

    fresh = faceworld.catalogue(style="web", seed=world, train=0, validation=0, test=0, corpus=images)
    labels = torch.from_numpy(fresh.attributes[list(attributes)].to_numpy(np.int64, copy=True))
    return train_classifier(fresh.read(np.arange(images), 64), labels, attributes, epochs=epochs, seed=seed)


def train_corpus_judge(corpus: Corpus, device: str = "cpu") -> tuple[Classifier, Tensor]:
    """A judge of real looks, trained on a captioned corpus; returns it and the indices of the faces kept from it.

    Every tenth face is kept back, so that the judge's own accuracy can be measured: its word is worth no more than that.
    It learns from the corpus' attributes, hence reads no label of a face that a study's classifier is trained on. The seed
    differs from that of the classifier whose features the autoencoder is trained to keep: a twin of it would be no
    independent judge.
    """
    held = torch.arange(len(corpus.images)) % 10 == 9
    images, labels = corpus.images[~held], corpus.labels[~held]
    judge = train_classifier(images, labels, corpus.names, seed=1, device=device)
    return judge, held.nonzero().flatten()


@dataclass(frozen=True)
class Clip(Judge):
    """A CLIP model with its processor: which of two kinds of sentences (:data:`SENTENCES`) is a picture nearer to?

    A second opinion beside the trained judge, from another corpus.
    """

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

    def _texts(self, sentences: tuple[str, ...]) -> Tensor:
        texts = [f"a portrait photo of {sentence}" for sentence in sentences]
        tokens = self.processor.tokenizer(texts, padding=True, return_tensors="pt").to(self.model.device)
        return F.normalize(self.model.get_text_features(**tokens).pooler_output.float(), dim=1)


def load_clip(name_or_folder: str | Path, device: str = "cpu") -> Clip:
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
    with reading(f"the CLIP model {name}", "give a folder, or a hub name while online"):
        model, found = CLIPModel.from_pretrained(name, use_safetensors=True, output_loading_info=True)
        if absent := [*found["missing_keys"], *found["mismatched_keys"]]:  # these would be drawn at random
            raise ValueError(f"its weights lack {absent[0]}, {len(absent)} tensors in all")
        processor = CLIPProcessor.from_pretrained(name)
    return Clip(model.to(device).eval(), processor)
