"""Any endpoint that speaks the chat completions of OpenAI: hosted models, vLLM, llama.cpp, Ollama, LM Studio, ...

The key comes from the environment variable AIMFAIR_LLM_KEY, goes into the header of the request and nowhere else. It is
not OPENAI_API_KEY, which many have set, because it is sent to whatever address is given.
"""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from aimfair.environment import AimfairError
from aimfair.prompts.writers import NoReply, Request, Setup, Writer, whole_lines

KEY = "AIMFAIR_LLM_KEY"
TRIES = 5
PAUSE = 1.0
"""Seconds before the second try; twice as long before each further one."""
LONGEST_PAUSE = 60
BUSY = (408, 429, 500, 502, 503, 504)
"""HTTP statuses after which the same request is sent again; where nothing at all comes back, once."""


class Patience(Retry):
    """Waits as long as the server asks for with ``Retry-After``, but not for hours."""

    def parse_retry_after(self, retry_after: str) -> float:
        """Seconds to wait, at most a minute."""
        return min(super().parse_retry_after(retry_after), LONGEST_PAUSE)


def connect(setup: Setup) -> Writer:
    """See :mod:`aimfair.prompts.writers`. Raises AimfairError for an address that is none, a missing model, an impossible key."""
    address = _address(setup.url)
    if not setup.model:
        raise AimfairError("which model? name it as the endpoint does, with --model")
    key = os.environ.get(KEY, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise AimfairError(f"the key in {KEY} holds characters that no key has: copy it again")
    optional: dict[str, Any] = {} if setup.temperature is None else {"temperature": setup.temperature}
    session = _session()

    def post(body: dict[str, Any]) -> requests.Response:
        try:
            return session.post(
                f"{address}/chat/completions",
                json=body,
                auth=lambda request: _authorised(request, key),
                timeout=(10, setup.timeout),
                allow_redirects=False,
            )
        except (requests.exceptions.ChunkedEncodingError, requests.exceptions.ContentDecodingError):
            raise NoReply("the reply broke off") from None
        except requests.RequestException as error:
            raise AimfairError(_unreachable(error, address, setup.timeout)) from None  # its text may hold the header

    def ask(request: Request) -> str:
        body = {"model": setup.model, "messages": [{"role": "user", "content": request.text}]}
        answer = post(body | optional | {"seed": request.seed})
        if answer.status_code in (400, 422):  # some refuse a seed or a temperature
            answer = post(body)
        if answer.status_code != 200:
            raise AimfairError(_refused(answer, address, setup.model, key))
        return _content(answer)

    return Writer(ask, setup.model, address)


def _address(url: str) -> str:
    """``url`` as given, but for the end that is added to it. Raises AimfairError."""
    parts = urlsplit(url.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise AimfairError("which endpoint? give its address with --url, such as http://localhost:8000/v1")
    if parts.username or parts.password or parts.query:
        raise AimfairError(f"--url must hold no key or password, because it is recorded: put the key into {KEY}")
    return url.strip().rstrip("/").removesuffix("/chat/completions").rstrip("/")


def _session() -> requests.Session:
    again = Patience(
        total=TRIES - 1,
        connect=1,
        read=1,
        status_forcelist=BUSY,
        allowed_methods={"POST"},
        backoff_factor=PAUSE,
        raise_on_status=False,
    )
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=again))
    return session


def _authorised(request: requests.PreparedRequest, key: str) -> requests.PreparedRequest:
    # A function, not a header: requests would replace a header by what ~/.netrc says of the host.
    if key:
        request.headers["Authorization"] = f"Bearer {key}"
    return request


def _content(answer: requests.Response) -> str:
    """The text of the first choice. Raises NoReply where there is none."""
    try:
        choice = answer.json()["choices"][0]
        content = choice["message"]["content"]
    except (ValueError, LookupError, TypeError):
        raise NoReply("the reply is no chat completion") from None
    if isinstance(content, list):
        content = "".join(part.get("text", "") for part in content if isinstance(part, dict))
    if not isinstance(content, str) or not content.strip():
        raise NoReply("the reply is empty")
    return whole_lines(content) if choice.get("finish_reason") == "length" else content


def _unreachable(error: requests.RequestException, address: str, timeout: float) -> str:
    if "timed out" in str(error).lower():
        return f"{address} did not answer within {timeout:g} seconds, twice: try later, or a longer --timeout"
    if isinstance(error, requests.exceptions.SSLError):
        return f"{address} shows no valid certificate: check the address"
    return f"{address} cannot be reached: check --url, and that the server runs"


def _refused(answer: requests.Response, address: str, model: str, key: str) -> str:
    """One line about an HTTP status that is not 200; never with the key, which some servers repeat."""
    status = answer.status_code
    if status in (401, 403):
        return f"{address} refuses the key in {KEY}" if key else f"{address} wants a key: put it into {KEY}"
    if 300 <= status < 400:
        return f"{address} sends elsewhere: give the address itself with --url"
    if status in BUSY:
        return f"{address} answers HTTP {status} after {TRIES} tries: try later"
    try:
        said = answer.json()["error"]
        said = str(said["message"] if isinstance(said, dict) else said)
    except (ValueError, LookupError, TypeError):
        said = answer.text
    said = " ".join((said.replace(key, "(key)") if key else said).split())[:200]
    hint = f": check --url, which ends in /v1 with most servers, and --model {model}" if status == 404 else ""
    return f"{address} answers HTTP {status}{hint}" + (f": {said}" if said else "")
