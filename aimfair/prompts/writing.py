"""A prompt bank by a language model: ask, read the reply, check every sentence, ask again for what is missing, record.

The instruction has the six parts of Section 3.1 of the paper, one request per group and portion. What is refused is told
to the model with the reason. A bank is finished only when :func:`aimfair.prompts.check` finds nothing in it; until then
it lies beside its place as ``<file>.partial``, where the next run goes on.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aimfair import prompts
from aimfair.environment import AimfairError
from aimfair.faces import GROUPS
from aimfair.prompts import PER_GROUP, TOLERANCE, coverage, replies, writers
from aimfair.prompts.wording import MAX_TOKENS, Tokens, faults
from aimfair.prompts.writers import NoReply, Request, Setup, Writer

AT_ONCE = 25
"""Most prompts of one request: long lists are cut off, or repeat themselves."""
SPARE = 5
"""Prompts asked for beyond those that are missing, because some are refused."""
SHOWN = 10
"""Most refused sentences that are shown to the model again."""

Record = dict[str, Any]


def write_bank(
    task: str,
    writer: str = "recorded",
    out: str | Path | None = None,
    *,
    seed: int = 0,
    rounds: int = 10,
    per_group: int = PER_GROUP,
    tolerance: float = TOLERANCE,
    tokens: Tokens | None = None,
    limit: int = MAX_TOKENS,
    tell: Callable[[str], None] = lambda line: None,
    **setup: Any,
) -> Path:
    """Have the bank of ``task`` ("<dataset>/<Target>_<Protected>") written; returns its file.

    writer     one of :data:`aimfair.prompts.writers.WRITERS`: recorded, huggingface, openai_compatible
    out        a JSON file that does not exist yet, by default :func:`default_path`
    seed       request i of a group is made with a seed of its own, drawn from this one
    rounds     most requests per group, those included that make the bank more even
    tolerance, tokens, limit  as in :func:`aimfair.prompts.check`
    tell       is given one line per request
    setup      model, url, revision, device, temperature, timeout: see :class:`aimfair.prompts.writers.Setup`

    Raises AimfairError where fewer than one prompt or round is asked for, the file exists, the writer cannot be asked, or
    the bank is not complete and even after ``rounds``; what was accepted is kept, and the same call goes on with it.
    """
    for option, number in (("--per-group", per_group), ("--rounds", rounds)):
        if number < 1:
            raise AimfairError(f"{option} must be at least 1, got {number}")
    template = prompts.read(task)
    model = str(setup.get("model", ""))
    path = Path(out) if out else default_path(task, writer, model)
    if path.exists():
        raise AimfairError(f"{path} exists: name another file, or delete it")
    asked = writers.connect(writer, Setup(task, **setup))
    made_by = {
        "how": "taken from a recorded bank"
        if writer == "recorded"
        else "written by a language model, each sentence checked by code",
        "writer": writer,
        "model": asked.model,
        **({"url": asked.url} if asked.url else {}),
        "seed": seed,
        "temperature": setup.get("temperature"),
        "tolerance": tolerance,
    }
    partial = path.with_name(f"{path.name}.partial")
    draft = _begun(partial, made_by) if partial.exists() else _blank(template, made_by)
    rules = {"tokens": tokens, "limit": limit, "per_group": per_group, "tolerance": tolerance}
    used: Counter[str] = Counter()
    while (group := _next(draft, used, rounds, per_group, tolerance)) is not None:
        used[group] += 1
        try:
            _round(draft, asked, group, seed, rules, tell)
        except AimfairError as error:
            raise AimfairError(f"{error} ({_kept(draft, partial)})") from error
        draft["made_by"]["date"] = datetime.now(UTC).date().isoformat()
        prompts.write(draft, partial)
    problems = prompts.check(draft, tokens, per_group, tolerance, limit)
    if problems:
        raise AimfairError(
            f"the bank is not finished after {rounds} rounds per group, {len(problems)} problems, such as: {problems[0]}; "
            f"more rounds or another model may help ({_kept(draft, partial)})"
        )
    prompts.write(draft, path)
    partial.unlink(missing_ok=True)
    return path


def default_path(task: str, writer: str, model: str = "") -> Path:
    """Beside the recorded bank, "<task>@<name of the model>.json": a profile takes it with ``prompts: contextual@<name>``."""
    name = re.sub(r"[^\w.-]+", "-", model if model and writer != "recorded" else writer).strip("-.").lower()
    return prompts.path_of(f"{task}@{name}")


def request_text(
    record: Record, group: str, number: int, per_group: int = PER_GROUP, tolerance: float = TOLERANCE
) -> str:
    """What is asked for ``number`` more prompts of ``group``: the instruction, and what is known from the rounds before."""
    asked = {**record, "instruction": {**record["instruction"], "Number": number}}
    parts = [prompts.instruction(asked, group)]
    parts.append(f"Answer with a numbered list of exactly {number} sentences and nothing else.")
    own, twin = coverage.counts(record, group), coverage.counts(record, _twin(group))
    crowded = _crowded(record, group, per_group, tolerance)
    if avoid := sorted(what for what in own | twin if crowded(what)):
        parts.append(f"There are enough that mention these, write without them: {', '.join(avoid)}.")
    if _complete(record, _twin(group), per_group):
        gap = {what: twin[what] - own[what] for what in twin if twin[what] - own[what] > tolerance * per_group}
        if wanted := sorted(gap, key=lambda what: -gap[what])[:SHOWN]:
            parts.append(f"Mention these more often than so far: {', '.join(wanted)}.")
    last = record["made_by"]["rounds"].get(group, 0)
    refused = [r for r in record["made_by"]["refused"] if r["group"] == group and r["round"] == last and r["text"]]
    if refused:
        parts.append(
            "\n".join(["Refused the last time:", *(f"- {r['text']} ({r['reason']})" for r in refused[:SHOWN])])
        )
    if there := [f"- {p['text']}" for p in record["groups"][group]["prompts"]]:
        parts.append("\n".join(["There already, write different ones:", *there]))
    return "\n\n".join(parts)


def refusal(record: Record, group: str, sentence: str, rules: Mapping[str, Any]) -> str:
    """Why ``sentence`` cannot be a prompt of ``group``, in one line; empty if it can.

    rules  tokens, limit, per_group, tolerance as in :func:`write_bank`
    """
    still, pose, attributes = replies.apart(sentence)
    reasons = []
    if not sentence.startswith((f"{replies.OPENING} a ", f"{replies.OPENING} an ")):
        reasons.append(f'does not begin with "{replies.OPENING} a"')
    if not pose:
        reasons.append('does not end with how the head is held, such as "and head turned slightly left."')
    labels = dict(zip((record["target"], record["protected"]), map(int, group.split("_")), strict=True))
    reasons += faults(sentence, labels, rules["tokens"], rules["limit"])
    there = {p[key].casefold() for p in record["groups"][group]["prompts"] for key in ("text", "without_pose")}
    if {sentence.casefold(), still.casefold()} & there:
        reasons.append("is there already, but for the head")
    prompt = {"text": sentence, "attributes": attributes, "pose": pose}
    crowded = _crowded(record, group, rules["per_group"], rules["tolerance"])
    pair = (record["target"], record["protected"])
    reasons += [f"{what!r} was said often enough" for what in sorted(coverage.mentioned(prompt, pair)) if crowded(what)]
    return "; ".join(reasons)


def _round(
    draft: Record, writer: Writer, group: str, seed: int, rules: Mapping[str, Any], tell: Callable[[str], None]
) -> None:
    """One request for ``group`` and what comes of it. Raises AimfairError where the writer gives up."""
    made_by, there = draft["made_by"], draft["groups"][group]["prompts"]
    number = min(rules["per_group"] - len(there) + SPARE, AT_ONCE)
    text = request_text(draft, group, number, rules["per_group"], rules["tolerance"])
    turn = made_by["rounds"].get(group, 0) + 1
    refused = []
    try:
        reply = writer.ask(Request(group, number, text, _seed(seed, group, turn)))
        found = replies.sentences(reply)
        if not found:
            refused.append(("", f"no sentence in the reply: {' '.join(reply.split())[:80]!r}"))
    except NoReply as error:
        found = []
        refused.append(("", str(error)))
    before = len(there)
    for sentence in found:
        if len(there) == rules["per_group"]:
            break
        if reason := refusal(draft, group, sentence, rules):
            refused.append((sentence, reason))
        else:
            still, pose, attributes = replies.apart(sentence)
            there.append({"id": "", "text": sentence, "without_pose": still, "attributes": attributes, "pose": pose})
    _number(draft, group)
    made_by["rounds"][group] = turn
    made_by["refused"] += [{"group": group, "round": turn, "text": t[:300], "reason": why[:300]} for t, why in refused]
    why = f", {len(refused)} refused, such as: {refused[0][1]}" if refused else ""
    tell(f"group {group}, round {turn}: {len(there) - before} accepted{why}; {len(there)} of {rules['per_group']}")


def _next(draft: Record, used: Counter[str], rounds: int, per_group: int, tolerance: float) -> str | None:
    """The group to ask for next; None when all is done, or when no group that lacks something may be asked again.

    Where all groups are complete but something is said too often in one, prompts that say it are taken out of it.
    """
    groups = [f"{t}_{p}" for t, p in GROUPS]
    if all(_complete(draft, group, per_group) for group in groups):
        for surplus in coverage.surpluses(draft, per_group, tolerance):
            if used[surplus.group] < rounds:
                _take_out(draft, surplus)
                return surplus.group
        return None
    return next((g for g in groups if not _complete(draft, g, per_group) and used[g] < rounds), None)


def _take_out(draft: Record, surplus: coverage.Surplus) -> None:
    pair = (draft["target"], draft["protected"])
    there = draft["groups"][surplus.group]["prompts"]
    saying = [prompt for prompt in there if surplus.what in coverage.mentioned(prompt, pair)][-surplus.number :]
    draft["groups"][surplus.group]["prompts"] = [prompt for prompt in there if prompt not in saying]
    turn = draft["made_by"]["rounds"].get(surplus.group, 0)
    draft["made_by"]["refused"] += [
        {"group": surplus.group, "round": turn, "text": prompt["text"], "reason": surplus.line} for prompt in saying
    ]
    _number(draft, surplus.group)


def _crowded(record: Record, group: str, per_group: int, tolerance: float) -> Callable[[str], bool]:
    """Whether a thing was mentioned in ``group`` so often that one more would leave it uneven.

    A group is compared with those that are complete; the first of them is free to mention what it likes.
    """
    own, twin = coverage.counts(record, group), coverage.counts(record, _twin(group))
    comparable = _complete(record, _twin(group), per_group)
    across = {name: coverage.counts(record, name) for name in _across(group)}
    kinds = coverage.compared_over_protected((record["target"], record["protected"]))
    declared = {w for p in record["groups"][group]["prompts"] for w in (*p["attributes"], p["pose"])}

    def crowded(what: str) -> bool:
        if comparable and own[what] + 1 - twin[what] > tolerance * per_group:
            return True
        if what in declared and own[what] + 1 > max(per_group // 2, 1):
            return True
        if what not in kinds or not all(_complete(record, name, per_group) for name in across):
            return False
        return own[what] + 1 + twin[what] - sum(c[what] for c in across.values()) > 2 * tolerance * per_group

    return crowded


def _twin(group: str) -> str:
    """The group with the same protected value and the other target."""
    return f"{1 - int(group[0])}{group[1:]}"


def _across(group: str) -> list[str]:
    """The two groups with the other protected value."""
    return [f"{target}_{1 - int(group[2])}" for target in (0, 1)]


def _complete(record: Record, group: str, per_group: int) -> bool:
    return len(record["groups"][group]["prompts"]) >= per_group


def _number(draft: Record, group: str) -> None:
    for i, prompt in enumerate(draft["groups"][group]["prompts"]):
        prompt["id"] = f"{group}/{i:02d}"


def _seed(seed: int, group: str, turn: int) -> int:
    """A seed of its own for each request."""
    return (seed * 4 + int(group[0]) * 2 + int(group[2])) * 1000 + turn


def _blank(template: Mapping[str, Any], made_by: Record) -> Record:
    """The record of a bank without prompts, for the task of ``template``."""
    return {
        **{key: template[key] for key in ("task", "target", "protected")},
        "made_by": {**made_by, "date": "", "rounds": {}, "refused": []},
        **{key: template[key] for key in ("tiny_model", "instruction")},
        "groups": {name: {**words, "prompts": []} for name, words in template["groups"].items()},
    }


def _begun(partial: Path, made_by: Record) -> Record:
    """What a run before this one left. Raises AimfairError if it was made otherwise."""
    try:
        draft = json.loads(partial.read_text(encoding="utf-8"))
        other = [key for key, value in made_by.items() if draft["made_by"].get(key) != value]
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise AimfairError(f"{partial} cannot be continued: delete it") from error
    if other:
        key = other[0]
        before = draft["made_by"].get(key)
        raise AimfairError(f"{partial} was begun with {key} {before}, not {made_by[key]}: finish or delete it")
    return draft


def _kept(draft: Record, partial: Path) -> str:
    number = sum(len(group["prompts"]) for group in draft["groups"].values())
    return f"{number} prompts are kept in {partial}: the same command goes on" if number else "no prompt was accepted"
