"""A bank by a language model: asked, checked, asked again, recorded; through a real server that also misbehaves."""

import json
import re
import socket
import sys

import pytest
import stub_llm
from openai import _base_client
from stub_llm import answer, asked_for, completion, numbered, serving

from aimfair import prompts
from aimfair.environment import AimfairError
from aimfair.prompts import writers, writing

TASK = "celeba/Smiling_Male"
KEY = "sk-a-very-secret-key"
SMALL = {"per_group": 4, "model": "tiny"}


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(_base_client, "INITIAL_RETRY_DELAY", 0.01)
    monkeypatch.delenv(writers.KEY, raising=False)


def recorded(request, first=0, task=TASK):
    """The recorded sentences of the group that is asked for."""
    _, target, protected = asked_for(request)
    groups = prompts.read(task)["groups"].values()
    (group,) = (g for g in groups if (g["target"], g["protected"]) == (target, protected))
    return [p["text"] for p in group["prompts"][first:]]


def good(request, number=0):
    return numbered(recorded(request)[: asked_for(request)[0]])


def write(stub, path, **changes):
    return writing.write_bank(TASK, "openai_compatible", path, **{**SMALL, "url": stub.url, **changes})


def refused(path):
    record = json.loads(path.read_text())
    return [r["reason"] for r in record["made_by"]["refused"]]


@pytest.mark.parametrize("task", ["celeba/Male_Young", "utkface/Female_White@rich"])
def test_the_recorded_bank_passes_through_the_same_checks(task, tmp_path):
    path = writing.write_bank(task, out=tmp_path / "bank.json")
    written, record = prompts.read_file(path), prompts.read(task)
    for name, group in record["groups"].items():
        both = zip(written["groups"][name]["prompts"], group["prompts"], strict=True)
        assert all(a[key] == b[key] for a, b in both for key in ("id", "text", "without_pose", "pose"))
    assert written["made_by"]["writer"] == "recorded" and written["made_by"]["model"] == task
    again = writing.write_bank(task, "recorded", tmp_path / "copy.json", model=str(path))
    assert prompts.read_file(again)["groups"] == written["groups"]


def test_a_model_that_does_not_count_ends_with_an_even_bank_of_fifty(tmp_path):
    lines = []
    with serving(lambda request, n: numbered(stub_llm.writes(request))) as stub:
        path = write(stub, tmp_path / "bank.json", per_group=50, tell=lines.append, seed=7, temperature=0.8)
    record = prompts.read_file(path)
    assert prompts.check(record) == [] and not path.with_name("bank.json.partial").exists()
    made_by = record["made_by"]
    assert (made_by["writer"], made_by["model"], made_by["url"]) == ("openai_compatible", "tiny", stub.url)
    assert (made_by["seed"], made_by["temperature"]) == (7, 0.8) and len(made_by["date"].split("-")) == 3
    assert sum(made_by["rounds"].values()) == len(stub.bodies) == len(lines) > 8
    assert {r["group"] for r in made_by["refused"]} and all(r["reason"] for r in made_by["refused"])
    assert len({request["seed"] for request in stub.bodies}) == len(stub.bodies)
    assert {request["temperature"] for request in stub.bodies} == {0.8}
    told = stub.bodies[-1]["messages"][0]["content"]
    assert "There are enough that mention these" in told and "There already, write different ones:" in told


