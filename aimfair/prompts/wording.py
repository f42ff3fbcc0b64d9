"""What one prompt says: the labels that it names, what cannot be true together, how much of it CLIP reads."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from itertools import combinations, product
from math import ceil
from typing import Any, NamedTuple

from aimfair.environment import AimfairError

MAX_TOKENS = 77
"""Context length of CLIP's text encoder, begin and end token included: what comes after is not read."""


class Tokens(NamedTuple):
    """How a text encoder counts: text -> number of tokens, begin and end token included; and how many of them it reads."""

    count: Callable[[str], int]
    limit: int = MAX_TOKENS


NON_WHITE = ("Black", "East Asian", "Southeast Asian", "Indian", "Middle Eastern", "Latino Hispanic")

WORDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "Smiling": (("neutral", "serious"), ("smiling", "smile", "grin", "laughing")),
    "Male": (("female", "woman", "girl"), ("male", "man", "boy")),
    "Female": (("male", "man", "boy"), ("female", "woman", "girl")),
    "Young": (("old", "elderly"), ("young",)),
    "White": (("non-white", *(race.lower() for race in NON_WHITE)), ("white",)),
}
"""Attribute -> words that name its value 0 and its value 1. "Not smiling" would say "smiling" to CLIP, hence neutral."""

FEMININE, MASCULINE = ("lady", "women", "feminine", "her", "she"), ("gentleman", "guy", "men", "masculine", "his", "he")

HINTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "Smiling": (("frowning", "stern", "solemn", "unsmiling"), ("smiles", "grinning", "beaming", "cheerful", "laugh")),
    "Male": (FEMININE, MASCULINE),
    "Female": (MASCULINE, FEMININE),
    "Young": (("aged", "senior", "middle-aged"), ("youthful", "teenage", "teenager", "child")),
    "White": (("asian", "african", "hispanic", "latino", "latina", "arab"), ("caucasian",)),
}
"""Words that give a value away: too little to name it, enough to be wrong beside the other one."""

MEN_ONLY = (
    *("beard", "goatee", "mustache", "stubble", "sideburns", "bald", "receding"),
    *("bearded", "moustache", "facial hair", "5 o'clock shadow", "five o'clock shadow", "unshaven"),
)
WOMEN_ONLY = ("lipstick", "makeup", "make-up", "mascara", "eyeliner", "eyeshadow", "eye shadow")
EXCLUSIVE = (
    ("black hair", "brown hair", "blond hair", "red hair", "gray hair", "bald", "blonde hair", "grey hair"),
    ("bald", "bangs", "receding"),
    ("straight", "wavy", "curly"),
    ("long", "short"),
    ("stubble", "beard", "goatee"),
    ("left", "right"),
    ("upward", "downward"),
    ("bald", "ponytail", "braids"),
    ("young", "elderly"),
)
"""Words of which a prompt may say one at most."""

NEGATIONS = ("no", "not", "without", "never", "neither", "nor")

COLOURED = r"hair|beard|mustache|moustache|goatee|stubble|hat|cap|shirt|glasses|eyeglasses|necktie|background"
_A_COLOUR = re.compile(rf"\b(black|white) (?=((?!(fe)?male|(wo)?man|girl|boy)[\w-]+ )?({COLOURED})\b)", re.IGNORECASE)

_PARTS = re.compile(r"[^\W\d_]+|\d|(?:[^\s\w]|_)+")

_AN_AGE = re.compile(r"\byears? old\b")


def faults(text: str, values: Mapping[str, int], tokens: Tokens | None = None) -> list[str]:
    """Everything that is wrong with one prompt, a few words each; an empty list if nothing is.

    values  what it must name, such as {"Smiling": 1, "Male": 0}
    tokens  the tokenizer at hand (:func:`token_counter`); without one, :data:`ESTIMATED`
    """
    found = [*named(text, values), *contradictions(text), *undecided(text, values)]
    count, limit = tokens or ESTIMATED
    if count(text) > limit:
        found.append(f"{count(text)} tokens, CLIP reads {limit}")
    # A negated label is told once, as the label that CLIP reads.
    return found or [f"says what is not there: {word!r}" for word in NEGATIONS if says(text, word)]


