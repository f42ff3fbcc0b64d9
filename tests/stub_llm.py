"""A real HTTP server on this machine that answers like a chat endpoint, and misbehaves on request."""

import json
import re
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import write_banks as grammar

from aimfair.prompts import sentence


class Stub:
    """``answers`` is called with each request's body and the number of requests before it; it returns a reply in words, or
    one of the faults below. ``bodies`` and ``headers`` keep what was received."""

    def __init__(self, answers):
        self.answers, self.bodies, self.headers, self.url = answers, [], [], ""


def status(code, body="", **headers):
    """An answer that is no success."""
    return ("status", code, body, headers)


def silence(seconds):
    """Nothing for so long, then a reply that nobody waits for."""
    return ("silence", seconds)


def body(text):
    """A success whose body is ``text``, whatever that is."""
    return ("body", text)


def broken(text):
    """A body that is announced to be longer than what comes."""
    return ("broken", text)


def completion(text, finish="stop"):
    """The JSON of a chat completion."""
    return json.dumps({"choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": finish}]})


def cut_off(text):
    """A reply that reached its longest length."""
    return body(completion(text, "length"))


@contextmanager
def serving(answers):
    """The stub while it serves; ``answers`` is a list, whose last item is repeated, or a function (body, number)."""
    if not callable(answers):
        listed = list(answers)

        def answers(request, number):
            return listed[min(number, len(listed) - 1)]

    stub = Stub(answers)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            received = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answer = stub.answers(received, len(stub.bodies))
            stub.bodies.append(received)
            stub.headers.append({**self.headers, "path": self.path})
            kind, *rest = ("body", completion(answer)) if isinstance(answer, str) else answer
            if kind == "silence":
                time.sleep(rest[0])
                kind, rest = "body", [completion("too late")]
            code, text, headers = (rest[0], rest[1], rest[2]) if kind == "status" else (200, rest[0], {})
            try:
                self.send_response(code)
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.send_header("Content-Length", str(len(text.encode()) + 100 * (kind == "broken")))
                self.end_headers()
                self.wfile.write(text.encode())
            except OSError:
                pass  # the other side has gone

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


def writes(request, seed=0, slots=grammar.CELEBA):
    """What a language model that knows English, but not how to count, would write for Smiling_Male: ``number`` sentences
    with attributes drawn independently; it leaves out what it is told to leave out, most of the time."""
    rng = np.random.default_rng((seed, len(request["messages"][0]["content"])))
    number, target, protected = asked_for(request)
    forbidden = re.search(r"write without them: (.*)\.", request["messages"][0]["content"])
    man = protected == "male"
    lines = []
    for _ in range(number):
        said = [options[rng.integers(len(options))][man] for options in slots.values()]
        if forbidden and rng.random() < 0.8:
            said = [s for s in said if s not in forbidden[1].split(", ")]
        smile = ("neutral", "serious")[rng.integers(2)] if "neutral" in target else target
        age = ("young ", "old ", "")[rng.integers(3)]
        pose = grammar.POSES[rng.integers(len(grammar.POSES))]
        lines.append(sentence(f"{smile} {age}{protected}", [*filter(None, said), pose]))
    return lines


def numbered(lines):
    """The usual form of a list."""
    return "\n".join(f"{i}. {line}" for i, line in enumerate(lines, 1))
