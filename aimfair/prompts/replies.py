"""What a language model answered -> the sentences in it, each taken apart into what is seen and how the head is held.

Asked for a list, models answer with numbered lines, bullets, tables, JSON, code fences, thoughts before and polite
prose around. All of it is read; what is no sentence of the list is left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from html import unescape

from pydantic import BaseModel, ConfigDict, ValidationError

OPENING = "Portrait face photo of"


class Reply(BaseModel):
    """The form that an endpoint is asked to give its answer, where it can."""

    model_config = ConfigDict(extra="forbid")

    prompts: list[str]


_NAME = r"(?:\w+:)?(?:begin_of_|start_)?(?:think(?:ing)?|thoughts?|reason(?:ing)?|reflection|scratchpad|analysis)(?:_process)?"
_MARKS = re.compile(
    rf"(?P<end><\|?(?:/|end_(?:of_)?){_NAME}\|?>|\[/{_NAME}\]|◁/{_NAME}▷|</details>|<channel\|>|<unused95>"
    r"|^\W*here is my response:|\.\.\.done thinking\.)"
    rf"|(?P<begin><\|?{_NAME}\|?>|\[{_NAME}\]|◁{_NAME}▷|<details\b[^>]*>|<\|channel>\s*thought|<unused94>\s*thought"
    r"|\A\s*thought\n|\A\s*thinking\.\.\."
    r"|\A\W*(?:here(?:'s| is) (?:a|my) )?(?:thinking|thought|reasoning) process\W*:)",
    re.IGNORECASE | re.MULTILINE,
)
"""Where a model's thoughts begin and end, as the templates of different families mark it."""
_CHANNELS = re.compile(
    r"<\|channel\|>\s*(analysis|commentary|final|\w+)(.*?)(?=<\|(?:end|return|call|start|channel)\|>|\Z)", re.DOTALL
)
_BARE_FINAL = re.compile(r"assistant(?:\s*\n\s*)?final")
_BARE_ANALYSIS = re.compile(r"\A\s*(?:assistant\s*)?(?:analysis|commentary)(?=\n|[^\s,.:;])")
_SPECIAL = re.compile(
    r"<[|｜][^<>\n]{1,40}>|<[^<>\n]{1,40}[|｜]>|</?(?:s|bos|eos|pad|unk|answer|response|output|solution)>"
    r"|<(?:start|end)_of_\w+>|<unused\d+>|\[/?INST\]",
    re.IGNORECASE,
)
"""Tokens of a template that a server left in the text."""
_MARKER = re.compile(r"^[\s>|]*(?:[-*•–+]|\(?\d{1,3}\s?[.):|-]|#\d+)[\s|]*")
_WRAPPING = " \t|*_`\"'“”‘’,"
_NEXT = re.compile(rf"\s+(?:\(?\d{{1,3}}[.):]|[-*•])\s*(?=[*\"'“]*{OPENING})", re.IGNORECASE)
_POSE = re.compile(
    r"(?:,|\s+and|\s+with|,\s*and|,\s*with)\s+(?:with\s+)?(?:(?:his|her|their|the|a)\s+)?(head\b[^,]*)$", re.IGNORECASE
)


def sentences(reply: str, cut: bool = False) -> list[str]:
    """The sentences of the list in ``reply``, in their order, without numbers, quotes and other trimmings.

    cut  the reply ends before its end: a last sentence without a full stop is not whole

    Lines of a list that do not begin as asked are among them, to be refused with a reason; prose around it is not, nor is
    anything that the model said to itself.
    """
    try:
        found = [answered(sentence) for sentence in Reply.model_validate_json(reply).prompts]
    except ValidationError:  # free text
        text = _SPECIAL.sub("\n", answered(unescape(reply))).replace("\r", "")
        if cut:
            text = re.sub(r"(?<=[.\"'*])\s+\(?\d{1,3}[.):]?\s*\Z", "", text)  # the number of the next one
        found = [*_in_json(text)] or [*_in_lines(text)]
        ended = [sentence.rstrip(_WRAPPING).endswith(".") for sentence in found]
        if found and not ended[-1] and (cut or (len(found) > 1 and all(ended[:-1]))):
            found.pop()  # the reply was cut off in the middle of it
    return [tidy(sentence) for sentence in found if tidy(sentence) != "."]


