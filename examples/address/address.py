"""address: the client's stub in Python, with time-outs. A call ends in one of four ways:

    returned      it was done
    Unreachable   the server was not reached: it was not done
    Refused       the server would not (Missing: no such name): this try did nothing
    Unknown       no answer in time, or the connection broke: nobody knows whether it was done

    python3 address.py [--semantics at-least-once] insert ada 10.0.0.1:80
"""

import argparse
import json
import socket
import sys
import time
import uuid


class Unreachable(Exception):
    """The server was not reached: nothing was done."""


class Refused(Exception):
    """The server would not."""


class Missing(Refused):
    """No such name."""


class Unknown(Exception):
    """No answer: it may have been done or not, or may be done yet."""


class Client:
    """The stub: semantics is at-most-once (a retry carries the ID of the first try, so that the server
    repeats its answer), at-least-once (a retry is a new call) or maybe (no retry); timeout is of one try."""

    def __init__(self, host="127.0.0.1", port=7008, semantics="at-most-once", timeout=1.0, retries=2):
        self.server, self.semantics, self.timeout = (host, port), semantics, timeout
        self.tries = 1 if semantics == "maybe" else 1 + max(retries, 0)

    def insert(self, name, address):
        self._call({"call": "insert", "name": name, "address": address})

    def delete(self, name):
        return self._call({"call": "delete", "name": name})

    def lookup(self, name):
        return self._call({"call": "lookup", "name": name})

    def stop(self):
        self._call({"call": "stop"})

    def _call(self, request):
        worst = None
        for i in range(self.tries):
            if i == 0 or self.semantics == "at-least-once":
                request["id"] = uuid.uuid4().hex
            try:
                reply = self._try(request)
            except (Unreachable, Unknown) as error:
                if not isinstance(worst, Unknown):
                    worst = error  # once unknown, always unknown: a later try takes nothing back
                if isinstance(error, Unreachable) and i < self.tries - 1:
                    time.sleep(0.1 * 2**i)
                continue
            if error := reply.get("error"):
                raise (Missing if error == "missing" else Refused)(reply.get("detail", error))
            return reply.get("addresses", [])
        raise worst

    def _try(self, request):
        end = time.monotonic() + self.timeout
        try:
            connection = socket.create_connection(self.server, self.timeout)
        except OSError as error:
            raise Unreachable(f"{self.server}: {error}") from error
        with connection:
            # From here on the request may be on its way: whatever happens, it may have been done.
            try:
                connection.sendall(json.dumps(request).encode() + b"\n")
                line = b""
                while not line.endswith(b"\n"):
                    connection.settimeout(max(end - time.monotonic(), 0.001))
                    piece = connection.recv(4096)
                    if not piece:
                        raise ConnectionError("the connection ended before the answer")
                    line += piece
                return json.loads(line)
            except (OSError, ValueError) as error:
                raise Unknown(f"{request['call']}: no answer, nobody knows whether it was done: {error}") from error


def main():
    flags = argparse.ArgumentParser(description="Calls the address server.")
    flags.add_argument("--server", default="127.0.0.1:7008", help="host:port")
    flags.add_argument("--semantics", default="at-most-once", choices=["at-most-once", "at-least-once", "maybe"])
    flags.add_argument("--timeout", type=float, default=1.0, help="seconds, of one try")
    flags.add_argument("--retries", type=int, default=2, help="tries after the first")
    calls = flags.add_subparsers(dest="call", required=True)
    for name, arguments in {"insert": ["name", "address"], "delete": ["name"], "lookup": ["name"], "stop": []}.items():
        call = calls.add_parser(name)
        for argument in arguments:
            call.add_argument(argument)
    asked = flags.parse_args()
    host, _, port = asked.server.rpartition(":")
    client = Client(host, int(port), asked.semantics, asked.timeout, asked.retries)
    arguments = {key: getattr(asked, key) for key in ("name", "address") if hasattr(asked, key)}
    try:
        for found in getattr(client, asked.call)(**arguments) or []:
            print(found)
    except (Unreachable, Refused, Unknown) as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
