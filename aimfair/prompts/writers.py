"""Writers: who writes the prompts of a bank. A new one is a function here, and a line in :data:`WRITERS`.

A writer is connected by its function, which takes a :class:`Setup` and returns a :class:`Writer`, ready to be asked. What it
answers is text: reading it, checking it and asking again is done for all of them by :mod:`aimfair.prompts.writing`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from aimfair import prompts
from aimfair.environment import AimfairError
from aimfair.prompts.replies import Reply

KEY = "AIMFAIR_LLM_KEY"
"""Environment variable with the key of an endpoint. Not OPENAI_API_KEY, which many have set: the key is sent to whatever
address is given. It goes into the header of the request and nowhere else."""

TRIES = 5
"""How often a request is sent where the server is busy, breaks off or does not answer."""

PER_PROMPT, BESIDE = 100, 500
"""New tokens allowed a local model for each prompt that is asked for, and for what it says or thinks beside them."""


@dataclass(frozen=True)
class Setup:
    """Which model is asked, and where.

    task         "<dataset>/<Target>_<Protected>"
    model        hub name or folder of a model, or its name at an endpoint; empty where the writer has one of its own
    revision     of a model of the hub: a branch, tag or commit
    url          address of an endpoint, up to and including "/v1" with most servers
    device       "auto", "cpu", "cuda", "cuda:1": where a local model computes
    temperature  None: what the model or the endpoint takes by itself
    timeout      seconds until an endpoint that does not answer is given up
    """

    task: str
    model: str = ""
    revision: str = ""
    url: str = ""
    device: str = "auto"
    temperature: float | None = None
    timeout: float = 300.0


@dataclass(frozen=True)
class Request:
    """What is asked: ``number`` prompts for ``group`` ("1_0"), in words ``text``; ``seed`` for a model that draws lots."""

    group: str
    number: int
    text: str
    seed: int


class Answer(NamedTuple):
    """What was said; ``cut`` says why it ends too early, if it does."""

    text: str
    cut: str = ""


@dataclass(frozen=True)
class Writer:
    """Someone who answers: ``ask`` takes a request and returns what was said; the rest is for the bank's record.

    ``ask`` raises NoReply where asking again may help, AimfairError where it does not. ``unsent`` are the settings, such as
    "temperature" and "seed", that play no part in the answers, as far as is known by now.
    """

    ask: Callable[[Request], Answer]
    model: str
    url: str = ""
    unsent: set[str] = field(default_factory=set)


class NoReply(AimfairError):
    """Nothing that can be read came back, which may be different the next time."""


def connect(name: str, setup: Setup) -> Writer:
    """The writer called ``name``. Raises AimfairError for an unknown one, and where it cannot be asked with this setup."""
    if name not in WRITERS:
        raise AimfairError(f"no writer {name!r}; there are: {', '.join(WRITERS)}")
    return WRITERS[name](setup)


def recorded(setup: Setup) -> Writer:
    """The bank that is recorded already: no model is asked. ``model`` may name the file of another one."""
    record = prompts.read_file(Path(setup.model)) if setup.model else prompts.read(setup.task)

    def ask(request: Request) -> Answer:
        return Answer("\n".join(p["text"] for p in record["groups"][request.group]["prompts"]))

    return Writer(ask, setup.model or setup.task, unsent={"temperature", "seed"})


# A model on this machine


def huggingface(setup: Setup) -> Writer:
    """A language model on this machine, from a folder or from the Hugging Face hub, by transformers' text generation.

    Raises AimfairError where the model cannot be loaded, has no weights as safetensors, or no chat template (it was not
    trained to follow instructions).
    """
    import torch

    try:
        from transformers import pipeline
    except ImportError as error:
        raise AimfairError("a local model needs transformers: pip install 'aimfair[generate]'") from error
    if not setup.model:
        raise AimfairError(
            "which model? name a folder or a model of the Hugging Face hub, such as Qwen/Qwen3-4B-Instruct-2507"
        )
    try:
        generator: Any = pipeline(
            "text-generation",
            model=setup.model,
            revision=setup.revision or None,
            device=None if setup.device == "auto" else setup.device,
            trust_remote_code=False,
            model_kwargs={"use_safetensors": True},
        )
    except (OSError, ValueError, KeyError, RuntimeError, AssertionError) as error:
        why = " ".join(str(error).split())[:200]
        raise AimfairError(f"cannot load the language model {setup.model}: {why}") from error
    name, tokenizer = setup.model, generator.tokenizer
    if not tokenizer.chat_template:
        raise AimfairError(
            f"{name} has no chat template: take a model that follows instructions (often called Instruct)"
        )
    context = getattr(generator.model.config, "max_position_embeddings", None) or tokenizer.model_max_length
    sampling = {"temperature": setup.temperature} if setup.temperature else {}

    def ask(request: Request) -> Answer:
        chat = [{"role": "user", "content": request.text}]
        asked = len(tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True)["input_ids"])
        wanted = PER_PROMPT * request.number + BESIDE
        room = min(wanted, context - asked)
        if room < PER_PROMPT:
            raise AimfairError(f"{name} reads {context} tokens, the request alone has {asked}: take another model")
        with torch.random.fork_rng():
            torch.manual_seed(request.seed)
            drawn = setup.temperature != 0
            said = generator(chat, return_full_text=False, max_new_tokens=room, do_sample=drawn, **sampling)
        text = said[0]["generated_text"]
        if len(tokenizer(text, add_special_tokens=False)["input_ids"]) < room - 1:
            return Answer(text)
        why = f": {name} reads {context}, and the request has {asked}" if room < wanted else ""
        return Answer(text, f"the reply was cut after {room} tokens{why}")

    commit = getattr(generator.model.config, "_commit_hash", None)
    return Writer(ask, f"{name}@{commit}" if commit else name)


# A model behind an address

HOPELESS = re.compile(
    r"quota|billing|credit|balance|payment|context (length|window|size)|context is full|too (long|large)|template|jinja|"
    r"no such model|model.*(not (found|exist)|unknown)|api.key|unauthori[sz]ed",
    re.IGNORECASE,
)
"""What a server says where asking again would be in vain, whatever status it says it with; but for a limit per minute."""


def openai_compatible(setup: Setup) -> Writer:
    """Any endpoint that speaks the chat completions of OpenAI: hosted models, vLLM, llama.cpp, Ollama, LM Studio, ...

    It is asked for JSON in the form of :class:`aimfair.prompts.replies.Reply`; what it refuses (that form, the temperature,
    the seed) is not sent to it again. Raises AimfairError for an address that is none, a missing model, an impossible key.
    """
    try:
        import openai
    except ImportError as error:
        raise AimfairError("an endpoint is asked by the openai client: pip install 'aimfair[generate]'") from error
    address = _address(setup.url)
    if not setup.model:
        raise AimfairError("which model? name it as the endpoint does, with --model")
    key = os.environ.get(KEY, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise AimfairError(f"the key in {KEY} holds characters that no key has: copy it again")

    def give_up_early(response: Any) -> None:
        if response.status_code >= 400:
            response.read()
            if _is_hopeless(response.text):
                response.headers["x-should-retry"] = "false"  # which the client honours

    client = openai.OpenAI(
        api_key=key or "none",
        base_url=address,
        max_retries=TRIES - 1,
        timeout=openai.Timeout(setup.timeout, connect=10),
        http_client=openai.DefaultHttpxClient(follow_redirects=False, event_hooks={"response": [give_up_early]}),
    )
    # What this machine knows of OpenAI goes to no other address, and no redirect is followed with a key.
    absent = ["OpenAI-Organization", "OpenAI-Project", *([] if key else ["Authorization"])]
    headers: Any = dict.fromkeys(absent, openai.omit)
    schema = {"name": "prompts", "strict": True, "schema": Reply.model_json_schema()}
    form = {"type": "json_schema", "json_schema": schema}
    unsent = {"temperature"} if setup.temperature is None else set()

    def ask(request: Request) -> Answer:
        messages: Any = [{"role": "user", "content": request.text}]
        options: dict[str, Any] = {"response_format": form, "temperature": setup.temperature, "seed": request.seed}
        options = {name: value for name, value in options.items() if name not in unsent}
        try:
            create = client.chat.completions.create
            return _content(create(model=setup.model, messages=messages, extra_headers=headers, **options), key)
        except openai.APIStatusError as error:
            said = _said(error.body or error.response.text, key)
            if error.status_code not in (400, 422) or not options or _is_hopeless(said):
                refused = _refused(error.status_code, said, address, setup.model, key)
                raise AimfairError(refused) from None  # its text may hold the key
        except openai.APITimeoutError:
            raise AimfairError(
                f"{address} did not answer within {setup.timeout:g} seconds, {TRIES} times{_proxy(address)}: try later, or "
                "a longer --timeout"
            ) from None
        except openai.APIConnectionError as error:
            why = _said(str(error.__cause__ or error), key)
            raise AimfairError(
                f"{address} cannot be reached{_proxy(address)}: check --url, and that the server runs ({why})"
            ) from None
        except (openai.OpenAIError, ValueError):
            raise NoReply("the reply is no chat completion") from None
        named = {name for name in options if re.search(rf"\b{name}\b", said)}
        unsent.update(named or ({"response_format"} if "response_format" in options else set(options)))
        return ask(request)

    return Writer(ask, setup.model, address, unsent)


def _address(url: str) -> str:
    """``url`` as given, but for the end that is added to it. Raises AimfairError."""
    parts = port = None
    with suppress(ValueError):  # of a bracket that is not closed, and a port that is no number
        parts = urlsplit(url.strip())
        port = parts.port or 80
    if not (parts and port) or parts.scheme not in ("http", "https") or not parts.hostname:
        raise AimfairError("which endpoint? give its address with --url, such as http://localhost:8000/v1")
    if parts.username or parts.password or parts.query:
        raise AimfairError(f"--url must hold no key or password, because it is recorded: put the key into {KEY}")
    return url.strip().rstrip("/").removesuffix("/chat/completions").rstrip("/")


def _content(completion: Any, key: str) -> Answer:
    """The text of the first choice. Raises NoReply where there is none, AimfairError where there never will be one."""
    if error := getattr(completion, "error", None):
        said = f"the server answers with an error: {_said(error, key)}"
        raise (AimfairError if _is_hopeless(said) else NoReply)(said)
    try:
        choice = completion.choices[0]
        content, cut = choice.message.content, choice.finish_reason == "length"
    except (AttributeError, LookupError, TypeError):  # the client does not check what a server sends
        raise NoReply("the reply is no chat completion") from None
    used = getattr(getattr(completion, "usage", None), "completion_tokens", None)
    tokens = f"{used} tokens" if used else "as many tokens as the server allows"
    if isinstance(content, list):  # thoughts are parts of another type
        parts = [
            part for part in content if isinstance(part, dict) and part.get("type", "text") in ("text", "output_text")
        ]
        content = "".join(part["text"] for part in parts if isinstance(part.get("text"), str))
    if isinstance(content, str) and content.strip():
        return Answer(content, f"the reply was cut after {tokens}" if cut else "")
    thoughts = getattr(choice.message, "reasoning_content", None) or getattr(choice.message, "reasoning", None)
    if cut:
        raise AimfairError(
            f"the reply is empty: {tokens} went into thinking; allow the model more, or have it think less"
        )
    refusal = getattr(choice.message, "refusal", None)
    raise NoReply(
        f"the reply is empty{': there are thoughts only' if thoughts else ''}{f': {refusal}' if refusal else ''}"
    )


def _is_hopeless(said: str) -> bool:
    return bool(HOPELESS.search(said)) and not re.search(r"per[- ](minute|second|hour)", said, re.IGNORECASE)


def _refused(status: int, said: str, address: str, model: str, key: str) -> str:
    """One line about an HTTP status that is not 200, with what the server says."""
    if status in (401, 403):
        line = f"{address} refuses the key in {KEY}" if key else f"{address} wants a key: put it into {KEY}"
        return line + _proxy(address)
    if 300 <= status < 400:
        return f"{address} sends elsewhere: give the address itself with --url"
    passing = (status in (408, 409, 429) or status >= 500) and not _is_hopeless(said)
    busy = f" after {TRIES} tries: try later" if passing else ""
    hint = f": check --url, which ends in /v1 with most servers, and --model {model}" if status == 404 else ""
    return f"{address} answers HTTP {status}{busy}{hint}{_proxy(address)}" + (f": {said}" if said else "")


def _proxy(address: str) -> str:
    """The proxy that stands between, which may be to blame."""
    parts = urlsplit(address)
    proxies = {} if proxy_bypass(parts.netloc) else getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    return f" (through the proxy {urlsplit(proxy).hostname or proxy})" if proxy else ""


def _said(body: Any, key: str) -> str:
    """What a server says, in one line, but for the key, which some repeat."""
    if isinstance(body, dict):
        body = body.get("error") or body.get("message") or body.get("detail") or body
    if isinstance(body, dict):
        body = body.get("message") or body
    said = str(body)
    return " ".join((said.replace(key, "(key)") if key else said).split())[:200]


WRITERS: dict[str, Callable[[Setup], Writer]] = {
    "recorded": recorded,
    "huggingface": huggingface,
    "openai_compatible": openai_compatible,
}