def test_what_was_refused_is_told_with_the_reason_and_replaced(tmp_path):
    wrong = {
        "A smiling man in a hat.": "does not begin with",
        "Portrait face photo of a smiling male with bangs.": "does not end with how the head is held",
        "Portrait face photo of a grinning lady with bangs and head tilted slightly left.": "names Male = 0",
        "Portrait face photo of a smiling male without a beard and head tilted slightly left.": "says what is not there",
        "Portrait face photo of a smiling male with lipstick and head tilted slightly left.": "both 'male' and 'lipstick'",
        f"Portrait face photo of a smiling male with {'very ' * 70}long hair and head tilted slightly left.": "CLIP reads 77",
    }

    def answers(request, number):
        first = "smiling" in asked_for(request)[1] and asked_for(request)[2] == "male" and "Refused" not in str(request)
        there = recorded(request)[:2]
        again = [there[0], re.sub(r"head [^,]*\.$", "head tilted back.", there[0])]
        return numbered([*wrong, *there, *again] if first else recorded(request)[:4])

    with serving(answers) as stub:
        path = write(stub, tmp_path / "bank.json", tolerance=1)
    (again,) = (r["messages"][0]["content"] for r in stub.bodies if "Refused" in r["messages"][0]["content"])
    for sentence, reason in wrong.items():
        assert reason in again and any(reason in why for why in refused(path)), reason
        assert sentence[:60] in again
    assert sum("is there already, but for the head" in why for why in refused(path)) == 4  # two when asked again
    assert prompts.read_file(path)["made_by"]["rounds"] == {"0_0": 1, "0_1": 1, "1_0": 1, "1_1": 2}


