"""Is what the prompts of a bank mention spread evenly: over the target, over the protected value, over the prompts?

A classifier that is trained on the images learns whatever tells the target. If only smiling people wear earrings, that
is the earring.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
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


TOLERANCE = 0.1
"""Largest difference of how often something is mentioned for target 0 and target 1, as a share of the prompts of a group:
what differs more could give the target away."""


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
    return {*_declared(prompt), *_read(prompt["text"], pair)}


def _declared(prompt: Mapping[str, Any]) -> set[str]:
    return {*prompt["attributes"], prompt["pose"]} - {""}


@cache
def _read(text: str, pair: tuple[str, str]) -> frozenset[str]:
    kinds = {f"anything about {kind}" for kind, words in KINDS.items() if any(says(text, word) for word in words)}
    return frozenset(kinds | {word for word in (*GENDERED, *_other_labels(pair)) if says(no_colours(text), word)})


def _other_labels(pair: tuple[str, str]) -> list[str]:
    """Words of the attributes that are neither target nor protected. Male and Female are one under two names."""
    task = {"Female", *("Male" if name == "Female" else name for name in pair)}
    return [word for name, words in WORDS.items() if name not in task for side in words for word in side]


def _compared_over_protected(pair: tuple[str, str]) -> list[str]:
    """What must be mentioned about as often for both protected values: kinds, and values of what is no label."""
    return [f"anything about {kind}" for kind in KINDS] + _other_labels(pair)


def _count(record: Mapping[str, Any]) -> dict[str, Counter[str]]:
    """For each group, how many prompts mention each thing."""
    pair = (record["target"], record["protected"])
    groups = {f"{t}_{p}": record["groups"][f"{t}_{p}"]["prompts"] for t, p in GROUPS}
    return {name: Counter(what for p in own for what in mentioned(p, pair)) for name, own in groups.items()}


def asked_for(record: Mapping[str, Any]) -> tuple[int, float]:
    """How many prompts each group of a bank shall have, and by how many a mention may differ between two of them.

    As its ``made_by`` says; where that says nothing, as many as the largest group has, and :data:`TOLERANCE`.
    """
    made_by = record.get("made_by", {})
    per_group = made_by.get("per_group") or max(len(group["prompts"]) for group in record["groups"].values())
    return per_group, made_by.get("tolerance", TOLERANCE) * per_group


def surpluses(record: Mapping[str, Any]) -> list[Surplus]:
    """What is said too often somewhere in a bank.

    Compared are the two targets within one protected value (everything that is mentioned), the two protected values
    (kinds of things, and values of attributes that are not labels) and, within a group, the prompts: no attribute and no
    pose may be in more than half of them.
    """
    per_group, tolerance = asked_for(record)
    said, target, protected = _count(record), record["target"], record["protected"]
    found = []

    def compare(what: str, attribute: str, no: list[str], yes: list[str], allowed: float, where: str = "") -> None:
        low, high = (sum(said[group][what] for group in groups) for groups in (no, yes))
        if abs(high - low) > allowed:
            group = max(yes if high > low else no, key=lambda name: said[name][what])
            line = f"{where}{what!r} is said {low} times for {attribute} = 0 and {high} times for 1"
            found.append(Surplus(group, what, ceil(abs(high - low) - allowed), line))

    for value in (0, 1):
        no, yes = f"0_{value}", f"1_{value}"
        for what in sorted(said[no] | said[yes]):
            compare(what, target, [no], [yes], tolerance, f"{protected} = {value}: ")
    for what in _compared_over_protected((target, protected)):
        compare(what, protected, ["0_0", "1_0"], ["0_1", "1_1"], 2 * tolerance)
    for group, own in said.items():
        for what in sorted(set().union(*map(_declared, record["groups"][group]["prompts"]))):
            if own[what] > max(per_group // 2, 1):
                line = f"group {group}: {what!r} is in {own[what]} prompts, more than half of them"
                found.append(Surplus(group, what, own[what] - per_group // 2, line))
    return found


@dataclass(frozen=True)
class Room:
    """What one more prompt of a group may mention, see :func:`room`.

    crowded  whether a thing was mentioned so often that one more would leave the bank uneven
    wanted   what the group should mention more often than so far, most wanted first
    said     all that the group and the one with the other target mention
    """

    crowded: Callable[[str], bool]
    wanted: list[str]
    said: list[str]


def room(record: Mapping[str, Any], group: str) -> Room:
    """How evenly a bank that is being written would stay, if ``group`` ("1_0") mentioned more.

    A group is compared with those that have all their prompts; the first of them is free to mention what it likes.
    """
    per_group, tolerance = asked_for(record)
    said, (target, protected) = _count(record), map(int, group.split("_"))
    own, other = said[group], said[f"{1 - target}_{protected}"]
    complete = {name for name in said if len(record["groups"][name]["prompts"]) >= per_group}
    compared = f"{1 - target}_{protected}" in complete
    across = [f"{t}_{1 - protected}" for t in (0, 1)]
    declared = set().union(*map(_declared, record["groups"][group]["prompts"]))
    shared = _compared_over_protected((record["target"], record["protected"])) if complete >= set(across) else []

    def crowded(what: str) -> bool:
        return (
            (compared and own[what] + 1 - other[what] > tolerance)
            or (what in declared and own[what] + 1 > max(per_group // 2, 1))
            or (
                what in shared
                and own[what] + 1 + other[what] - sum(said[name][what] for name in across) > 2 * tolerance
            )
        )

    gap = {what: other[what] - own[what] for what in other} if compared else {}
    wanted = sorted((what for what in gap if gap[what] > tolerance), key=lambda what: -gap[what])
    return Room(crowded, wanted, sorted(own | other))
