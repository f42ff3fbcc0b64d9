"""A seeded grammar that stands in for the language model: it wrote the prompt banks beside this file.

``python data/prompts/write_banks.py`` writes all of them again, byte for byte. UTKFace has two: ``utkface/Female_White``, which says
age, race and pose, what the captions of FairFace know and so the tiny model that is trained on them (the published runs use
it), and ``utkface/Female_White@rich``, with expression, hairstyle and a distinguishing feature too, for larger models.

Prompt i is one scene shared by the four groups: the same hair, accessories and head pose, with the words
that name target and protected attribute exchanged. So nothing that is mentioned can tell the target, in
the whole bank and in every beginning of it. Only what is typical of one gender follows the gender.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from aimfair import prompts
from aimfair.environment import AimfairError
from aimfair.faces import GROUPS
from aimfair.prompts import PER_GROUP, sentence
from aimfair.prompts.wording import NON_WHITE, contradictions

POSES = (
    "head facing the camera",
    "head turned slightly left",
    "head turned slightly right",
    "head tilted slightly left",
    "head tilted slightly right",
    "head tilted slightly upward",
    "head tilted slightly downward",
)

AGES = (*np.linspace(1, 69, 45).round().astype(int).tolist(), 70, 75, 80, 85, 90)
"""50 ages in years; coarse from 70 on, where FairFace's labels do not tell them apart."""

Scene = Mapping[str, Any]
"""Slot -> what was chosen for it."""


def same(*phrases: str) -> tuple[tuple[str, str], ...]:
    """Options of a slot that are said of women and men alike."""
    return tuple((phrase, phrase) for phrase in phrases)


NOTHING = same("")

Slots = dict[str, tuple[tuple[str, str], ...]]
"""Slot -> options (said of a woman, said of a man); an option that stands there twice is chosen twice as often."""

FACEWORLD: Slots = {
    "hair": (
        *((f"long {tone} hair", f"short {tone} hair") for tone in ("black", "brown", "blond", "red", "gray")),
        *same("short brown hair", "short curly brown hair", "short black hair", "short curly black hair"),
        ("long blond hair", "short blond hair"),
        ("long curly red hair", "short curly red hair"),
        ("short gray hair", "a bald head"),
        *NOTHING * 2,
    ),
    "feature": same("eyeglasses", "eyeglasses", "a hat", "bangs", "", "", ""),
    "gendered": (
        ("lipstick", "stubble"),
        ("earrings", "a mustache"),
        ("lipstick", "a goatee"),
        ("earrings", "a full beard"),
        *NOTHING * 3,
    ),
    "skin": same("dark skin", "", "", ""),
}

CELEBA: Slots = {
    "hair": (
        *same(*(f"{form}{tone} hair" for tone in ("black", "brown", "blond") for form in ("", "straight ", "wavy "))),
        *same("gray hair", "straight gray hair"),
        ("wavy gray hair", "a bald head"),
        *NOTHING * 3,
    ),
    "feature": (
        *same("eyeglasses", "eyeglasses", "a hat", "mouth slightly open", "bags under the eyes", "a double chin"),
        *same("full lips", "a large nose", "a pointed nose", "narrow eyes", "an oval face", "pale skin"),
        *NOTHING * 5,
    ),
    "gendered": (
        ("lipstick", "stubble"),
        ("heavy makeup", "a goatee"),
        ("earrings", "a mustache"),
        ("lipstick", "a beard"),
        ("a necklace", "a necktie"),
        ("heavy makeup", "sideburns"),
        ("arched eyebrows", "bushy eyebrows"),
        ("bangs", "a receding hairline"),
        *NOTHING * 4,
    ),
}


PEOPLE: Slots = {
    "expression": same("smiling", "laughing", "neutral", "serious", "surprised", ""),
    "hair": same(*(f"{form} {tone} hair" for tone in ("black", "brown") for form in ("straight", "wavy", "curly")))
    + same("straight gray hair", "wavy gray hair", ""),
    "feature": same("eyeglasses", "freckles", "dimples", "thick eyebrows", "high cheekbones", "deep wrinkles")
    + same("a mole on the cheek", "", ""),
}
"""Beside age and race: expression, hairstyle and a distinguishing feature, none of them typical of one gender."""

OF_AGE = {
    **{"gray hair": (50, 200), "deep wrinkles": (50, 200), "black hair": (0, 69), "brown hair": (0, 69)},
    **{"thick eyebrows": (14, 200), "high cheekbones": (14, 200)},
}
"""What is said of some ages only: the lowest and the highest, in years."""


def alike(slots: Slots) -> Slots:
    """``slots`` without what is typical of one gender, hair length included: where the gender is the target, the rest of
    the sentence must not tell it."""
    bare = {
        name: [tuple(re.sub(r"^(long|short) ", "", phrase) for phrase in option) for option in options]
        for name, options in slots.items()
    }
    return {name: tuple((a, b) for a, b in options if a == b) for name, options in bare.items()}


