"""Open-loop load on a Redis server: each request is sent at its planned time, whether or not the one before was answered.

It runs in the real-time class if it may, so that the server is measured and not the generator. It has a process on each CPU, and a
random one of them sends each request, as a network card has a queue on each CPU. A single process would share the service's CPU or
not, by chance and for a long time; if it does, the service's p99 is higher.

Writes a .npy file at the end, with three rows: the planned time of each request (monotonic seconds), its latency, and how late it
was sent (seconds). A real-time process is late by milliseconds only if the machine itself stood still, as virtual machines do.
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
"""Connections of each process. Chosen."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True, help="port of the Redis server")
    parser.add_argument("--rate", type=float, required=True, help="requests a second, at random times (Poisson)")
    parser.add_argument("--seconds", type=float, required=True, help="length of the load")
    parser.add_argument("--work", type=int, required=True, help="turns of the script's loop in a request")
    parser.add_argument("--seed", type=int, default=1, help="seed of the random times (default %(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="the .npy file to write")
    asked = parser.parse_args()
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except PermissionError:
        print("no permission for the real-time class: latencies include waits of the generator itself", file=sys.stderr)
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
    """(latency, how late it was sent) of each request, in seconds from its `due` time (monotonic seconds). Infinite if it was not
    answered, or not sent."""
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
