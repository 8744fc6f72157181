"""The Celery agent: a helper that nicety starts with the worker's own Python, because nicety itself never imports Celery.

It is run from its text (`link.BOOTSTRAP`) as the worker's user, and imports nothing of nicety: Python 3.8 and Celery 5 are enough.
It reads one JSON request per line from standard input and writes one JSON answer per line to standard output:

    {"id": 1, "do": "stats"}                        the node's own report
    {"id": 2, "do": "load"}                         messages in the broker's queues; tasks that the node has fetched, not begun
    {"id": 3, "do": "active", "wall": 1.7e9}        seconds that each process has worked on its task
    {"id": 4, "do": "grow", "n": 2}
    {"id": 5, "do": "shrink", "victims": [{"pid": 7, "start_ticks": 9, "rchar": 11}]}
    {"id": 6, "do": "recycle", "victims": [...]}

A victim must be a child of the node's main process. Growing and shrinking stop at the limits of the configuration, or at the number
of children that there were at the start. All of that is checked here, since the one that asks has not the rights that this has.

An answer has the request's id and either "ok" or "error", a sentence on the cause. The first line is {"ready": true}, or
{"fatal": cause and next step}, after which the agent ends.

`shrink` stops its victim with SIGSTOP while Celery shrinks. Celery's main process learns that a task has begun from a message of
the process that runs it. Until it has read that message it takes the process for idle, and pool_shrink would kill it with its
task. A stopped process that has read nothing since it was seen waiting for work has not begun a task and cannot; Celery gives what
waits in its pipe to another process. Whatever ends the agent, above all the end of its input, first releases what it holds.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

CONNECT_SECONDS = 3.0
"""Time for a connection to the broker. Chosen."""
REPLY_SECONDS = 8.0
"""Time for a node to answer. Its event loop does so within milliseconds, unless it starts processes or gets no CPU. Chosen."""
PING_SECONDS = 2.0
SHRINK_SECONDS = 20.0
"""The same while processes are held. A node that is too slow for the ping is left alone. Once it was asked to shrink, the
processes are held until it has, or a task could begin and be lost with them."""
GROWING_SECONDS = 15.0
"""For this long processes that were asked for count as coming, and those that were ended as going: Celery starts and misses them at
its next check, within 5 s. Chosen."""
STOP_TURNS = 400
"""Checks of whether a process has stopped, 0.5 ms apart. Chosen."""
ACTIONS = ("stats", "load", "active", "grow", "shrink", "recycle")

_held: dict[int, str] = {}  # pid: start time of what is stopped and must be let go of


class NodeRefusal(Exception):  # noqa: N818 - a no is no error of ours
    """A request that cannot be done: the cause."""


class Node:
    """One Celery node, queried by remote control."""

    def __init__(self, settings: dict[str, Any]) -> None:
        for name in [name for name in os.environ if name.startswith("CELERY_")]:
            del os.environ[name]  # CELERY_BROKER_URL would win over the URL that is given
        from celery import Celery

        self.broker: str = settings["broker"]
        options = {"max_retries": 1, "interval_start": 0.1, "interval_step": 0.1, "interval_max": 0.2}
        if urlsplit(self.broker).scheme.startswith(("redis", "sentinel")):
            options.update(socket_timeout=5.0, socket_connect_timeout=CONNECT_SECONDS)
        self.name: str = settings["node"]
        self.queues: list[str] = settings["queues"]
        self.main: int = settings["main"]
        there = len(children(self.main))
        self.fewest, self.most = min(settings["minimum"], there), max(settings["maximum"], there)
        self.growing: list[tuple[float, int]] = []  # (when, by how many) it was asked to grow lately
        self.app = Celery("nicety", broker=self.broker, set_as_current=False)
        self.app.conf.update(
            broker_connection_timeout=CONNECT_SECONDS, broker_connection_retry=False, broker_transport_options=options
        )
        self.connection: Any = None

    def ask(self, command: str, seconds: float = REPLY_SECONDS, **arguments: Any) -> Any:
        """The node's reply to a control command. Raises NodeRefusal if it does not answer, or answers with an error."""
        replies = self.app.control.broadcast(
            command, arguments=arguments or None, destination=[self.name], reply=True, timeout=seconds, limit=1
        )
        for reply in replies or ():
            if self.name in reply:
                answer = reply[self.name]
                if isinstance(answer, dict) and "error" in answer:
                    raise NodeRefusal(str(answer["error"]))
                return answer
        raise NodeRefusal(
            f"node {self.name} did not answer within {seconds:g} s: correct node or broker, or let the worker have "
            "worker_enable_remote_control (and a broker that carries it, which SQS does not)"
        )

    def stats(self, _request: dict[str, Any]) -> dict[str, Any]:
        """Main process, kind of pool, and its processes in the order in which Celery looks for one to end."""
        reply = self.ask("stats")
        pool = reply.get("pool") or {}
        processes = pool.get("processes")
        return {
            "pid": reply.get("pid"),
            "implementation": str(pool.get("implementation", "")),
            "processes": [pid for pid in processes if isinstance(pid, int)] if isinstance(processes, list) else [],
            "event_loop": isinstance(pool.get("writes"), dict),
            "autoscaler": bool(reply.get("autoscaler")),
        }

    def load(self, _request: dict[str, Any]) -> dict[str, Any]:
        """Waiting work: in the broker, and fetched by the node but not begun (without tasks for a later time)."""
        reserved = len(self.ask("reserved"))
        try:
            return {"waiting": self.waiting(), "reserved": reserved, "problem": ""}
        except Exception as error:
            self.hang_up()
            return {"waiting": 0, "reserved": reserved, "problem": words(error)}

    def active(self, request: dict[str, Any]) -> dict[str, float]:
        """Seconds on the current task, by pid."""
        ages = {}
        for task in self.ask("active"):
            pid, began = task.get("worker_pid"), task.get("time_start")
            if isinstance(pid, int) and isinstance(began, (int, float)):
                ages[str(pid)] = request["wall"] - began
        return ages

    def grow(self, request: dict[str, Any]) -> dict[str, Any]:
        """Add processes; Celery starts them at its next check, within 5 s."""
        now, count = time.monotonic(), int(request["n"])
        self.growing = [(at, n) for at, n in self.growing if now - at < GROWING_SECONDS]
        coming = sum(n for _, n in self.growing)
        if count < 1 or max(coming, len(children(self.main))) + count > 2 * self.most:  # some may be about to end
            raise NodeRefusal(f"at most {self.most} processes are wanted")
        self.growing.append((now, count))
        self.ask("pool_grow", n=count)
        return {}

    def shrink(self, request: dict[str, Any]) -> dict[str, Any]:
        """End these idle processes, all by one request; return how many were ended, and why the next one was not.

        One by one would go wrong: to Celery, an ended process stays the first idle one until it is reaped, up to 5 s later.
        """
        obstacle = ""
        try:
            for victim in request["victims"][: max(0, len(children(self.main)) - self.fewest)]:
                obstacle = hold(victim, self.main)
                if obstacle:
                    break
            ended = len(_held)
            if not ended:
                return {"ended": 0, "obstacle": obstacle}
            try:
                self.ask("ping", PING_SECONDS)  # when it has answered, Celery has read what they sent: that their tasks are done
            except NodeRefusal:
                return {"ended": 0, "obstacle": "slow"}
            try:
                self.ask("pool_shrink", SHRINK_SECONDS, n=ended)
            except NodeRefusal as refusal:
                if ended > 1 or "processes busy" not in str(refusal):
                    raise
                return {"ended": 0, "obstacle": "busy"}
            self.growing.append((time.monotonic(), -ended))
            return {"ended": ended, "obstacle": obstacle}
        finally:
            for pid in list(_held):
                release(pid)

    def recycle(self, request: dict[str, Any]) -> dict[str, Any]:
        """End these idle processes; Celery starts replacements."""
        ended = 0
        for victim in request["victims"]:
            obstacle = hold(victim, self.main)
            if obstacle:
                return {"ended": ended, "obstacle": obstacle}
            try:
                os.kill(victim["pid"], signal.SIGTERM)  # it is stopped, and ends before it could read
            finally:
                release(victim["pid"])
            ended += 1
        return {"ended": ended, "obstacle": ""}

    def waiting(self) -> int:
        """Messages in the queues. In Redis an empty list does not exist; elsewhere a missing queue is an error."""
        if self.connection is None:
            self.connection = self.app.connection_for_read()
            self.connection.ensure_connection(max_retries=1, timeout=CONNECT_SECONDS)
        count = 0
        for name in self.queues:
            try:
                count += self.connection.default_channel.queue_declare(queue=name, passive=True).message_count
            except self.connection.channel_errors as error:
                if "NOT_FOUND" not in str(error):
                    raise
                if self.connection.transport.driver_type != "redis":
                    raise NodeRefusal(f"the broker has no queue {name!r}: correct queues") from None
        return count

    def hang_up(self) -> None:
        """Drop the connection; the next count makes a new one."""
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.release()


