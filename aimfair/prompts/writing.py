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
from math import inf
from pathlib import Path
from typing import Any

from aimfair import prompts
from aimfair.environment import AimfairError, reading
from aimfair.prompts import PER_GROUP, replies, writers
from aimfair.prompts.coverage import TOLERANCE, Coverage, mentioned
from aimfair.prompts.wording import Tokens, faults
from aimfair.prompts.writers import NoReply, Request, Setup, Writer

AT_ONCE = 25
"""Most prompts of one request: long lists are cut off, or repeat themselves."""
SPARE = 5
"""Prompts asked for beyond those that are missing, because some are refused."""
SHOWN = 10
"""Most refused sentences that are shown to the model again."""
RANGES: dict[str, tuple[float, float]] = {
    "per_group": (1, inf),
    "rounds": (1, inf),
    "seed": (0, inf),
    "tolerance": (0, 1),
}
RANGES |= {"temperature": (0, inf), "timeout": (0.001, inf)}

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
    tell: Callable[[str], None] = lambda line: None,
    **setup: Any,
) -> Path:
    """Have the bank of ``task`` ("<dataset>/<Target>_<Protected>") written; returns its file.

    writer     one of :data:`aimfair.prompts.writers.WRITERS`: recorded, huggingface, openai_compatible
    out        a JSON file that does not exist yet, by default :func:`default_path`
    seed       request i of a group is made with a seed of its own, drawn from this one
    rounds     most requests per group, those included that make the bank more even
    per_group, tolerance  see :class:`aimfair.prompts.coverage.Coverage`; tolerance is a share of the prompts
    tokens     as in :func:`aimfair.prompts.check`
    tell       is given one line per request
    setup      model, url, revision, device, temperature, timeout: see :class:`aimfair.prompts.writers.Setup`

    Raises AimfairError where fewer than one prompt or round is asked for, the file exists, the writer cannot be asked, or
    the bank is not complete and even after ``rounds``; what was accepted is kept, and the same call goes on with it.
    """
    given = {"per_group": per_group, "rounds": rounds, "seed": seed, "tolerance": tolerance, **setup}
    for option, (low, high) in RANGES.items():
        value = given.get(option)
        if value is not None and not low <= value <= high:  # nor what is not a number
            below = "" if high == inf else f" and at most {high:g}"
            raise AimfairError(f"--{option.replace('_', '-')} must be at least {low:g}{below}, got {value}")
    template = prompts.read(task)
    path = Path(out) if out else default_path(task, writer, str(setup.get("model", "")))
    if path.exists():
        raise AimfairError(f"{path} exists: name another file, or delete it")
    asked = writers.connect(writer, Setup(task, **setup))
    copied = writer == "recorded"
    made_by = {
        "how": "taken from a recorded bank" if copied else "written by a language model, each sentence checked by code",
        "writer": writer,
        "model": asked.model,
        **({"url": asked.url} if asked.url else {}),
        "seed": seed,
        "temperature": setup.get("temperature"),
        "per_group": per_group,
        "tolerance": tolerance,
    }
    partial = path.with_name(f"{path.name}.partial")
    draft = _continue(partial, made_by) if partial.exists() else empty_bank(template, made_by)

    def kept() -> str:
        number = sum(len(group["prompts"]) for group in draft["groups"].values())
        return (
            f"{number} prompts are kept in {partial}: the same command goes on" if number else "no prompt was accepted"
        )

    used: Counter[str] = Counter()
    while (group := _choose_group(draft, used, rounds)) is not None:
        used[group] += 1
        try:
            _ask_once(draft, asked, group, seed, tokens, tell)
        except AimfairError as error:
            raise AimfairError(f"{error} ({kept()})") from error
        prompts.write(draft, partial)
    if problems := prompts.check(draft, tokens):
        raise AimfairError(
            f"the bank is not finished after {rounds} rounds per group, {len(problems)} problems, such as: {problems[0]}; "
            f"more rounds or another model may help ({kept()})"
        )
    draft["made_by"] |= dict.fromkeys(set(draft["made_by"].get("unsent", ())) & set(made_by))  # says what was in force
    prompts.write(draft, path)
    partial.unlink(missing_ok=True)
    return path


def default_path(task: str, writer: str, model: str = "") -> Path:
    """Beside the recorded bank, "<task>@<name of the model>.json": a profile takes it with ``prompts: contextual@<name>``."""
    name = re.sub(r"[^\w.-]+", "-", model if model and writer != "recorded" else writer).strip("-.").lower()
    return prompts.path_of(f"{task}@{name}")


def empty_bank(template: Mapping[str, Any], made_by: Mapping[str, Any]) -> Record:
    """The record of a bank without prompts, for the task of ``template``."""
    return {
        **{key: template[key] for key in ("task", "target", "protected")},
        "made_by": {**made_by, "date": "", "rounds": {}, "refused": []},
        **{key: template[key] for key in ("tiny_model", "instruction")},
        "groups": {name: {**words, "prompts": []} for name, words in template["groups"].items()},
    }


