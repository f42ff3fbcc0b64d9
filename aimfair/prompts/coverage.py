"""Is what the prompts of a bank mention spread evenly: over the target, over the protected value, over the prompts?

A classifier that is trained on the images learns whatever tells the target. If only smiling people wear earrings, that
is the earring.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from math import ceil
from typing import Any, NamedTuple

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


class Surplus(NamedTuple):
    """Something that one group of prompts says too often: at least ``number`` of those that say it must go.

    group  such as "1_0"
    what   as in :func:`mentioned`
    line   the problem, told to a reader
    """

    group: str
    what: str
    number: int
    line: str


class Coverage:
    """How often each group of a bank mentions each thing, and how often it may.

    Compared are the two targets within one protected value (everything that is mentioned), the two protected values
    (kinds of things, and values of attributes that are not labels) and, within a group, the prompts: no attribute and no
    pose may be in more than half of them.

    per_group, tolerance  how many prompts each group shall have, and by how many a mention may differ between two of
                          them: as ``made_by`` of the bank says, or as many as the largest group has and :data:`TOLERANCE`
    said                  group -> what is mentioned -> in how many of its prompts
    """

    def __init__(self, record: Mapping[str, Any]) -> None:
        made_by, pair = record.get("made_by", {}), (record["target"], record["protected"])
        prompts = {f"{t}_{p}": record["groups"][f"{t}_{p}"]["prompts"] for t, p in GROUPS}
        self.target, self.protected = pair
        self.per_group: int = made_by.get("per_group") or max(map(len, prompts.values()))
        self.tolerance: float = made_by.get("tolerance", TOLERANCE) * self.per_group
        self.said = {name: Counter(what for p in own for what in mentioned(p, pair)) for name, own in prompts.items()}
        self._declared = {name: set().union(*map(_declared, own)) for name, own in prompts.items()}
        self._complete = {name for name, own in prompts.items() if len(own) >= self.per_group}
        self._shared = {*(f"anything about {kind}" for kind in KINDS), *_other_labels(pair)}

    def _compared(self, what: str) -> Iterator[tuple[str, list[str], list[str], float]]:
        """(which attribute tells two sets of groups apart, those of value 0, of value 1, the difference that is allowed)."""
        for value in (0, 1):
            yield self.target, [f"0_{value}"], [f"1_{value}"], self.tolerance
        if what in self._shared:
            yield self.protected, ["0_0", "1_0"], ["0_1", "1_1"], 2 * self.tolerance
        for group, declared in self._declared.items():
            if what in declared:
                yield "", [], [group], max(self.per_group // 2, 1)

    def _count(self, groups: list[str], what: str) -> int:
        return sum(self.said[group][what] for group in groups)

    def surpluses(self) -> list[Surplus]:
        """What is said too often somewhere."""
        found = []
        for what in sorted(set().union(*self.said.values())):
            for attribute, no, yes, allowed in self._compared(what):
                low, high = self._count(no, what), self._count(yes, what)
                if abs(high - low) <= allowed:
                    continue
                group = max(yes if high > low else no, key=lambda name: self.said[name][what])
                where = f"{self.protected} = {yes[0][2]}: " if attribute == self.target else ""
                line = f"{where}{what!r} is said {low} times for {attribute} = 0 and {high} times for 1"
                if not no:
                    line = f"group {group}: {what!r} is in {high} prompts, more than half of them"
                found.append(Surplus(group, what, ceil(abs(high - low) - allowed), line))
        return found

    def crowded(self, group: str, what: str) -> bool:
        """Whether one more prompt of ``group`` that mentions ``what`` would leave the bank uneven.

        A group is compared with those that have all their prompts; the first of them is free to mention what it likes.
        """
        for _, no, yes, allowed in self._compared(what):
            own, other = (no, yes) if group in no else (yes, no)
            more = self._count(own, what) + 1 - self._count(other, what)
            if group in own and self._complete.issuperset(other) and more > allowed:
                return True
        return False

    def wanted(self, group: str) -> list[str]:
        """What ``group`` should mention more often than so far, most wanted first."""
        other = f"{1 - int(group[0])}{group[1:]}"
        gap = self.said[other] - self.said[group] if other in self._complete else Counter[str]()
        return sorted((what for what in gap if gap[what] > self.tolerance), key=lambda what: -gap[what])