NUISANCES: dict[str, tuple[int | None, ...]] = {
    "Smiling": (0, 1),
    "Male": (0, 1),
    "Young": (1, 1, 1, 1, 1, 1, 0, 0, 0, None),
}
"""How often each value is named where the attribute is neither target nor protected; None: not mentioned."""


@dataclass(frozen=True)
class Grammar:
    """What a bank may say, for one data set and task.

    slots          attributes; where White is a label (UTKFace) age and race come before them
    corpus         external corpus of the tiny text-to-image model that goes with the data set
    captions_say   which parts of a prompt that corpus' captions use, and so the tiny model understands
    """

    target: str
    protected: str
    slots: Slots
    corpus: str
    captions_say: tuple[str, ...]

    @property
    def ages(self) -> bool:
        """Whether every prompt says an age in years and a race."""
        return "White" in (self.target, self.protected)


def _grammars() -> dict[str, Grammar]:
    everything = ("group", "attributes", "pose")
    pairs = (("Smiling", "Male"), ("Smiling", "Young"), ("Young", "Male"))
    return {
        **{f"faceworld/{t}_{p}": Grammar(t, p, FACEWORLD, "faceworld", everything) for t, p in pairs},
        "faceworld/Male_Young": Grammar("Male", "Young", alike(FACEWORLD), "faceworld", everything),
        **{f"celeba/{t}_{p}": Grammar(t, p, CELEBA, "celeba", everything[:2]) for t, p in pairs},
        "celeba/Male_Young": Grammar("Male", "Young", alike(CELEBA), "celeba", everything[:2]),
        "utkface/Female_White": Grammar("Female", "White", {}, "fairface", everything[:2]),
        "utkface/Female_White@rich": Grammar("Female", "White", PEOPLE, "fairface", everything[:1]),
    }


GRAMMARS = _grammars()


def make(task: str, seed: int = 0) -> dict[str, Any]:
    """The record of a bank of ``task``: four groups of 50 prompts and all that says how they came about.

    The same task and seed give the same record. Raises AimfairError for a task without a grammar.
    """
    if task not in GRAMMARS:
        raise AimfairError(f"no grammar for {task!r}; there are: {', '.join(GRAMMARS)}")
    grammar = GRAMMARS[task]
    chosen = _choose(grammar, seed)
    groups = {}
    for values in GROUPS:
        name = f"{values[0]}_{values[1]}"
        words = [_words(grammar, attribute, v) for attribute, v in zip(_pair(grammar), values, strict=True)]
        groups[name] = {
            "target": words[0],
            "protected": words[1],
            "plain": {"id": f"{name}/plain", "text": sentence(_plain(grammar, values))},
            "prompts": [{"id": f"{name}/{i:02d}", **_write(grammar, scene, values)} for i, scene in enumerate(chosen)],
        }
    return {
        "task": task.partition("@")[0],
        "target": grammar.target,
        "protected": grammar.protected,
        "licence": "MIT",
        "made_by": {
            "how": "sampled from a seeded grammar; no language model was asked",
            "command": "python data/prompts/write_banks.py",
            "seed": seed,
            "per_group": PER_GROUP,
        },
        "tiny_model": {"corpus": grammar.corpus, "captions_say": list(grammar.captions_say)},
        "instruction": _instruction(grammar),
        "groups": groups,
    }


def write_bank(task: str, path: str | Path | None = None, seed: int = 0) -> Path:
    """Write the bank of ``task`` to ``path``, by default its place in ``data/prompts``."""
    return prompts.write(make(task, seed), prompts.path_of(task) if path is None else Path(path))


def _choose(grammar: Grammar, seed: int) -> list[Scene]:
    """50 scenes; the next is always one whose options were least used so far, ties broken at random."""
    rng = np.random.default_rng(seed)
    slots = _slots(grammar)
    options = [list(dict.fromkeys(values)) for values in slots.values()]
    weights = [[values.count(o) for o in own] for own, values in zip(options, slots.values(), strict=True)]
    candidates = np.array(list(product(*(range(len(own)) for own in options))))
    candidates = candidates[rng.permutation(len(candidates))]
    cost = np.zeros(len(candidates))
    chosen: list[Scene] = []
    seen: set[str] = set()
    while len(chosen) < PER_GROUP:
        best = int(cost.argmin())
        scene = {slot: own[k] for slot, own, k in zip(slots, options, candidates[best], strict=True)}
        cost[best] = np.inf
        texts = {_write(grammar, scene, values)["without_pose"] for values in GROUPS}
        if texts & seen or not all(_sound(grammar, scene, values) for values in GROUPS):
            continue
        chosen.append(scene)
        seen |= texts
        for column, k in enumerate(candidates[best]):
            cost[candidates[:, column] == k] += 1 / weights[column][k]
    return chosen