def request_text(record: Record, group: str, number: int) -> str:
    """What is asked for ``number`` more prompts of ``group``: the instruction, and what is known from the rounds before."""
    asked = {**record, "instruction": {**record["instruction"], "Number": number}}
    parts = [prompts.instruction(asked, group)]
    parts.append(f"Answer with a numbered list of exactly {number} sentences and nothing else.")
    coverage = Coverage(record)
    seen = coverage.said[group] | coverage.said[f"{1 - int(group[0])}{group[1:]}"]
    if avoid := [what for what in sorted(seen) if coverage.crowded(group, what)]:
        parts.append(f"There are enough that mention these, write without them: {', '.join(avoid)}.")
    if wanted := coverage.wanted(group):
        parts.append(f"Mention these more often than so far: {', '.join(wanted[:SHOWN])}.")
    last = record["made_by"]["rounds"].get(group, 0)
    refused = [r for r in record["made_by"]["refused"] if r["group"] == group and r["round"] == last and r["text"]]
    if refused:
        lines = [f"- {r['text']} ({r['reason']})" for r in refused[:SHOWN]]
        parts.append("\n".join(["Refused the last time:", *lines]))
    if there := [f"- {p['text']}" for p in record["groups"][group]["prompts"]]:
        parts.append("\n".join(["There already, write different ones:", *there]))
    return "\n\n".join(parts)


def _refusal(record: Record, group: str, prompt: Record, tokens: Tokens | None) -> str:
    """Why ``prompt`` cannot be one of ``group``, in one line; empty if it can."""
    sentence, pair = prompt["text"], (record["target"], record["protected"])
    reasons = []
    if not sentence.startswith((f"{replies.OPENING} a ", f"{replies.OPENING} an ")):
        reasons.append(f'does not begin with "{replies.OPENING} a"')
    if not prompt["pose"]:
        reasons.append('does not end with how the head is held, such as "and head turned slightly left."')
    reasons += faults(sentence, dict(zip(pair, map(int, group.split("_")), strict=True)), tokens)
    there = {p[key].casefold() for p in record["groups"][group]["prompts"] for key in ("text", "without_pose")}
    if {sentence.casefold(), prompt["without_pose"].casefold()} & there:
        reasons.append("is there already, but for the head")
    coverage, said = Coverage(record), sorted(mentioned(prompt, pair))
    return "; ".join(reasons + [f"{what!r} was said often enough" for what in said if coverage.crowded(group, what)])


def _ask_once(
    draft: Record, writer: Writer, group: str, seed: int, tokens: Tokens | None, tell: Callable[[str], None]
) -> None:
    """One request for ``group`` and what comes of it. Raises AimfairError where the writer gives up."""
    made_by, there = draft["made_by"], draft["groups"][group]["prompts"]
    per_group, before, turn = made_by["per_group"], len(there), made_by["rounds"].get(group, 0) + 1
    number = min(per_group - before + SPARE, AT_ONCE)
    its_own = (seed * 4 + int(group[0]) * 2 + int(group[2])) * 1000 + turn
    found, refused = [], []
    try:
        reply, cut = writer.ask(Request(group, number, request_text(draft, group, number), its_own))
        found = replies.sentences(reply, bool(cut))
        if not found:
            refused.append(("", f"no sentence in the reply: {' '.join(reply.split())[:80]!r}"))
        if cut:
            refused.append(("", cut))
    except NoReply as error:
        refused.append(("", str(error)))
    for sentence in found:
        if len(there) == per_group:
            break
        still, pose, attributes = replies.apart(sentence)
        id = f"{group}/{len(there):02d}"
        prompt = {"id": id, "text": sentence, "without_pose": still, "attributes": attributes, "pose": pose}
        if reason := _refusal(draft, group, prompt, tokens):
            refused.append((sentence, reason))
        else:
            there.append(prompt)
    made_by["rounds"][group], made_by["date"] = turn, datetime.now(UTC).date().isoformat()
    if new := writer.unsent - set(made_by.setdefault("unsent", [])):
        made_by["unsent"] = sorted(writer.unsent.union(made_by["unsent"]))
        if given := [name for name in sorted(new) if made_by.get(name) is not None]:
            tell(f"{' and '.join(given)}: without effect, because the writer takes no such setting")
    made_by["refused"] += [{"group": group, "round": turn, "text": t[:300], "reason": why[:300]} for t, why in refused]
    why = f", {len(refused)} refused, such as: {refused[0][1]}" if refused else ""
    tell(f"group {group}, round {turn}: {len(there) - before} accepted{why}; {len(there)} of {per_group}")


def _choose_group(draft: Record, used: Counter[str], rounds: int) -> str | None:
    """The group to ask for next; None when all is done, or when no group that lacks something may be asked again.

    Where all groups are complete but something is said too often in one, prompts that say it are taken out of it.
    """
    groups, made_by = draft["groups"], draft["made_by"]
    if short := [name for name, own in groups.items() if len(own["prompts"]) < made_by["per_group"]]:
        return next((group for group in short if used[group] < rounds), None)
    for group, what, number, line in Coverage(draft).surpluses():
        if used[group] < rounds:
            prompts, pair = groups[group]["prompts"], (draft["target"], draft["protected"])
            saying = [p for p in prompts if what in mentioned(p, pair)][-number:]
            groups[group]["prompts"] = [prompt for prompt in prompts if prompt not in saying]
            for i, prompt in enumerate(groups[group]["prompts"]):
                prompt["id"] = f"{group}/{i:02d}"
            why = {"group": group, "round": made_by["rounds"].get(group, 0), "reason": line}
            made_by["refused"] += [{**why, "text": prompt["text"]} for prompt in saying]
            return group
    return None


def _continue(partial: Path, made_by: Record) -> Record:
    """What a run before this one left. Raises AimfairError if it was made otherwise."""
    with reading(partial, "it cannot be continued: delete it"):
        draft = json.loads(partial.read_text(encoding="utf-8"))
        before = {key: draft["made_by"].get(key) for key in made_by}
    for key, value in made_by.items():
        if before[key] != value:
            raise AimfairError(f"{partial} was begun with {key} {before[key]}, not {value}: finish or delete it")
    return draft
