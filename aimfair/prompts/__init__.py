"""Prompt banks: 50 sentences per group for a text-to-image model, read from ``data/prompts`` and checked by code.

A bank is one JSON file per task. Beside the sentences it holds what they mention, the instruction that a
language model is given for them, and how they were made: ``data/prompts/write_banks.py`` wrote the banks that come
with the book, :mod:`aimfair.prompts.writing` has others written by a language model. A task may have several: "<task>@<name>" lies
beside the recorded one, and a study takes it by ``prompts: contextual@<name>``.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from aimfair.environment import AimfairError, aside, home, reading
from aimfair.faces import GROUPS
from aimfair.prompts.coverage import TOLERANCE, Coverage
from aimfair.prompts.replies import OPENING, listing
from aimfair.prompts.wording import FEWEST, Tokens, faults, says
from aimfair.prompts.wording import MAX_TOKENS as MAX_TOKENS  # this and the words that name a label are for readers
from aimfair.prompts.wording import WORDS as WORDS

PER_GROUP = 50

INSTRUCTION = """Task: {Task}
Number of prompts: {Number}
Target attribute, named in every prompt: {Target}
Protected attribute, named in every prompt: {Protected}
Other descriptions: {Other descriptions}
Prompt format: {Prompt format}"""


Label = int | str
"""0 or 1 in this book; the name of a class or a group in a repair of a user's own classifier."""


@dataclass(frozen=True)
class Prompt:
    """One sentence for the text-to-image model, and the labels of every image drawn from it.

    ``id`` names group and place, such as "1_0/07".
    """

    id: str
    text: str
    target: Label
    protected: Label


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
             without the pose clause) or "plain" (one per group): the rows of Table 5. "contextual@mine" is that of
             the bank "<task>@mine", which :func:`aimfair.prompts.writing.write_bank` wrote beside the recorded one
    Raises AimfairError for an unknown task or variant, for a file that lacks something, naming file and group, and for a
    bank in which :func:`check` finds something: nothing is drawn from a bank that was edited and not checked again.
    """
    variant, at, name = variant.partition("@")
    if variant not in VARIANTS:
        raise AimfairError(f"no prompt variant {variant!r}; there are: {', '.join(VARIANTS)}")
    task += at + name
    record, path = read(task), path_of(task)
    pair = f"{record['target']}_{record['protected']}"
    if pair != path.stem.partition("@")[0]:
        raise AimfairError(f"{path} holds prompts for {pair}: name the file after it")
    if problems := check(record, FEWEST):  # how long a prompt may be is up to the model that will read it
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise AimfairError(f"{path}: {problems[0]}{more}; `aimfair prompts check {task}` shows what to mend")
    return [
        Prompt(id, text, target, protected)
        for target, protected in GROUPS
        for id, text in VARIANTS[variant](record["groups"][f"{target}_{protected}"])
    ]


def banks() -> list[str]:
    """Names of all banks in ``data/prompts``: the recorded one of each task, and those written beside it."""
    folder = home() / "data" / "prompts"
    return sorted(path.relative_to(folder).as_posix()[:-5] for path in folder.glob("*/*.json"))


def path_of(task: str) -> Path:
    """The JSON file of a task's bank."""
    return home() / "data" / "prompts" / f"{task}.json"


def identity(task: str, variant: str) -> str:
    """The ``variant``, with a digest of its bank's sentences where they are not those of ``data/prompts/recorded.json``,
    from which the published images were drawn; and nothing more where there is no bank."""
    name = task + "".join(variant.partition("@")[1:])
    try:
        groups = json.dumps(json.loads(path_of(name).read_text())["groups"], sort_keys=True)
    except (OSError, ValueError, LookupError, TypeError):  # whoever draws from it is told what is wrong
        return variant
    digest = hashlib.blake2b(groups.encode(), digest_size=4).hexdigest()
    recorded = json.loads((home() / "data" / "prompts" / "recorded.json").read_text())
    return variant if recorded.get(name) == digest else f"{variant}#{digest}"


