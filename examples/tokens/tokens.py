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
MEMBERS = len(os.environ.get("SERVENT_PEERS", "").split(","))
FARTHEST = 1000  # passes of one token: each holds a request open until the token is home
passed = []  # appending is atomic: no lock


def forward(token):
    """Sends the token to the next member and returns it as it came home."""
    if token["left"] == 0:
        return token
    with urllib.request.urlopen(NEXT + "/token", json.dumps(token).encode()) as answer:
        return json.load(answer)


class Member(BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer({"instance": SELF, "next": NEXT, "members": MEMBERS, "passed": len(passed)})

    def do_POST(self):
        url = urlsplit(self.path)
        try:
            if url.path == "/token":
                token = json.loads(self.rfile.read(min(int(self.headers["Content-Length"]), 1000)))
                if not 1 <= token["left"] <= FARTHEST:
                    raise ValueError
                passed.append(token["n"])
                self.answer(forward({"n": token["n"] + 1, "left": token["left"] - 1}))
            elif url.path == "/start":
                rounds, began = int(parse_qs(url.query)["rounds"][0]), time.perf_counter()
                if not 1 <= rounds <= FARTHEST // MEMBERS:
                    raise ValueError
                n = forward({"n": 0, "left": rounds * MEMBERS})["n"]
                ms = round((time.perf_counter() - began) * 1000, 3)
                self.answer({"start": SELF, "members": MEMBERS, "rounds": rounds, "n": n, "ms": ms})
            else:
                self.answer("POST /token or /start?rounds=M", 404)
        except urllib.error.HTTPError as error:
            said = error.read(1000).decode(errors="replace").strip()
            if error.code != 502:  # which is a later member that has lost it: its words are passed back
                said = f"{SELF}: {NEXT} says {error.code}: {said}"
            self.answer(said, 502)
        except OSError as error:
            self.answer(f"{SELF}: the token is lost: {error}", 502)
        except (ValueError, KeyError, TypeError):
            self.answer(f'want {{"n": passed, "left": 1…{FARTHEST}}} or /start?rounds=1…{FARTHEST // MEMBERS}', 400)

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
