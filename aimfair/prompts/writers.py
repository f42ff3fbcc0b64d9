"""Writers: who writes the prompts of a bank. A new one is a function here, and a line in :data:`WRITERS`.

A writer is connected by its function, which takes a :class:`Setup` and returns a :class:`Writer`, ready to be asked. What it
answers is text: reading it, checking it and asking again is done for all of them by :mod:`aimfair.prompts.writing`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

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


@dataclass(frozen=True)
class Writer:
    """Someone who answers: ``ask`` takes a request and returns what was said; the rest is for the bank's record.

    ``ask`` raises NoReply where asking again may help, AimfairError where it does not.
    """

    ask: Callable[[Request], str]
    model: str
    url: str = ""


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

    def ask(request: Request) -> str:
        return "\n".join(f"{i}. {p['text']}" for i, p in enumerate(record["groups"][request.group]["prompts"], 1))

    return Writer(ask, setup.model or setup.task)


# A model on this machine


def huggingface(setup: Setup) -> Writer:
    """A language model on this machine, from a folder or from the Hugging Face hub, by transformers' text generation.

    Raises AimfairError where the model cannot be loaded, has no weights as safetensors, or no chat template (it was not
    trained to follow instructions).
    """
    import torch

    generator = _load_model(setup)
    name, tokenizer = setup.model, generator.tokenizer
    if not tokenizer.chat_template:
        raise AimfairError(
            f"{name} has no chat template: take a model that follows instructions (often called Instruct)"
        )
    context = getattr(generator.model.config, "max_position_embeddings", None) or tokenizer.model_max_length
    sampling = {} if setup.temperature is None else {"temperature": setup.temperature}

    def ask(request: Request) -> str:
        chat = [{"role": "user", "content": request.text}]
        asked = len(tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True)["input_ids"])
        room = min(PER_PROMPT * request.number + BESIDE, context - asked)
        if room < PER_PROMPT:
            raise AimfairError(f"{name} reads {context} tokens, the request alone has {asked}: take another model")
        with torch.random.fork_rng():
            torch.manual_seed(request.seed)
            said = generator(chat, return_full_text=False, max_new_tokens=room, do_sample=True, **sampling)
        text = said[0]["generated_text"]
        cut = len(tokenizer(text, add_special_tokens=False)["input_ids"]) >= room - 1
        return text.rpartition("\n")[0] if cut else text  # the last line is not whole

    commit = getattr(generator.model.config, "_commit_hash", None)
    return Writer(ask, f"{name}@{commit}" if commit else name)


def _load_model(setup: Setup) -> Any:
    try:
        from transformers import pipeline
    except ImportError as error:
        raise AimfairError("a local model needs transformers: pip install 'aimfair[generate]'") from error
    if not setup.model:
        raise AimfairError(
            "which model? name a folder or a model of the Hugging Face hub, such as Qwen/Qwen3-4B-Instruct-2507"
        )
    try:
        return pipeline(
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


# A model behind an address


def openai_compatible(setup: Setup) -> Writer:
    """Any endpoint that speaks the chat completions of OpenAI: hosted models, vLLM, llama.cpp, Ollama, LM Studio, ...

    It is asked for JSON in the form of :class:`aimfair.prompts.replies.Reply`; where it refuses that, for free text, and
    at last without seed and temperature. Raises AimfairError for an address that is none, a missing model, an impossible key.
    """
    import openai

    address = _address(setup.url)
    if not setup.model:
        raise AimfairError("which model? name it as the endpoint does, with --model")
    key = os.environ.get(KEY, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise AimfairError(f"the key in {KEY} holds characters that no key has: copy it again")
    client = openai.OpenAI(
        api_key=key or "none",
        base_url=address,
        max_retries=TRIES - 1,
        timeout=openai.Timeout(setup.timeout, connect=10),
        http_client=openai.DefaultHttpxClient(follow_redirects=False),
    )
    # What this machine knows of OpenAI goes to no other address, and no redirect is followed with a key.
    unsent = ["OpenAI-Organization", "OpenAI-Project", *([] if key else ["Authorization"])]
    headers: Any = dict.fromkeys(unsent, openai.omit)
    schema = {"name": "prompts", "strict": True, "schema": Reply.model_json_schema()}
    optional: dict[str, Any] = {} if setup.temperature is None else {"temperature": setup.temperature}
    forms = [{"response_format": {"type": "json_schema", "json_schema": schema}, **optional}, optional, None]

    def ask(request: Request) -> str:
        messages: Any = [{"role": "user", "content": request.text}]
        options: dict[str, Any] = {} if forms[0] is None else {**forms[0], "seed": request.seed}
        try:
            create = client.chat.completions.create
            return _content(create(model=setup.model, messages=messages, extra_headers=headers, **options))
        except openai.APIStatusError as error:
            if error.status_code not in (400, 422) or len(forms) == 1:
                raise AimfairError(_refused(error, address, setup.model, key)) from None  # its text may hold the key
        except openai.APITimeoutError:
            raise AimfairError(
                f"{address} did not answer within {setup.timeout:g} seconds, {TRIES} times: try later, or a longer --timeout"
            ) from None
        except openai.APIConnectionError as error:
            why = _one_line(str(error.__cause__ or error), key)
            raise AimfairError(f"{address} cannot be reached: check --url, and that the server runs ({why})") from None
        except (openai.OpenAIError, ValueError):
            raise NoReply("the reply is no chat completion") from None
        del forms[0]  # refused as it was asked: from now on the next plainer form
        return ask(request)

    return Writer(ask, setup.model, address)


def _address(url: str) -> str:
    """``url`` as given, but for the end that is added to it. Raises AimfairError."""
    parts = urlsplit(url.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise AimfairError("which endpoint? give its address with --url, such as http://localhost:8000/v1")
    if parts.username or parts.password or parts.query:
        raise AimfairError(f"--url must hold no key or password, because it is recorded: put the key into {KEY}")
    return url.strip().rstrip("/").removesuffix("/chat/completions").rstrip("/")


def _content(completion: Any) -> str:
    """The text of the first choice. Raises NoReply where there is none."""
    try:
        choice = completion.choices[0]
        content = choice.message.content
    except (AttributeError, LookupError, TypeError):  # the client does not check what a server sends
        raise NoReply("the reply is no chat completion") from None
    if isinstance(content, list):
        content = "".join(part.get("text", "") for part in content if isinstance(part, dict))
    if not isinstance(content, str) or not content.strip():
        raise NoReply("the reply is empty")
    cut = choice.finish_reason == "length" and not content.lstrip().startswith("{")
    return content.rpartition("\n")[0] if cut else content  # the last line is not whole


def _refused(error: Any, address: str, model: str, key: str) -> str:
    """One line about an HTTP status that is not 200, with what the server says, but for the key, which some repeat."""
    status = error.status_code
    if status in (401, 403):
        return f"{address} refuses the key in {KEY}" if key else f"{address} wants a key: put it into {KEY}"
    if 300 <= status < 400:
        return f"{address} sends elsewhere: give the address itself with --url"
    body = error.body.get("message") if isinstance(error.body, dict) else error.body
    said = _one_line(body if isinstance(body, str) else error.response.text, key)
    busy = f" after {TRIES} tries: try later" if status in (408, 409, 429) or status >= 500 else ""
    hint = f": check --url, which ends in /v1 with most servers, and --model {model}" if status == 404 else ""
    return f"{address} answers HTTP {status}{busy}{hint}" + (f": {said}" if said else "")


def _one_line(said: str, key: str) -> str:
    return " ".join((said.replace(key, "(key)") if key else said).split())[:200]


WRITERS: dict[str, Callable[[Setup], Writer]] = {
    "recorded": recorded,
    "huggingface": huggingface,
    "openai_compatible": openai_compatible,
}
