"""An open-loop load on a Redis server: requests go out at their time whether or not the one before was answered.

Run as a process of its own, in a real-time class if it may: what is measured is then the server, not the generator. It has a
process on each CPU, and each request goes out from one of them by chance, as a network card has a queue on each. With a single one,
the service shared its CPU or did not, for as long as nobody moved either, and its p99 was higher when it did.

Writes a .npy file at the end, three rows: the moment for which each request was planned (monotonic seconds), its latency, and how
late it was sent, in seconds. A real-time process is late by milliseconds only where the machine itself stood still, as virtual ones
do.
"""

from __future__ import annotations

import argparse
import mmap
import os
import select
import socket
import sys
import time
from array import array
from pathlib import Path

import numpy as np

CONNECTIONS = 16
"""Of each process."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--rate", type=float, required=True, help="requests a second, at random times (Poisson)")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--work", type=int, required=True, help="turns of the script's loop, see beside_batch.py")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except PermissionError:
        print("not permitted to be real-time: waits of the generator itself are measured too", file=sys.stderr)
    request = command("EVAL", SCRIPT, "0", str(asked.work))
    chance = np.random.default_rng(asked.seed)
    planned = np.cumsum(chance.exponential(1 / asked.rate, int(asked.rate * asked.seconds * 1.2) + 100))
    planned = planned[planned < asked.seconds]
    due = time.monotonic() + 0.1 + planned
    shared = np.frombuffer(mmap.mmap(-1, 2 * due.nbytes), dtype=np.float64).reshape(2, -1)  # with the children
    cpus = sorted(os.sched_getaffinity(0))
    sender = chance.integers(len(cpus), size=len(due))
    children = []
    for which, cpu in enumerate(cpus):
        child = os.fork()
        if child == 0:
            os.sched_setaffinity(0, {cpu})
            mine = sender == which
            shared[:, mine] = drive(asked.port, request, due[mine].tolist())
            os._exit(0)
        children.append(child)
    failed = sum(os.waitpid(child, 0)[1] for child in children)  # all of them are waited for
    np.save(asked.out, np.stack([due, *shared]))
    return int(failed > 0)


SCRIPT = "local s = 0 for i = 1, tonumber(ARGV[1]) do s = s + i % 7 end return s"


def command(*words: str) -> bytes:
    """A request in the Redis protocol."""
    return b"".join([b"*%d\r\n" % len(words), *(b"$%d\r\n%s\r\n" % (len(word), word.encode()) for word in words)])


def drive(port: int, request: bytes, due: list[float]) -> tuple[array[float], array[float]]:
    """(latency of each request, from when it is `due` (monotonic seconds) to its answer, how late it was sent), in seconds;
    infinity where that did not happen."""
    links = [socket.create_connection(("127.0.0.1", port)) for _ in range(CONNECTIONS)]
    waiting: dict[int, list[int]] = {}
    by_fd = {}
    for link in links:
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link.setblocking(False)
        waiting[link.fileno()], by_fd[link.fileno()] = [], link
    latency, late = (array("d", [float("inf")]) * len(due) for _ in range(2))
    sent = answered = 0
    end = max(due, default=0.0) + 2.0
    while answered < len(due):
        now = time.monotonic()
        if now > end:
            break
        while sent < len(due) and due[sent] <= now:
            link = links[sent % CONNECTIONS]
            link.send(request)
            late[sent] = now - due[sent]
            waiting[link.fileno()].append(sent)
            sent += 1
        timeout = max(0.0, (due[sent] if sent < len(due) else end) - time.monotonic())
        for fd in select.select(by_fd, (), (), timeout)[0]:  # epoll's time-outs are whole milliseconds
            lines = by_fd[fd].recv(1 << 16).count(b"\r\n")
            now, queue = time.monotonic(), waiting[fd]
            for number in queue[:lines]:
                latency[number] = now - due[number]
            del queue[:lines]
            answered += lines
    for link in links:
        link.close()
    return latency, late


if __name__ == "__main__":
    sys.exit(main())
