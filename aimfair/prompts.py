"""Prompt banks: 50 sentences per group for a text-to-image model, read from ``data/prompts`` and checked by code.

A bank is one JSON file per task. Beside the sentences it holds what they mention, the instruction that a
language model would be given for them, and how they were made; :mod:`aimfair.grammar` writes the banks
that come with the book.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from aimfair.errors import AimfairError
from aimfair.faces import GROUPS
from aimfair.paths import home

PER_GROUP = 50
MAX_TOKENS = 77
"""Context length of CLIP's text encoder, begin and end token included: what comes after is not read."""

NON_WHITE = ("Black", "East Asian", "Southeast Asian", "Indian", "Middle Eastern", "Latino Hispanic")

WORDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "Smiling": (("neutral", "serious"), ("smiling", "smile", "grin", "laughing")),
    "Male": (("female", "woman", "girl"), ("male", "man", "boy")),
    "Female": (("male", "man", "boy"), ("female", "woman", "girl")),
    "Young": (("old", "elderly"), ("young",)),
    "White": (("non-white", *(race.lower() for race in NON_WHITE)), ("white",)),
}
"""Attribute -> words that name its value 0 and its value 1. "Not smiling" would say "smiling" to CLIP, hence neutral."""

MEN_ONLY = ("beard", "goatee", "mustache", "stubble", "sideburns", "bald", "receding")
WOMEN_ONLY = ("lipstick", "makeup")
EXCLUSIVE = (
    ("black hair", "brown hair", "blond hair", "red hair", "gray hair", "bald"),
    ("bald", "bangs", "receding"),
    ("straight", "wavy", "curly"),
    ("long", "short"),
    ("stubble", "beard", "goatee"),
    ("left", "right"),
    ("upward", "downward"),
)
"""Words of which a prompt may say one at most."""

INSTRUCTION = """Task: {Task}
Number of prompts: {Number}
Target attribute, named in every prompt: {Target}
Protected attribute, named in every prompt: {Protected}
Other descriptions: {Other descriptions}
Prompt format: {Prompt format}"""


@dataclass(frozen=True)
class Prompt:
    """One sentence for the text-to-image model, and the labels (0 or 1) of every image drawn from it.

    ``id`` names group and place, such as "1_0/07".
    """

    id: str
    text: str
    target: int
    protected: int


VARIANTS: dict[str, Callable[[Mapping[str, Any]], list[tuple[str, str]]]] = {
    "contextual": lambda group: [(p["id"], p["text"]) for p in group["prompts"]],
    "contextual-25": lambda group: [(p["id"], p["text"]) for p in group["prompts"][:25]],
    "no-pose": lambda group: [(p["id"], p["without_pose"]) for p in group["prompts"]],
    "plain": lambda group: [(group["plain"]["id"], group["plain"]["text"])],
}
"""Variant -> (id, text) of each prompt of a group: the rows of Table 5."""


def bank(task: str, variant: str = "contextual") -> list[Prompt]:
    """Prompts of ``task`` ("<dataset>/<Target>_<Protected>"), group after group.

    variant  "contextual" (50 per group, with head poses), "contextual-25" (the first 25), "no-pose" (the 50
             without the pose clause) or "plain" (one per group): the rows of Table 5.
    Raises AimfairError for an unknown task or variant and for a file that lacks something, naming file and group.
    """
    if variant not in VARIANTS:
        raise AimfairError(f"no prompt variant {variant!r}; there are: {', '.join(VARIANTS)}")
    groups = read(task)["groups"]
    return [
        Prompt(id, text, target, protected)
        for target, protected in GROUPS
        for id, text in VARIANTS[variant](groups[f"{target}_{protected}"])
    ]


def tasks() -> list[str]:
    """Names of all banks in ``data/prompts``."""
    return sorted(path.relative_to(_folder()).with_suffix("").as_posix() for path in _folder().glob("*/*.json"))


def path_of(task: str) -> Path:
    """The JSON file of a task's bank."""
    return _folder() / f"{task}.json"


def read(task: str) -> dict[str, Any]:
    """The whole record of a bank. Raises AimfairError naming the file, and the group where something is missing."""
    path = path_of(task)
    if not path.exists():
        raise AimfairError(f"no prompt bank {task!r} ({path}); there are: {', '.join(tasks())}")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise AimfairError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(record, dict):
        raise AimfairError(f"{path} must hold one JSON object")
    _demand(record, {"target": str, "protected": str, "groups": dict}, str(path))
    for target, protected in GROUPS:
        name = f"{target}_{protected}"
        where = f"{path}, group {name}"
        _demand(record["groups"], {name: dict}, where)
        group = record["groups"][name]
        _demand(group, {"plain": dict, "prompts": list}, where)
        _demand(group["plain"], {"id": str, "text": str}, f"{where}, plain")
        if not group["prompts"]:
            raise AimfairError(f"{where} has no prompt: write some or restore the file")
        for i, prompt in enumerate(group["prompts"]):
            wanted = {"id": str, "text": str, "without_pose": str, "pose": str, "attributes": list}
            _demand(prompt, wanted, f"{where}, prompt {i}")
    return record


def _demand(content: Any, keys: Mapping[str, type], where: str) -> None:
    for key, kind in keys.items():
        if not isinstance(content, dict) or key not in content:
            raise AimfairError(f"{where}: {key!r} is missing; restore the file or write the bank again")
        if not isinstance(content[key], kind):
            raise AimfairError(f"{where}: {key!r} must be a {kind.__name__}, got {type(content[key]).__name__}")