def named(text: str, values: Mapping[str, int]) -> list[str]:
    """Which of ``values`` a prompt does not name, and which opposite it names."""
    problems = []
    text = _AN_AGE.sub("", no_colours(text).lower())  # "9 years old" is not old
    for attribute, value in values.items():
        own, other = WORDS[attribute][value], WORDS[attribute][1 - value] + HINTS[attribute][1 - value]
        if not any(says(text, word) for word in own):
            problems.append(f"does not name {attribute} = {value} (say one of: {', '.join(own)})")
        if any(says(text, word) for word in other):
            problems.append(f"names {attribute} = {1 - value}")
    return problems


def no_colours(text: str) -> str:
    """``text`` without the words black and white where they are a colour: "white hair" is no race."""
    return _A_COLOUR.sub("", text)


def contradictions(text: str) -> list[str]:
    """What in one prompt cannot be true together."""
    women, men = WORDS["Male"]
    pairs = [pair for words in EXCLUSIVE for pair in combinations(words, 2)]
    pairs += [*product(women, MEN_ONLY), *product(men, WOMEN_ONLY)]
    said = {word for word in {w for pair in pairs for w in pair} if says(text, word)}
    return [f"both {a!r} and {b!r}" for a, b in dict.fromkeys(pairs) if a in said and b in said]


def undecided(text: str, values: Mapping[str, int]) -> list[str]:
    """Attributes that are no label of the prompt and of which it names both values."""
    text = _AN_AGE.sub("", text.lower())
    free = {"Smiling", "Male", "Young"} - {"Male" if name == "Female" else name for name in values}
    both = {name: [[w for w in side if says(text, w)] for side in WORDS[name]] for name in sorted(free)}
    return [f"both {no[0]!r} and {yes[0]!r}" for no, yes in both.values() if no and yes and "elderly" not in no]


def says(text: str, phrase: str) -> bool:
    """Whether ``phrase`` stands in ``text`` as whole words; "male" is not in "female" nor "white" in "non-white"."""
    return _pattern(phrase).search(text.lower()) is not None


@cache
def _pattern(phrase: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w-]){re.escape(phrase.lower())}(?![\w-])")


def estimated_tokens(text: str) -> int:
    """Number of CLIP tokens without a tokenizer, rather too many than too few.

    CLIP's tokenizer splits at spaces, around punctuation and between digits, then words into parts. Counted is one part
    per four letters begun, or three for every two words if that is more; then the begin and the end token.
    """
    parts = _PARTS.findall(text)
    return max(sum(ceil(len(part) / 4) if part.isalpha() else 1 for part in parts), int(1.5 * len(text.split()))) + 2


ESTIMATED, FEWEST = Tokens(estimated_tokens), Tokens(lambda text: len(_PARTS.findall(text)) + 2)
"""Without a tokenizer: a number that is rather too high, and one that CLIP's cannot stay below."""


def token_counter(model: str) -> Tokens:
    """How a text-to-image model's own tokenizer counts.

    model  folder or hub name of a pipeline of diffusers, or of a tokenizer
    Raises AimfairError where there is no tokenizer.
    """
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise AimfairError("a tokenizer needs transformers: pip install 'aimfair[generate]'") from error
    tokenizer: Any = None
    for subfolder in ("tokenizer", ""):
        try:
            tokenizer = AutoTokenizer.from_pretrained(model, subfolder=subfolder)
            break
        except (OSError, ValueError, KeyError):
            continue
    if tokenizer is None:
        raise AimfairError(f"{model} holds no tokenizer: name a text-to-image pipeline of diffusers, or a tokenizer")
    return Tokens(lambda text: len(tokenizer(text)["input_ids"]), min(tokenizer.model_max_length, MAX_TOKENS))