def read(task: str) -> dict[str, Any]:
    """The whole record of a bank. Raises AimfairError naming the file, and the group where something is missing."""
    path = path_of(task)
    if not path.exists():
        raise AimfairError(f"no prompt bank {task!r} ({path}); there are: {', '.join(banks())}")
    return read_file(path)


class _Sentence(BaseModel):
    id: str
    text: str


class _Prompt(_Sentence):
    without_pose: str
    pose: str
    attributes: list[str]


class _Group(BaseModel):
    plain: _Sentence
    prompts: Annotated[list[_Prompt], Field(min_length=1)]


_Groups = TypedDict("_Groups", {"0_0": _Group, "0_1": _Group, "1_0": _Group, "1_1": _Group})


class _MadeBy(BaseModel):
    per_group: Annotated[int, Field(ge=1)] | None = None
    tolerance: Annotated[float, Field(ge=0, le=1)] = TOLERANCE


class _Bank(BaseModel):
    """What a bank's file must have; it may have more."""

    target: str
    protected: str
    made_by: _MadeBy = _MadeBy()
    groups: _Groups


def read_file(path: Path) -> dict[str, Any]:
    """The record in a file, wherever it is; see :func:`read`."""
    with reading(path, "restore the file or write the bank again"):
        record = json.loads(path.read_text(encoding="utf-8"))
    try:
        _Bank.model_validate(record)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise AimfairError(f"{path}: {where}: {first['msg']}; restore the file or write the bank again") from None
    return record


def write(record: Mapping[str, Any], path: Path) -> Path:
    """Write the record of a bank, one prompt a line; the file is there whole or not at all."""
    text = json.dumps(record, indent=1, ensure_ascii=False)
    one_line_each = re.sub(r"\{\s+\"id\"[^{}]*\}", lambda prompt: " ".join(prompt[0].split()), text)
    with aside(path) as partial:
        partial.write_text(one_line_each + "\n", encoding="utf-8")
    return path


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
    return f"{OPENING} {article} {phrase}{' with ' if clauses else ''}{listing(clauses)}."


def check(record: Mapping[str, Any], tokens: Tokens | None = None) -> list[str]:
    """Everything that is wrong with a bank, one line each; an empty list if nothing is.

    A bank is checked as it was made: :class:`aimfair.prompts.coverage.Coverage` says for how many prompts per group.

    tokens     the tokenizer at hand (:func:`aimfair.prompts.wording.token_counter`); without one, a count that is rather too high

    Raises AimfairError where no words are known that name the target or the protected attribute. What one prompt may say
    is in :mod:`aimfair.prompts.wording`, what must be spread evenly in :mod:`aimfair.prompts.coverage`.
    """
    pair = (record["target"], record["protected"])
    if unknown := [name for name in pair if name not in WORDS]:
        raise AimfairError(
            f"which words name {unknown[0]}? aimfair/prompts/wording.py knows them for {', '.join(WORDS)}: add a line to WORDS"
        )
    problems, coverage = [], Coverage(record)
    for values in GROUPS:
        name = f"{values[0]}_{values[1]}"
        group = record["groups"][name]
        prompts = group["prompts"]
        if len(prompts) != coverage.per_group:
            problems.append(f"group {name}: {len(prompts)} prompts, {coverage.per_group} are wanted")
        for key in ("id", "text", "without_pose"):
            twice = [value for value, n in Counter(p[key] for p in prompts).items() if n > 1]
            problems += [f"group {name}: {key} {value!r} is there more than once" for value in twice]
        for prompt in prompts:
            absent = [x for x in (*prompt["attributes"], prompt["pose"]) if not says(prompt["text"], x)]
            problems += [f"{prompt['id']}: the text does not say {x!r}" for x in absent]
            if prompt["pose"] and says(prompt["without_pose"], prompt["pose"]):
                problems.append(f"{prompt['id']}: the text without pose says {prompt['pose']!r}")
        texts = [(p["id"], p[key]) for p in prompts for key in ("text", "without_pose")]
        for id, text in [*texts, (group["plain"]["id"], group["plain"]["text"])]:
            found = faults(text, dict(zip(pair, values, strict=True)), tokens)
            problems += [f"{id}: {problem} ({text})" for problem in found]
    return problems + [surplus.line for surplus in coverage.surpluses()]