def _folder() -> Path:
    return home() / "data" / "prompts"


def instruction(record: Mapping[str, Any], group: str) -> str:
    """What a language model is asked for the prompts of ``group`` ("1_0"), in the six parts of Section 3.1."""
    words = record["groups"][group]
    return INSTRUCTION.format(**record["instruction"], Target=words["target"], Protected=words["protected"])


def sentence(phrase: str, clauses: Sequence[str] = ()) -> str:
    """The one sentence form of all captions and prompts: who is shown, then what is seen.

    >>> sentence("smiling young male", ["black hair", "eyeglasses", "head turned slightly left"])
    'Portrait face photo of a smiling young male with black hair, eyeglasses, and head turned slightly left.'
    """
    article = "an" if re.match(r"[aeiou]|(8\d?|11|18)\b", phrase.lower()) else "a"
    ended = list(clauses[:-1])
    joined = ", ".join(ended) + (", and " if len(ended) > 1 else " and " if ended else "")
    return f"Portrait face photo of {article} {phrase}{' with ' if clauses else ''}{joined}{''.join(clauses[-1:])}."


def check(
    record: Mapping[str, Any],
    tokens: Callable[[str], int] | None = None,
    per_group: int = PER_GROUP,
    tolerance: float = 0.1,
) -> list[str]:
    """Everything that is wrong with a bank, one line each; an empty list if nothing is.

    tokens     text -> number of tokens of the tokenizer at hand; without one, 1.5 per word and 2 for begin and end
    tolerance  largest difference of how often something is mentioned for target 0 and target 1 within one
               protected value, as a share of the prompts: what differs more could give the target away
    """
    count = tokens or (lambda text: int(1.5 * len(text.split())) + 2)
    pair = (record["target"], record["protected"])
    problems = []
    for values in GROUPS:
        name = f"{values[0]}_{values[1]}"
        group = record["groups"][name]
        prompts = group["prompts"]
        if len(prompts) != per_group:
            problems.append(f"group {name}: {len(prompts)} prompts, {per_group} are wanted")
        for key in ("id", "text", "without_pose"):
            twice = [value for value, n in Counter(p[key] for p in prompts).items() if n > 1]
            problems += [f"group {name}: {key} {value!r} is there more than once" for value in twice]
        for prompt in prompts:
            absent = [x for x in (*prompt["attributes"], prompt["pose"]) if not _says(prompt["text"], x)]
            problems += [f"{prompt['id']}: the text does not say {x!r}" for x in absent]
            if prompt["pose"] and _says(prompt["without_pose"], prompt["pose"]):
                problems.append(f"{prompt['id']}: the text without pose says {prompt['pose']!r}")
        texts = [(p["id"], p[key]) for p in prompts for key in ("text", "without_pose")]
        for id, text in [*texts, (group["plain"]["id"], group["plain"]["text"])]:
            found = [*_names(text, dict(zip(pair, values, strict=True))), *contradictions(text)]
            if count(text) > MAX_TOKENS:
                found.append(f"{count(text)} tokens, CLIP reads {MAX_TOKENS}")
            problems += [f"{id}: {problem} ({text})" for problem in found]
    return problems + _imbalance(record, pair, tolerance * per_group)


def contradictions(text: str) -> list[str]:
    """What in one prompt cannot be true together."""
    pairs = [pair for words in EXCLUSIVE for pair in combinations(words, 2)]
    women, men = WORDS["Male"]
    pairs += [(w, trait) for w in women for trait in MEN_ONLY] + [(m, trait) for m in men for trait in WOMEN_ONLY]
    return [f"both {a!r} and {b!r}" for a, b in pairs if _says(text, a) and _says(text, b)]


def _names(text: str, values: Mapping[str, int]) -> list[str]:
    problems = []
    text = re.sub(r"\b(black|white) (?=hair|beard|mustache|stubble)", "", text.lower())  # a colour, not a race
    for attribute, value in values.items():
        named = [any(_says(text, word) for word in WORDS[attribute][v]) for v in (0, 1)]
        if not named[value]:
            problems.append(f"does not name {attribute} = {value}")
        if named[1 - value]:
            problems.append(f"names {attribute} = {1 - value}")
    return problems


def _imbalance(record: Mapping[str, Any], pair: tuple[str, str], allowed: float) -> list[str]:
    # Male and Female are one attribute under two names: what the task fixes is no nuisance under the other name.
    task = {"Male" if name == "Female" else name for name in pair}
    nuisances = [words for name, words in WORDS.items() if name not in task | {"Female"}]

    def mentions(group: Mapping[str, Any]) -> Counter[str]:
        counts: Counter[str] = Counter()
        for prompt in group["prompts"]:
            counts.update([*prompt["attributes"], prompt["pose"]])
            counts.update(w for words in nuisances for side in words for w in side if _says(prompt["text"], w))
        return counts

    problems = []
    for value in (0, 1):
        low, high = (mentions(record["groups"][f"{target}_{value}"]) for target in (0, 1))
        problems += [
            f"{pair[1]} = {value}: {what!r} is said {low[what]} times for {pair[0]} = 0 and {high[what]} times for 1"
            for what in sorted(low | high)
            if abs(low[what] - high[what]) > allowed
        ]
    return problems


def _says(text: str, phrase: str) -> bool:
    """Whether ``phrase`` stands in ``text`` as whole words; "male" is not in "female" nor "white" in "non-white"."""
    return re.search(rf"(?<![\w-]){re.escape(phrase.lower())}(?![\w-])", text.lower()) is not None