def look(pid: int) -> tuple[str, str]:
    """(state, start time) of the process with this pid; ("X", "") if none exists."""
    fields = stat(pid)
    return (fields[0], fields[19]) if fields else ("X", "")


def stat(pid: int) -> list[str]:
    """The fields of its stat line after the name; [] if no process has this pid."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].decode("ascii").split()
    except OSError:
        return []


def children(pid: int) -> list[str]:
    """The children of its main thread; [] if it is gone or the kernel keeps no list."""
    try:
        return Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    except OSError:
        return []


def bytes_read(pid: int) -> int | None:
    """What the process's main thread has read so far; None if it cannot be read."""
    try:
        return int(Path(f"/proc/{pid}/task/{pid}/io").read_text(encoding="ascii").split()[1])
    except (OSError, IndexError, ValueError):
        return None


def hold(victim: dict[str, Any], main: int) -> str:
    """Stop a child of the main process; return "" if it certainly waits for work. Otherwise let it continue and return why."""
    pid, start = int(victim["pid"]), str(victim["start_ticks"])
    fields = stat(pid)
    if not fields or fields[19] != start:
        return "gone"
    if fields[1] != str(main):
        return "a stranger"
    _held[pid] = start
    os.kill(pid, signal.SIGSTOP)
    for _ in range(STOP_TURNS):
        if look(pid)[0] in "TtXZ":
            break
        time.sleep(0.0005)
    stopped, read = look(pid) == ("T", start), bytes_read(pid)
    if stopped and read == victim["rchar"]:
        return ""
    release(pid)
    return "unseen" if stopped and read is None else "busy"


