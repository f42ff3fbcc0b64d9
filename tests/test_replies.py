"""Replies of language models: the list is found whatever is around it, and sentences come apart as the recorded ones do."""

import json

import pytest

from aimfair import prompts
from aimfair.prompts import replies

ONE = "Portrait face photo of a smiling male with bangs, a hat, and head turned slightly left."
TWO = "Portrait face photo of an old female with pale skin and head facing the camera."

REPLIES = {
    "numbers": f"1. {ONE}\n2. {TWO}",
    "brackets": f"1) {ONE}\n(2) {TWO}",
    "bullets": f"- {ONE}\n* {TWO}",
    "bare lines": f"{ONE}\n\n{TWO}",
    "one line": f"1. {ONE} 2. {TWO}",
    "prose around": f"Sure! Here are two prompts:\n\n1. {ONE}\n2. {TWO}\n\nWould you like more, or another style?",
    "prose that quotes the request": f'All begin with "Portrait face photo of a", as asked.\n1. {ONE}\n2. {TWO}',
    "bold": f"1. **{ONE}**\n2. **{TWO}**",
    "titles": f"1. **Left**: {ONE}\n2. **Front**: {TWO}",
    "quotes": f"1. “{ONE}”\n2. '{TWO}'",
    "fence": f"```\n1. {ONE}\n2. {TWO}\n```",
    "JSON": json.dumps([ONE, TWO]),
    "JSON in a fence, with prose": f"Here:\n```json\n{json.dumps([ONE, TWO], indent=2)}\n```\nDone.",
    "JSON of objects": json.dumps({"prompts": [{"id": 1, "prompt": ONE}, {"id": 2, "prompt": TWO}]}),
    "half of a JSON list": json.dumps([ONE, TWO, "Portrait face photo of a smiling ma"])[:-5],
    "half of an indented JSON list": json.dumps([ONE, TWO, "Portrait face photo of a smi"], indent=1)[:-8],
    "JSON with wrong commas": f'["{ONE}" "{TWO}",]',
    "table": f"| n | prompt |\n|---|---|\n| 1 | {ONE} |\n| 2 | {TWO} |",
    "no full stops": f"1. {ONE[:-1]}\n2. {TWO[:-1]}",
    "small letters": f"1. {ONE.replace('Portrait', 'portrait')}\n2. {TWO}",
    "wrapped lines": f"1. {ONE.replace(' a hat', chr(10) + '   a hat')}\n2. {TWO}",
    "Windows": f"1. {ONE}\r\n2. {TWO}\r\n",
    "cut in the middle of the third": f"1. {ONE}\n2. {TWO}\n3. Portrait face photo of a smiling male with bangs and head turned",
}


@pytest.mark.parametrize("form", REPLIES)
def test_the_list_is_read_in_whatever_form_it_comes(form):
    assert replies.sentences(REPLIES[form]) == [ONE, TWO] or form.startswith("prose that quotes")
    assert replies.sentences(REPLIES[form])[-2:] == [ONE, TWO]


DRAFT = "Let me try:\n1. Portrait face photo of a cat with head facing the camera.\nToo long. Another?"
ANSWER = f"1. {ONE}\n2. {TWO}"
THOUGHTS = {
    "think": ("<think>", "</think>"),
    "thinking": ("<Thinking>\n", "\n</Thinking>"),
    "with a namespace": ("<seed:think>", "</seed:think>"),
    "reasoning": ("<reasoning>", "</reasoning>"),
    "thought process": ("<thought_process>", "</thought_process>"),
    "Mistral": ("[THINK]", "[/THINK]"),
    "Kimi": ("◁think▷", "◁/think▷"),
    "Gemma": ("<|channel>thought\n", "<channel|>"),
    "MedGemma": ("<unused94>thought\n", "<unused95>"),
    "Cohere": ("<|START_THINKING|>", "<|END_THINKING|><|START_RESPONSE|>"),
    "OpenThinker": ("<|begin_of_thought|>", "<|end_of_thought|>\n<|begin_of_solution|>"),
    "Granite": ("Here is my thought process:\n", "\nHere is my response:\n"),
    "Ollama": ("Thinking...\n", "\n...done thinking.\n"),
    "a page": ('<details type="reasoning" done="true">\n<summary>Thought</summary>\n', "\n</details>\n"),
    "escaped": ("&lt;think&gt;", "&lt;/think&gt;"),
    "Harmony": ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
    "Harmony in short": ("<|channel|>analysis ", " <|channel|>final "),
    "Harmony without its tokens": ("analysis", "assistantfinal"),
    "Harmony in lines": ("analysis\n", "\nassistant\nfinal\n"),
}
"""How models mark what they say to themselves: (begin, end)."""