FORMS = {
    "as asked": lambda lines: json.dumps({"prompts": lines}),
    "prose": lambda lines: f"Of course! Here they are:\n\n{numbered(lines)}\n\nTell me if you want more.",
    "fenced JSON": lambda lines: f"```json\n{json.dumps({'prompts': lines}, indent=2)}\n```",
    "half of it": lambda lines: completion(json.dumps({"prompts": [*lines, lines[0]]})[:-9], "length"),
    "in parts": lambda lines: completion([{"type": "text", "text": t} for t in numbered(lines).partition("photo")]),
    "parts of other kinds": lambda lines: completion(
        [
            {"type": "thinking", "text": "1. Portrait face photo of a cat with head up."},
            {"type": "text", "text": None},
            7,
        ]
        + [{"type": "output_text", "text": numbered(lines)}]
    ),
    "thoughts before": lambda lines: (
        f"<|channel|>analysis<|message|>1. {lines[0]} 2. cat<|end|>"
        f"<|start|>assistant<|channel|>final<|message|>{numbered(lines)}"
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_whatever_form_the_list_has(form, tmp_path):
    with serving(lambda request, n: FORMS[form](recorded(request)[:4])) as stub:
        path = write(stub, tmp_path / "bank.json")
    assert len(stub.bodies) == 4 and prompts.check(prompts.read_file(path)) == []


FAULTS = {
    "busy": [answer("", 429), answer("oops", 500), answer("", 503), answer("quota of 3 per minute", 429)],
    "a reply that breaks off": [answer('{"choices": ', longer=100)],
    "no JSON": [answer("<html>It works!</html>")],
    "nothing": [answer("")],
    "no choice": [answer('{"choices": []}')],
    "an error that says it is a success": [answer('{"error": {"message": "overloaded"}}')],
    "an empty reply": [completion(""), completion(None)],
    "thoughts only": [completion("", reasoning_content="1. Portrait face photo of a male with head up.")],
    "a refusal": [completion("I cannot write about people.")],
    "a time-out": [answer("{}", seconds=1.5)],
    "half a reply": [completion("1. Portrait face photo of a neutral female with bangs and head turned", "length")],
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_server_that_misbehaves_is_asked_again(fault, tmp_path):
    first = FAULTS[fault]
    with serving(lambda request, n: first[n] if n < len(first) else good(request)) as stub:
        path = write(stub, tmp_path / "bank.json", timeout=0.5)
    assert len(stub.bodies) == 4 + len(first)
    assert prompts.check(prompts.read_file(path)) == []
    heard = {"busy": 0, "a time-out": 0, "a reply that breaks off": 0, "half a reply": 2}.get(fault, len(first))
    assert len(refused(path)) == heard
    says = {"an error that says it is a success": "overloaded", "thoughts only": "there are thoughts only"}
    assert any(says.get(fault, "") in reason for reason in refused(path)) or not heard


def test_of_a_reply_that_was_cut_the_rest_is_asked_for(tmp_path):
    def answers(request, number):
        whole = " ".join(f"{i}. {text}" for i, text in enumerate(recorded(request)[:4], 1))
        return completion(whole[: whole.index("3.") + 40], "length", 321) if number == 0 else good(request)

    with serving(answers) as stub:
        path = write(stub, tmp_path / "bank.json")
    assert refused(path)[0] == "the reply was cut after 321 tokens" and len(stub.bodies) == 5
    assert "There already, write different ones" in str(stub.bodies[1]) and prompts.check(prompts.read_file(path)) == []


def test_what_was_accepted_survives_a_server_that_dies_and_the_same_call_goes_on(tmp_path):
    path = tmp_path / "bank.json"
    said = r"HTTP 503 after 5 tries.*8 prompts are kept in .*bank.json.partial"
    dying = serving(lambda request, n: good(request) if n < 2 else answer("", 503))
    with dying as stub, pytest.raises(AimfairError, match=said) as error:
        write(stub, path)
    assert "\n" not in str(error.value) and len(stub.bodies) == 2 + writers.TRIES and not path.exists()
    with pytest.raises(AimfairError, match="cannot be reached: check --url"):
        write(stub, path)
    with serving(good) as other:
        with pytest.raises(AimfairError, match="was begun with url"):
            write(other, path)
        partial = path.with_name("bank.json.partial")
        partial.write_text(partial.read_text().replace(stub.url, other.url))
        assert write(other, path) == path
    assert len(other.bodies) == 2 and prompts.check(prompts.read_file(path)) == []
    with pytest.raises(AimfairError, match="exists: name another file"):
        write(other, path)


def test_ctrl_c_keeps_what_was_accepted(tmp_path):
    def stop(line):
        if "group 0_1" in line:
            raise KeyboardInterrupt

    with serving(good) as stub:
        with pytest.raises(KeyboardInterrupt):
            write(stub, tmp_path / "bank.json", tell=stop)
        write(stub, tmp_path / "bank.json")
    assert [asked_for(r)[1:] for r in stub.bodies].count(("neutral or serious", "female")) == 1


def test_a_model_that_cannot_do_it_is_given_up_after_so_many_rounds(tmp_path):
    said = r"not finished after 3 rounds per group, 4 problems.*no prompt was accepted"
    with serving(["1. A nice picture of a cat with a hat."]) as stub, pytest.raises(AimfairError, match=said):
        write(stub, tmp_path / "bank.json", rounds=3)
    assert len(stub.bodies) == 12 and not (tmp_path / "bank.json").exists()

    def hats(request, number):
        lines = recorded(request)[:4]
        if asked_for(request)[1:] == ("smiling", "female"):
            lines = [re.sub(",? and head", ", a beanie, and head", line) for line in lines]
        return numbered(lines)

    with (
        serving(hats) as stub,
        pytest.raises(AimfairError, match="not finished .* 12 to|not finished .*prompts are kept"),
    ):
        write(stub, tmp_path / "uneven.json", rounds=3)
    assert any("'a beanie' was said often enough" in r for r in refused(tmp_path / "uneven.json.partial"))


def test_a_partial_file_that_is_none_is_named(tmp_path):
    (tmp_path / "bank.json.partial").write_text("[]")
    with serving(good) as stub, pytest.raises(AimfairError, match="partial .*cannot be continued: delete it"):
        write(stub, tmp_path / "bank.json")


# The key


def test_the_key_goes_into_the_header_and_nowhere_else(tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password of-another-service\n")
    for name, value in {writers.KEY: f"{KEY}\n", "NETRC": str(tmp_path / "netrc")}.items():
        monkeypatch.setenv(name, value)
    for name in ("OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, "another")
    lines = []
    with serving(good) as stub:
        write(stub, tmp_path / "bank.json", tell=lines.append)
    assert {h["Authorization"] for h in stub.headers} == {f"Bearer {KEY}"}
    assert {h["path"] for h in stub.headers} == {"/v1/chat/completions"}
    assert "another" not in str(stub.headers)
    assert KEY not in "".join(path.read_text() for path in tmp_path.iterdir()) + "".join(lines) + str(stub.bodies)
    monkeypatch.delenv(writers.KEY)
    with serving(good) as stub:
        write(stub, tmp_path / "second.json", url=f"{stub.url}/chat/completions/")
    assert not any("Authorization" in h for h in stub.headers)
    assert {h["path"] for h in stub.headers} == {"/v1/chat/completions"}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (answer("", 401), "wants a key: put it into AIMFAIR_LLM_KEY"),
        (answer(f"no such key: {KEY}", 401), "refuses the key in AIMFAIR_LLM_KEY"),
        (answer(json.dumps({"error": {"message": f"key {KEY} is a teapot"}}), 418), "HTTP 418: key (key) is a teapot"),
        (answer('{"error": "context is full"}', 400), "HTTP 400: context is full"),
        (answer("no model", 404), "check --url, which ends in /v1 with most servers, and --model tiny: no model"),
        (answer("", 302, Location="http://127.0.0.1:1/"), "sends elsewhere: give the address itself"),
        (answer(KEY, 500), "HTTP 500 after 5 tries: try later: (key)"),
        (answer("{}", seconds=1), "did not answer within 0.2 seconds, 5 times"),
        (
            answer('{"error": {"message": "You exceeded your current quota"}}', 429),
            "HTTP 429: You exceeded your current",
        ),
        (answer('{"error": {"message": "Jinja template: no filter"}}', 500), "HTTP 500: Jinja template: no filter"),
        (
            answer('{"detail": "this model\'s context length is 512"}', 400),
            "HTTP 400: this model's context length is 512",
        ),
        (answer('{"error": {"message": "insufficient credits"}}'), "answers with an error: insufficient credits"),
        (answer('{"error": "model \\"tiny\\" not found"}'), 'answers with an error: model "tiny" not found'),
        (completion("", "length", 4096, reasoning="1. Portrait"), "4096 tokens went into thinking"),
    ],
)
def test_errors_say_what_to_do_and_never_the_key(given, said, tmp_path, monkeypatch):
    monkeypatch.setenv(writers.KEY, "" if "wants a key" in said else KEY)
    with serving([given]) as stub, pytest.raises(AimfairError) as error:
        write(stub, tmp_path / "bank.json", timeout=0.2)
    assert said in str(error.value) and "\n" not in str(error.value)
    assert len(stub.bodies) <= (5 if "5 t" in said else 3 if "teapot" in said or "is full" in said else 1)
    shown, seen = error.value, []
    while shown is not None:
        seen.append(repr(shown))
        shown = None if shown.__suppress_context__ and shown.__cause__ is None else shown.__cause__ or shown.__context__
    assert KEY not in "".join(seen)


# The endpoint


@pytest.mark.parametrize(
    ("refuses", "asked"),
    [
        (set(), [{"response_format", "seed", "temperature"}] * 2),
        ({"response_format"}, [{"response_format", "seed", "temperature"}, {"seed", "temperature"}]),
        ({"seed"}, [{"response_format", "seed", "temperature"}, {"seed", "temperature"}, set(), set()]),
    ],
)
def test_an_endpoint_is_asked_for_json_and_more_plainly_where_it_refuses(tmp_path, refuses, asked):
    with serving(lambda r, n: answer("unknown field", 400 + 22 * (n % 2)) if refuses & set(r) else good(r)) as stub:
        write(stub, tmp_path / "bank.json", temperature=0.5)
    assert [set(r) - {"model", "messages"} for r in stub.bodies][: len(asked)] == asked
    form = stub.bodies[0]["response_format"]["json_schema"]
    assert form["strict"] and form["schema"]["required"] == ["prompts"] and not form["schema"]["additionalProperties"]


@pytest.mark.parametrize(("refuses", "kept"), [("temperature", {"seed": 7}), ("seed", {"temperature": 0.7}), ("", {})])
def test_a_setting_that_the_endpoint_refuses_is_not_recorded_nor_sent_again(refuses, kept, tmp_path):
    lines = []

    def answers(request, number):
        if refuses in request if refuses else {"seed", "temperature"} & set(request):
            return answer(json.dumps({"error": {"message": f"Unsupported value: '{refuses}' is not supported"}}), 400)
        return good(request)

    with serving(answers) as stub:
        path = write(stub, tmp_path / "bank.json", temperature=0.7, seed=7, tell=lines.append)
    made_by = prompts.read_file(path)["made_by"]
    assert {name: made_by[name] for name in ("temperature", "seed")} == {"temperature": None, "seed": None} | kept
    assert len(stub.bodies) == 4 + (1 if refuses else 2)
    assert [line for line in lines if "without effect" in line and refuses in line]


def test_a_recorded_bank_has_no_temperature(tmp_path):
    lines = []
    path = writing.write_bank(TASK, "recorded", tmp_path / "copy.json", temperature=0.7, tell=lines.append)
    assert prompts.read_file(path)["made_by"]["temperature"] is None and "without effect" in str(lines)


def test_nobody_listens(tmp_path, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with pytest.raises(AimfairError, match=r"cannot be reached: .*refused.*no prompt was accepted"):
        writing.write_bank(TASK, "openai_compatible", tmp_path / "bank.json", model="m", url=url)
    monkeypatch.setenv("http_proxy", "http://me:secret@127.0.0.1:9/")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with pytest.raises(AimfairError, match=r"cannot be reached \(through the proxy 127.0.0.1\)") as error:
        writing.write_bank(TASK, "openai_compatible", tmp_path / "bank.json", model="m", url="http://some.host/v1")
    assert "secret" not in str(error.value)


def test_without_the_client_a_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(AimfairError, match=r"pip install 'aimfair\[generate\]'"):
        writers.connect("openai_compatible", writers.Setup(TASK, "m", url="http://some.host/v1"))


@pytest.mark.parametrize(
    "impossible",
    [{"temperature": -1}, {"temperature": float("nan")}, {"timeout": 0}, {"tolerance": 2}, {"seed": -1}, {"rounds": 0}],
)
def test_impossible_numbers_are_refused(impossible, tmp_path):
    with pytest.raises(AimfairError, match=f"--{next(iter(impossible))} must be at least"):
        writing.write_bank(TASK, out=tmp_path / "bank.json", **impossible)


@pytest.mark.parametrize(
    ("setup", "said"),
    [
        ({"url": "", "model": "m"}, "which endpoint"),
        ({"url": "localhost:8000", "model": "m"}, "which endpoint"),
        ({"url": "ftp://some.host/v1", "model": "m"}, "which endpoint"),
        ({"url": "http://some.host:port/v1", "model": "m"}, "which endpoint"),
        ({"url": "http://some.host:99999/v1", "model": "m"}, "which endpoint"),
        ({"url": "http://[::1/v1", "model": "m"}, "which endpoint"),
        ({"url": "http://me:secret@some.host/v1", "model": "m"}, "must hold no key or password"),
        ({"url": "http://some.host/v1?key=secret", "model": "m"}, "must hold no key or password"),
        ({"url": "http://some.host/v1"}, "which model"),
        ({"url": "http://some.host/v1", "model": "m", "key": "secret\nX-Evil: 1"}, "characters that no key has"),
    ],
)
def test_what_must_be_given(setup, said, monkeypatch):
    monkeypatch.setenv(writers.KEY, setup.pop("key", ""))
    with pytest.raises(AimfairError, match=said) as error:
        writers.connect("openai_compatible", writers.Setup(TASK, **setup))
    assert "secret" not in str(error.value)


def test_writers_by_name_and_where_a_bank_goes_by_itself():
    with pytest.raises(AimfairError, match="no writer 'parrot'; there are: recorded, huggingface, openai_compatible"):
        writing.write_bank(TASK, "parrot")
    assert writing.default_path(TASK, "huggingface", "Some/Model 7B").name == "Smiling_Male@some-model-7b.json"
    assert writing.default_path(TASK, "recorded", "a/file.json").name == "Smiling_Male@recorded.json"