def release(pid: int) -> None:
    """Let a held process continue."""
    start = _held.pop(pid, "")
    if start and look(pid)[1] == start:
        try:
            os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:
            pass


def leave(*_: Any) -> None:
    """Release what is held, and exit now."""
    for pid in list(_held):
        release(pid)
    os._exit(0)


def words(error: BaseException) -> str:
    """An error as one line. It may quote the broker's password, which `link.py` takes out before anybody sees it."""
    text = " ".join(str(error).split())
    if not isinstance(error, NodeRefusal):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return text[:4000]


def serve(settings: dict[str, Any]) -> None:
    """Answer requests until the input ends."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.signal(signal.SIGTERM, leave)
    output = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints is no answer
    requests: queue.Queue[dict[str, Any]] = queue.Queue()

    def listen() -> None:
        try:
            for line in sys.stdin:
                requests.put(json.loads(line))
        finally:
            leave()

    def say(message: dict[str, Any]) -> None:
        output.write(json.dumps(message) + "\n")
        output.flush()

    threading.Thread(target=listen, daemon=True).start()
    try:
        node = Node(settings)
    except ImportError as error:
        say({"fatal": f"{sys.executable} has no Celery ({error}): give the interpreter that runs the worker as python"})
        return
    except Exception as error:
        say({"fatal": f"{words(error)}: correct broker"})
        return
    say({"ready": True})
    while True:
        request = requests.get()
        answer: dict[str, Any] = {"id": request["id"]}
        try:
            if request["do"] not in ACTIONS:
                raise NodeRefusal(f"there is no request {request['do']!r}")
            answer["ok"] = getattr(node, request["do"])(request)
        except Exception as error:  # of Celery, kombu or a driver: whatever it is, the next request may go well
            answer["error"] = words(error)
        say(answer)