def _slots(grammar: Grammar) -> dict[str, tuple]:
    if grammar.ages:
        return {"age": AGES, "race": NON_WHITE, **grammar.slots, "pose": POSES}
    free = {name: values for name, values in NUISANCES.items() if name not in _pair(grammar)}
    calm = {"calm": ("neutral", "serious")}
    return {**free, **calm, **grammar.slots, "pose": POSES}


def _sound(grammar: Grammar, scene: Scene, values: tuple[int, int]) -> bool:
    """One to three attributes, no contradiction, and no gray-haired young face where the age is free to choose.

    Where the age is target or protected, gray hair is shared by young and old like everything else. Where it is said in
    years, nothing is said that does not go with it (:data:`OF_AGE`), and age and race are not counted.
    """
    written = _write(grammar, scene, values)
    if grammar.ages:
        ends = [OF_AGE[what] for what in OF_AGE if what in written["text"]]
        return all(low <= scene["age"] <= high for low, high in ends) and not contradictions(written["text"])
    gray = scene.get("Young") == 1 and "gray hair" in written["text"]
    return 1 <= len(written["attributes"]) <= 3 and not gray and not contradictions(written["text"])


def _write(grammar: Grammar, scene: Scene, values: tuple[int, int]) -> dict[str, Any]:
    """Text, clauses and attributes of one prompt of the group ``values``."""
    labels = {**scene, **dict(zip(_pair(grammar), values, strict=True))}
    if grammar.ages:
        race = "white" if labels["White"] else scene["race"]
        expression, *clauses = ["" if slot not in scene else scene[slot][0] for slot in PEOPLE]
        clauses = [said for said in clauses if said]
        attributes = [f"{scene['age']} year old", *([] if labels["White"] else [race])]
        attributes += [said for said in (expression, *clauses) if said]
        who = f"{scene['age']} year old {race} {'female' if labels['Female'] else 'male'}"
        phrase = f"{expression} {who}".strip()
    else:
        attributes = clauses = [said for slot in grammar.slots if (said := scene[slot][labels["Male"]])]
        phrase = _phrase(labels, "smiling" if labels["Smiling"] else scene["calm"])
    return {
        "text": sentence(phrase, [*clauses, scene["pose"]]),
        "without_pose": sentence(phrase, clauses),
        "phrase": phrase,
        "attributes": attributes,
        "pose": scene["pose"],
    }


def _phrase(labels: Mapping[str, Any], smile: str = "") -> str:
    age = {1: "young", 0: "old", None: ""}[labels.get("Young")]
    gender = {1: "male", 0: "female", None: "face"}[labels.get("Male")]
    return " ".join(word for word in (smile, age, gender) if word)


def _plain(grammar: Grammar, values: tuple[int, int]) -> str:
    labels = dict(zip(_pair(grammar), values, strict=True))
    if grammar.ages:
        return f"{'white' if labels['White'] else 'non-white'} {'female' if labels['Female'] else 'male'}"
    smile = {1: "smiling", 0: "neutral", None: ""}[labels.get("Smiling")]
    return _phrase(labels, smile)


def _words(grammar: Grammar, attribute: str, value: int) -> str:
    """How the value is worded in this bank, for the instruction."""
    if attribute == "White" and not value:
        return "one of " + ", ".join(NON_WHITE)
    words = prompts.WORDS[attribute][value]
    return " or ".join(words) if attribute == "Smiling" and not value else words[0]


def _pair(grammar: Grammar) -> tuple[str, str]:
    return grammar.target, grammar.protected


def _instruction(grammar: Grammar) -> dict[str, Any]:
    said = [word for options in grammar.slots.values() for pair in options for word in pair if word]
    if grammar.ages:
        others = "ages from 1 to 90 in years"
        if said:
            others += f", one to three of: {', '.join(dict.fromkeys(said))}; nothing that is typical of women or of men"
    else:
        others = "one to three of: " + ", ".join(dict.fromkeys(said))
        others += (
            "; nothing that is typical of women or of men"
            if grammar.target == "Male"
            else "; beards and the like for men only, lipstick and makeup for women only"
        )
    return {
        "Task": "Write prompts for a text-to-image model that shall draw many different photos of single faces.",
        "Number": PER_GROUP,
        "Other descriptions": f"{others}; and one head pose: {', '.join(POSES)}. "
        "Mention everything equally often, whatever the target attribute is.",
        "Prompt format": 'One sentence per line that begins with "Portrait face photo of a"; the pose comes last.',
    }


if __name__ == "__main__":
    for name in GRAMMARS:
        print(write_bank(name))
