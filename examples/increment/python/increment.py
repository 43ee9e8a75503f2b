"""increment: the course's first server in Python. A client sends a number on a line, it gets the
number plus one. One thread a client, no state. It listens on $HOST:$PORT until SIGTERM."""

import os
import re
import signal
import socketserver
import sys

LONGEST = 64  # bytes of a line, its end included; a longer one is an error
NUMBER = re.compile(rb"-?[0-9]+\r?\n")  # telnet and Windows end lines with \r\n
SMALLEST, LARGEST = -(2**63), 2**63 - 1  # as in the other languages; Python itself knows no bound


def answer(line: bytes) -> bytes:
    if NUMBER.fullmatch(line) and SMALLEST <= (n := int(line)) < LARGEST:
        return b"%d\n" % (n + 1)
    return b"error want a whole number below %d\n" % LARGEST


class Client(socketserver.StreamRequestHandler):
    def handle(self):
        try:
            while line := self.line():
                self.wfile.write(answer(line))
        except ConnectionError:
            pass  # the client left

    def line(self) -> bytes:
        """The next line, or nothing when the client left: half a line is no line."""
        line = piece = self.rfile.readline(LONGEST)
        while piece and not piece.endswith(b"\n"):  # too long: drop it up to its end
            line, piece = b"too long\n", self.rfile.readline(LONGEST)
        return line if piece else b""


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True  # open connections do not hold up the end: there is no state to save
    request_queue_size = 128


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    address = os.environ.get("HOST", "127.0.0.1"), int(os.environ.get("PORT", "0"))
    with Server(address, Client) as server:
        print("listening on {}:{}".format(*server.server_address), file=sys.stderr, flush=True)
        server.serve_forever()