@pytest.mark.parametrize("form", THOUGHTS)
def test_only_what_was_meant_as_the_answer_counts(form):
    begin, end = THOUGHTS[form]
    for lists in (ANSWER, json.dumps([ONE, TWO]), f"{ANSWER}<|eot_id|>", f"{ANSWER}<|return|>"):
        assert replies.sentences(f"{begin}{DRAFT}{end}{lists}") == [ONE, TWO]
    assert replies.sentences(f"{begin}{DRAFT}") == []  # there is no answer yet
    assert replies.sentences(f"{begin}{DRAFT}{end}") == []
    if not form.startswith(("Harmony", "Granite")):  # the beginning was part of the question
        assert replies.sentences(f"{DRAFT}{end}\n{ANSWER}") == [ONE, TWO]


@pytest.mark.parametrize(
    "reply",
    [
        f"<think>{DRAFT}</think>\n1. {ONE}\n</think>\n2. {TWO}",  # an end too many swallows no sentence
        f"{ANSWER}\n</think>",
        f"<think>I think of <think> tags. {DRAFT}</think>\n{ANSWER}",
        f"<think>{DRAFT}<think>{DRAFT}</think>{DRAFT}</think>\n{ANSWER}",
        f"<think>{DRAFT}</think>\n1. {ONE}\n<think>{DRAFT}</think>\n2. {TWO}",
        f"<think>{DRAFT}</think><answer>{ANSWER}</answer>",
        f"<|im_start|>assistant\n1. {ONE}<|im_end|>\n2. {TWO}</s>",
        f"1. {ONE}<end_of_turn>\n2. {TWO}<｜end▁of▁sentence｜>",
        json.dumps({"prompts": [f"{ONE}<|eot_id|>", f"<think>{DRAFT}</think>{TWO}"]}),
    ],
)
def test_marks_and_tokens_of_a_template_are_no_part_of_a_sentence(reply):
    assert replies.sentences(reply) == [ONE, TWO]


@pytest.mark.parametrize("reply", ["", "  \n", "I cannot help with that.", "[]", "{", "```\n```"])
def test_where_there_is_no_list_there_is_no_sentence(reply):
    assert replies.sentences(reply) == []


@pytest.mark.parametrize("between", ["\n", " "])
def test_of_a_reply_that_was_cut_the_whole_sentences_are_kept(between):
    whole = f"1. {ONE}{between}2. {TWO}"
    assert replies.sentences(f"{whole}{between}3. Portrait face photo of a smiling", cut=True) == [ONE, TWO]
    assert replies.sentences(f"{whole}{between}3.", cut=True) == [ONE, TWO]
    assert replies.sentences(f"1. {ONE[:-1]}\n2. {TWO[:-1]}\n3. {ONE[:30]}", cut=True) == [ONE, TWO]
    assert replies.sentences(f"1. {ONE[:30]}", cut=True) == []
    assert replies.sentences(json.dumps({"prompts": [ONE, TWO, ONE]})[:-30], cut=True) == [ONE, TWO]


def test_a_line_of_the_list_that_begins_otherwise_is_kept_to_be_refused():
    assert replies.sentences(f"1. A smiling man in a hat\n2. {ONE}") == ["A smiling man in a hat.", ONE]


def test_escaped_letters_of_json_are_read():
    assert replies.sentences('["Portrait face photo of a male with 5 o\\u2019clock shadow"]') == [
        "Portrait face photo of a male with 5 o'clock shadow."
    ]


@pytest.mark.parametrize("task", prompts.banks())
def test_recorded_sentences_come_apart_as_they_were_put_together(task):
    for group in prompts.read(task)["groups"].values():
        for p in group["prompts"]:
            still, pose, attributes = replies.apart(p["text"])
            assert (still, pose) == (p["without_pose"], p["pose"])
            assert attributes == [a for a in p["attributes"] if a[0].isdigit() or a not in p["phrase"]]


@pytest.mark.parametrize(
    ("sentence", "still", "pose", "attributes"),
    [
        ("P of a male, head tilted left.", "P of a male.", "head tilted left", []),
        ("P of a male with head up.", "P of a male.", "head up", []),
        ("P of a male with bangs, with his head turned to the left.", "P of a male with bangs.", "head turned to the left", ["bangs"]),
        ("P of a male with a hat and bangs, and head up.", "P of a male with a hat and bangs.", "head up", ["a hat", "bangs"]),
        ("P of a male with bangs.", "P of a male with bangs.", "", ["bangs"]),
        ("P of a bald head.", "P of a bald head.", "", []),
        ("P of a 25-year-old male with head up.", "P of a 25-year-old male.", "head up", ["25-year-old"]),
    ],
)  # fmt: skip
def test_other_ways_to_say_how_the_head_is_held(sentence, still, pose, attributes):
    assert replies.apart(sentence) == (still, pose, attributes)
