"""increment: the course's first server in Python. A client sends a number on a line, it gets the
number plus one. No state is kept between two lines. It listens on $HOST:$PORT until SIGTERM.

The same conversation stands in three server models; the first argument chooses:
  threads  one thread a client, which waits for it (the default)
  one      a single thread: one client at a time, the others wait in the kernel's queue
  fsm      a finite-state machine: a single thread that serves whoever has something to say"""

import os
import re
import selectors
import signal
import socket
import sys
import threading

LONGEST = 64  # bytes of a line, its end included; a longer one is an error
NUMBER = re.compile(rb"-?[0-9]+\r?\n")  # telnet and Windows end lines with \r\n
SMALLEST, LARGEST = -(2**63), 2**63 - 1  # as in the other languages; Python itself knows no bound
PIECE = 4096  # bytes read at a time


def answer(line: bytes) -> bytes:
    if len(line) <= LONGEST and NUMBER.fullmatch(line) and SMALLEST <= (n := int(line)) < LARGEST:
        return b"%d\n" % (n + 1)
    return b"error want a whole number below %d\n" % LARGEST


class Conversation:
    """What is known of one client: the part of a line that has come, never more than is needed."""

    def __init__(self):
        self.part = b""

    def hear(self, piece: bytes) -> bytes:
        """The answers to the lines that end in the piece."""
        *lines, part = (self.part + piece).split(b"\n")
        self.part = part[: LONGEST + 1]  # too long is too long; half a line is no line
        return b"".join(answer(line + b"\n") for line in lines)


def converse(client: socket.socket):
    """Waits for what the client says, and for it to take the answer."""
    talk = Conversation()
    with client:
        try:
            while piece := client.recv(PIECE):
                client.sendall(talk.hear(piece))
        except ConnectionError:
            pass  # the client left


def one(server: socket.socket):
    while True:
        converse(server.accept()[0])


def threads(server: socket.socket):
    while True:
        # Open connections do not hold up the end: there is no state to save.
        threading.Thread(target=converse, args=server.accept()[:1], daemon=True).start()


def fsm(server: socket.socket):
    """Never waits for anybody: each client is in one of two states, heard or answered."""
    server.setblocking(False)
    clients = selectors.DefaultSelector()
    clients.register(server, selectors.EVENT_READ)
    while True:
        for key, _ in clients.select():
            if key.fileobj is server:
                client = server.accept()[0]
                client.setblocking(False)
                clients.register(client, selectors.EVENT_READ, (Conversation(), b""))
                continue
            client, (talk, unsaid) = key.fileobj, key.data
            try:
                if key.events & selectors.EVENT_READ:
                    piece = client.recv(PIECE)
                    if not piece:
                        raise ConnectionError
                    unsaid = talk.hear(piece)
                if unsaid:
                    unsaid = unsaid[client.send(unsaid) :]
            except BlockingIOError:
                pass
            except ConnectionError:  # the client left
                clients.unregister(client)
                client.close()
                continue
            # Who does not take its answers is not heard meanwhile.
            clients.modify(client, selectors.EVENT_WRITE if unsaid else selectors.EVENT_READ, (talk, unsaid))


MODELS = {"threads": threads, "one": one, "fsm": fsm}

if __name__ == "__main__":
    model = MODELS.get(sys.argv[1] if len(sys.argv) > 1 else "threads")
    if model is None:
        sys.exit("increment: want one of %s, have %r" % (", ".join(MODELS), sys.argv[1]))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    address = os.environ.get("HOST", "127.0.0.1"), int(os.environ.get("PORT", "0"))
    with socket.create_server(address, backlog=128) as server:
        print("listening on {}:{}".format(*server.getsockname()), file=sys.stderr, flush=True)
        model(server)
