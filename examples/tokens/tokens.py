"""tokens: members in a ring pass a token round; a member knows only the next one. Listens on $HOST:$PORT."""

import json
import os
import signal
import sys
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

SELF, NEXT = os.environ.get("SERVENT_INSTANCE", ""), os.environ.get("SERVENT_NEXT", "")
FARTHEST = 1000  # passes of one token: each holds a request open until the token has ended
passed = []  # appending is atomic: no lock


class Lost(Exception):
    """The token is lost, or a later member says so."""


def forward(token):
    """Sends the token to the next member and returns it as it ended."""
    home, rounds, n = token["home"], token["rounds"], token["n"]
    if rounds == 0:
        return token
    if n == FARTHEST:  # else it would go round for ever when its home is gone
        raise Lost(f"{SELF}: the token ends here: it was passed on {n} times, {rounds} rounds were to go")
    body = json.dumps({"home": home, "rounds": rounds, "n": n + 1}).encode()
    try:
        with urllib.request.urlopen(NEXT + "/token", body) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        said = error.read(1000).decode(errors="replace").strip()
        if error.code == 502:  # a later member has lost it: pass its words back
            raise Lost(said) from error
        raise Lost(f"{SELF}: {NEXT} says {error.code}: {said}") from error
    except OSError as error:
        raise Lost(f"{SELF}: the token is lost at pass {n + 1}: {error}") from error


class Member(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/length":
            try:
                return self.answer(str(forward({"home": SELF, "rounds": 1, "n": 0})["n"]))
            except Lost as lost:
                return self.answer(str(lost), 502)
        self.answer({"instance": SELF, "next": NEXT, "passed": len(passed)})

    def do_POST(self):
        url = urlsplit(self.path)
        try:
            if url.path == "/token":
                token = json.loads(self.rfile.read(min(int(self.headers["Content-Length"]), 1000)))
                if not (token["home"] and token["rounds"] >= 1 and 1 <= token["n"] <= FARTHEST):
                    raise ValueError
                passed.append(token["n"])
                token["rounds"] -= token["home"] == SELF  # home counts the rounds
                self.answer(forward(token))
            elif url.path == "/start":
                rounds, began = int(parse_qs(url.query)["rounds"][0]), time.perf_counter()
                if not 1 <= rounds <= FARTHEST:
                    raise ValueError
                n = forward({"home": SELF, "rounds": rounds, "n": 0})["n"]
                ms = round((time.perf_counter() - began) * 1000, 3)
                self.answer({"home": SELF, "members": n // rounds, "rounds": rounds, "n": n, "ms": ms})
            else:
                self.answer("POST /token or /start?rounds=M", 404)
        except Lost as lost:
            self.answer(str(lost), 502)
        except (ValueError, KeyError, TypeError):
            self.answer(f'want {{"home": "NAME", "rounds": 1…, "n": 1…{FARTHEST}}} or /start?rounds=1…{FARTHEST}', 400)

    def answer(self, words, status=200):
        body = words if isinstance(words, str) else json.dumps(words)
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8" if words is body else "application/json")
        self.end_headers()
        self.wfile.write(body.encode() + b"\n")

    def log_message(self, *_):
        pass  # a line a pass would say nothing


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    server = ThreadingHTTPServer((os.environ.get("HOST", "127.0.0.1"), int(os.environ.get("PORT", "0"))), Member)
    server.daemon_threads = True
    print("listening on {}:{}".format(*server.server_address), file=sys.stderr, flush=True)
    server.serve_forever()
