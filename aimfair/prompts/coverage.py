"""Is what the prompts of a bank mention spread evenly: over the target, over the protected value, over the prompts?

A classifier that is trained on the images learns whatever tells the target. If only smiling people wear earrings, that
is the earring.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from math import ceil
from typing import Any

from aimfair.faces import GROUPS
from aimfair.prompts.wording import MEN_ONLY, WOMEN_ONLY, WORDS, no_colours, says

GENDERED = (*MEN_ONLY, *WOMEN_ONLY, "earrings", "necklace", "necktie", "tie")
"""Words that are typical of one gender: looked for in the text, whether or not it was declared to say them."""

KINDS = {
    "hair": ("hair", "haired", "bald", "bangs", "hairline", "ponytail", "braids"),
    "glasses": ("eyeglasses", "glasses", "spectacles", "sunglasses"),
    "headwear": ("hat", "cap", "beanie", "headscarf", "turban", "hood"),
    "eyebrows": ("eyebrows", "brows"),
    "the shape of the face": ("chin", "cheekbones", "oval face", "round face", "nose", "lips", "eyes", "chubby"),
    "skin": ("skin", "complexion"),
    "the pose of the head": ("head", "looking", "facing", "profile"),
}
"""Kinds of things that are said of women and men alike, in whichever words."""


@dataclass(frozen=True)
class Surplus:
    """Something that one group of prompts says too often: at least ``number`` of those that say it must go.

    group  such as "1_0"
    what   as in :func:`mentioned`
    line   the problem, told to a reader
    """

    group: str
    what: str
    number: int
    line: str


def mentioned(prompt: Mapping[str, Any], pair: tuple[str, str]) -> set[str]:
    """What a prompt of a bank mentions: attributes and pose that it declares, gendered words, the values of attributes
    that are not its labels, and kinds of things ("anything about headwear").

    pair  names of target and protected attribute, which are not counted
    """
    return {*prompt["attributes"], prompt["pose"], *_read(prompt["text"], pair)} - {""}


@cache
def _read(text: str, pair: tuple[str, str]) -> frozenset[str]:
    kinds = {f"anything about {kind}" for kind, words in KINDS.items() if any(says(text, word) for word in words)}
    words = (*GENDERED, *(word for words in _free(pair) for side in words for word in side))
    return frozenset(kinds | {word for word in words if says(no_colours(text), word)})


def counts(record: Mapping[str, Any], group: str) -> Counter[str]:
    """How many prompts of ``group`` mention each thing."""
    pair = (record["target"], record["protected"])
    return Counter(what for prompt in record["groups"][group]["prompts"] for what in mentioned(prompt, pair))


def compared_over_protected(pair: tuple[str, str]) -> list[str]:
    """What must be mentioned about as often for both protected values: kinds, and values of what is no label."""
    free = [word for words in _free(pair) for side in words for word in side]
    return [f"anything about {kind}" for kind in KINDS] + free


def surpluses(record: Mapping[str, Any], per_group: int, tolerance: float) -> list[Surplus]:
    """What is said too often somewhere in a bank.

    Compared are the two targets within one protected value (everything that is mentioned), the two protected values
    (kinds of things, and values of attributes that are not labels) and, within a group, the prompts: no attribute and no
    pose may be in more than half of them.

    tolerance  largest difference allowed, as a share of the prompts
    """
    said = {f"{t}_{p}": counts(record, f"{t}_{p}") for t, p in GROUPS}
    return [
        *_over_targets(record, said, tolerance * per_group),
        *_over_protected(record, said, 2 * tolerance * per_group),
        *_over_prompts(record, said, per_group // 2),
    ]


def _over_targets(record: Mapping[str, Any], said: Mapping[str, Counter[str]], allowed: float) -> list[Surplus]:
    found = []
    for value in (0, 1):
        low, high = said[f"0_{value}"], said[f"1_{value}"]
        for what in sorted(low | high):
            gap = high[what] - low[what]
            if abs(gap) > allowed:
                line = f"{record['protected']} = {value}: {what!r} is said {low[what]} times for {record['target']} = 0"
                group = f"{int(gap > 0)}_{value}"
                found.append(Surplus(group, what, ceil(abs(gap) - allowed), f"{line} and {high[what]} times for 1"))
    return found


def _over_protected(record: Mapping[str, Any], said: Mapping[str, Counter[str]], allowed: float) -> list[Surplus]:
    pair = (record["target"], record["protected"])
    found = []
    for what in compared_over_protected(pair):
        low, high = (said[f"0_{value}"][what] + said[f"1_{value}"][what] for value in (0, 1))
        if abs(high - low) > allowed:
            value = int(high > low)
            group = max((f"0_{value}", f"1_{value}"), key=lambda name: said[name][what])
            line = f"{what!r} is said {low} times for {pair[1]} = 0 and {high} times for 1"
            found.append(Surplus(group, what, ceil(abs(high - low) - allowed), line))
    return found


def _over_prompts(record: Mapping[str, Any], said: Mapping[str, Counter[str]], most: int) -> list[Surplus]:
    found = []
    for group, own in said.items():
        declared = {
            what for prompt in record["groups"][group]["prompts"] for what in (*prompt["attributes"], prompt["pose"])
        }
        for what in sorted(declared - {""}):
            if own[what] > max(most, 1):
                line = f"group {group}: {what!r} is in {own[what]} prompts, more than half of them"
                found.append(Surplus(group, what, own[what] - most, line))
    return found


def _free(pair: tuple[str, str]) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Words of the attributes that are neither target nor protected. Male and Female are one under two names."""
    task = {"Male" if name == "Female" else name for name in pair}
    return [words for name, words in WORDS.items() if name not in task | {"Female"}]