def answered(reply: str) -> str:
    """``reply`` without what the model thought before it answered; empty where there is no answer.

    Thoughts without an end go on to the end of the reply; an end without a beginning, which was part of the question, ends
    what began with the reply.
    """
    if channels := _CHANNELS.findall(reply):  # OpenAI's open models
        return "\n".join(said.split("<|message|>")[-1] for channel, said in channels if channel == "final")
    if _BARE_FINAL.search(reply) or _BARE_ANALYSIS.match(reply):  # the same without its special tokens
        return "\n".join(_BARE_FINAL.split(reply)[1:])
    marks = [*_MARKS.finditer(reply)]
    kept, place, depth, seen = "", 0, 0, False
    for n, mark in enumerate(marks):
        if not depth:
            kept += reply[place : mark.start()] + "\n"
        place = mark.end()
        ends = sum(bool(later["end"]) for later in marks[n:])
        if mark["begin"]:
            depth, seen = depth + (not depth or ends > depth), True
        elif depth:
            depth -= 1
        elif not seen and (reply[place:].strip() or not _is_bare_list(kept)):
            kept, seen = "", True
    return kept + ("" if depth else reply[place:])


def _is_bare_list(text: str) -> bool:
    """Whether there is nothing in a text but sentences that begin as asked."""
    return all(re.search(rf"{OPENING}\b", line, re.IGNORECASE) for line in text.split("\n") if line.strip())


def tidy(sentence: str) -> str:
    """One sentence on one line, with straight quotes, beginning as asked and ending in one full stop."""
    text = " ".join(_SPECIAL.sub(" ", sentence).split()).translate(str.maketrans("“”‘’", "\"\"''")).strip(_WRAPPING)
    text = re.sub(rf"^{OPENING}\b", OPENING, text, flags=re.IGNORECASE)
    return text.rstrip(" .;,|*\"'`") + "."


def apart(sentence: str) -> tuple[str, str, list[str]]:
    """(the sentence without its pose, the pose, the attributes) of a sentence whose last clause is the pose of the head.

    The pose is empty where the last clause is none. Attributes are the other clauses after "with", and an age in years.

    >>> apart("Portrait face photo of a smiling male with bangs, a hat, and head tilted slightly left.")
    ('Portrait face photo of a smiling male with bangs and a hat.', 'head tilted slightly left', ['bangs', 'a hat'])
    """
    matched = _POSE.search(sentence.removesuffix("."))
    rest = sentence[: matched.start()] if matched else sentence.removesuffix(".")
    who, _, listed = rest.partition(" with ")
    clauses = [re.sub(r"^(and|with)\s+", "", clause) for clause in re.split(r",\s*", listed) if clause]
    ages = re.findall(r"\d+[ -]years?[ -]old", who)
    attributes = ages + [part for clause in clauses for part in clause.split(" and ")]
    if not matched:
        return sentence, "", attributes
    return f"{who}{' with ' if clauses else ''}{listing(clauses)}.", matched[1], attributes


def listing(clauses: Sequence[str]) -> str:
    """One, two and three things -> "a", "a and b", "a, b, and c"."""
    *ended, last = clauses or ("",)
    return f"{', '.join(ended)}{', and ' if len(ended) > 1 else ' and ' if ended else ''}{last}"


def _in_json(text: str) -> Iterator[str]:
    """Every quoted string that begins as asked, where there is JSON, or what was to become some."""
    if re.search(r'[\[{]\s*["\[{]', text):
        for quoted in re.findall(r'"(?:[^"\\]|\\.)*"', text):
            if quoted[1:].strip().lower().startswith(OPENING.lower()):
                with suppress(ValueError):  # an escape that is none
                    yield str(json.loads(quoted, strict=False))


def _in_lines(text: str) -> Iterator[str]:
    held = ""
    for line in _NEXT.sub("\n", text).split("\n"):
        marked = _MARKER.match(line)
        body = (line[marked.end() :] if marked else line).strip(_WRAPPING)
        place = re.search(rf"(?<![^\s|*_`\"'“,:>]){OPENING}", line, re.IGNORECASE)
        if place and (marked or body.lower().startswith(OPENING.lower())):
            yield from filter(None, [held])
            held = line[place.start() :].split(" |")[0]
        elif held and not marked and body and body[0].islower() and not held.endswith("."):
            held += " " + body  # a sentence that goes on in the next line
        else:
            yield from filter(None, [held])
            held = body if marked and len(body.split()) > 3 else ""
    yield from filter(None, [held])
