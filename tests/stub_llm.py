"""A real HTTP server on this machine that answers like a chat endpoint, and misbehaves on request."""

import json
import re
import threading
import time
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import write_banks

from aimfair.prompts import sentence


class Stub:
    """What was received: ``bodies`` and ``headers`` of the requests; ``url`` is the server's address."""

    def __init__(self):
        self.bodies, self.headers, self.url = [], [], ""


def answer(text, code=200, seconds=0, longer=0, **headers):
    """An HTTP answer: ``text`` as its body, after so many ``seconds``, announced as so many bytes ``longer`` than it is."""
    return text, code, seconds, longer, headers


def completion(text, finish="stop", tokens=99, **more):
    """A chat completion that says ``text``."""
    message = {"role": "assistant", "content": text, **more}
    choice = {"message": message, "finish_reason": finish}
    return answer(json.dumps({"choices": [choice], "usage": {"completion_tokens": tokens}}))


@contextmanager
def serving(answers):
    """The stub while it serves. ``answers`` is a list, whose last item is repeated, or a function (body, number of requests
    before); an item is a reply in words, or an :func:`answer`."""
    stub = Stub()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            number = len(stub.bodies)
            received = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            given = answers(received, number) if callable(answers) else answers[min(number, len(answers) - 1)]
            stub.bodies.append(received)
            stub.headers.append({name.title(): value for name, value in self.headers.items()} | {"path": self.path})
            text, code, seconds, longer, headers = completion(given) if isinstance(given, str) else given
            time.sleep(seconds)
            fixed = {"Content-Type": "application/json", "Retry-After-Ms": "1"}
            with suppress(OSError):  # the other side may have gone
                self.send_response(code)
                for name, value in (fixed | headers).items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(text.encode()) + longer))
                self.end_headers()
                self.wfile.write(text.encode())

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    stub.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def asked_for(request):
    """(number, target, protected) of a request, in its own words."""
    text = request["messages"][0]["content"]
    number = re.search(r"Number of prompts: (\d+)", text)[1]
    target, protected = (
        re.search(rf"{name} attribute, named in every prompt: (.*)", text)[1] for name in ("Target", "Protected")
    )
    return int(number), target, protected


def writes(request, seed=0):
    """What a language model that knows English, but not how to count, would write for Smiling_Male: ``number`` sentences
    with attributes drawn independently; it leaves out what it is told to leave out, most of the time."""
    rng = np.random.default_rng((seed, len(request["messages"][0]["content"])))
    number, target, protected = asked_for(request)
    forbidden = re.search(r"write without them: (.*)\.", request["messages"][0]["content"])
    man = protected == "male"
    lines = []
    for _ in range(number):
        said = [options[rng.integers(len(options))][man] for options in write_banks.CELEBA.values()]
        if forbidden and rng.random() < 0.8:
            said = [s for s in said if s not in forbidden[1].split(", ")]
        smile = ("neutral", "serious")[rng.integers(2)] if "neutral" in target else target
        age = ("young ", "old ", "")[rng.integers(3)]
        pose = write_banks.POSES[rng.integers(len(write_banks.POSES))]
        lines.append(sentence(f"{smile} {age}{protected}", [*filter(None, said), pose]))
    return lines


def numbered(lines):
    """The usual form of a list."""
    return "\n".join(f"{i}. {line}" for i, line in enumerate(lines, 1))
