"""The web application: which address answers what. Everything only reads."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from ...explain.decision_page import ExplainError
from ...explain.history import GROUP, POOL
from ...hands.safe_files import StoreError
from .archive import Archive, AskError
from .guard import Guard
from .live import FullError, Live

LONGEST_RANGE = 8 * 86400.0
"""Seconds of the longest time that can be asked for (chosen: what is kept)."""

ALIVE_SECONDS = 15.0
"""After so long without an event a comment is sent, so that a dead connection is found (HTML standard, 9.2.7)."""

STALLED_SECONDS = 10.0
"""A page that takes nothing for so long is dropped (chosen)."""

STEPS = 60
"""Ticks that are read at a time in the background (chosen: a question waits at most so long, 50 ms)."""

REST_SECONDS = 0.05
"""Between two such times (chosen: at most half a CPU is used, and questions come first)."""

PART = 1 << 16
"""Bytes of an answer that are sent at once (chosen: what a connection's buffer takes)."""

FILES = {
    "/": ("page.html", "text/html"),
    "/page.js": ("page.js", "text/javascript"),
    "/page.css": ("page.css", "text/css"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
"""All files that are served, by address."""

Answer = TypeVar("Answer")


def make_app(live: Live, archive: Archive, token: str, names: Iterable[str] = ()) -> Guard:
    """The application. `names`: see `Guard`."""
    thread = ThreadPoolExecutor(1, "archive")

    async def ask(question: Callable[[], Answer]) -> Answer:
        return await asyncio.get_running_loop().run_in_executor(thread, question)

    async def read_ahead() -> None:
        while True:
            more = await ask(lambda: archive.advance(STEPS))
            await asyncio.sleep(REST_SECONDS if more else 1.0)

    @asynccontextmanager
    async def running(_app: Starlette) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(read_ahead()), asyncio.create_task(live.follow())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
            await ask(archive.close)
            thread.shutdown()

    def answering(question: Callable[[Request], Callable[[], bytes]]) -> Callable[[Request], object]:
        """An endpoint that has the archive answer with JSON. Cause and next step of what goes wrong are in `error`."""

        async def endpoint(request: Request) -> Response:
            try:
                return _json(await ask(question(request)))
            except ValueError as error:
                return _error(400, error)
            except (AskError, ExplainError) as error:
                return _error(404, error)
            except StoreError as error:
                return _error(503, error)

        return endpoint

    def series(request: Request) -> Callable[[], bytes]:
        since, until = _range(request)
        return lambda: archive.series(since, until)

    def target(request: Request) -> Callable[[], bytes]:
        (since, until), kind, name = _range(request), request.query_params.get("kind", ""), request.query_params.get("name", "")
        if kind not in (GROUP, POOL):
            raise ValueError(f"kind: write {GROUP} or {POOL}")
        return lambda: archive.target((kind, name), since, until)

    def moment(request: Request) -> Callable[[], bytes]:
        at = _number(request, "at")
        return lambda: msgspec.json.encode(archive.moment(at))

    def why(request: Request) -> Callable[[], bytes]:
        id_ = request.query_params.get("id", "")
        if not re.fullmatch(r"[\w.-]{1,64}", id_, re.ASCII):
            raise ValueError("id: write that of a decision")
        return lambda: msgspec.json.encode({"text": archive.why(id_)})

    routes = [
        *(Route(address, _file(name, kind), methods=["GET"]) for address, (name, kind) in FILES.items()),
        Route("/api/series", answering(series), methods=["GET"]),
        Route("/api/target", answering(target), methods=["GET"]),
        Route("/api/moment", answering(moment), methods=["GET"]),
        Route("/api/why", answering(why), methods=["GET"]),
        Route("/api/live", _Events(live), methods=["GET"]),
    ]
    return Guard(Starlette(routes=routes, lifespan=running), token, names)


def _file(name: str, kind: str) -> Callable[[Request], object]:
    body = Path(__file__).with_name(name).read_bytes()

    async def endpoint(_request: Request) -> Response:
        return Response(body, media_type=kind)

    return endpoint


class _Events:
    """The stream of events of a page. Written against ASGI itself, to drop a page that takes nothing."""

    def __init__(self, live: Live) -> None:
        self._live = live

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a page until it is closed or dropped."""
        try:
            page = self._live.join(Request(scope).headers.get("last-event-id", ""))
        except FullError as error:
            refused: ASGIApp = _error(503, error)
            await refused(scope, receive, send)
            return
        gone = asyncio.create_task(_disconnected(receive))
        try:
            headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            event: bytes | None = b"retry: 2000\n\n"
            while event is not None:
                body = {"type": "http.response.body", "body": event, "more_body": True}
                await asyncio.wait_for(send(body), STALLED_SECONDS)
                following = asyncio.create_task(page.events.get())
                done, _ = await asyncio.wait({following, gone}, timeout=ALIVE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                if following not in done:
                    following.cancel()
                if gone in done:
                    return
                event = following.result() if following in done else b": alive\n\n"
            await asyncio.wait_for(send({"type": "http.response.body", "body": b""}), STALLED_SECONDS)
        except TimeoutError:
            return  # without an end: the server closes the connection
        finally:
            gone.cancel()
            self._live.leave(page)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class _Answer(Response):
    """JSON, sent in parts: what a page has not taken yet is kept once for all pages, not once for each."""

    media_type = "application/json"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - as ASGI asks
        """Send it."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        body = memoryview(self.body)
        for at in range(0, max(len(body), 1), PART):
            part = bytes(body[at : at + PART])
            await send({"type": "http.response.body", "body": part, "more_body": at + PART < len(body)})


def _json(body: bytes, status: int = 200) -> Response:
    return _Answer(body, status)


def _error(status: int, error: Exception) -> Response:
    return _json(msgspec.json.encode({"error": str(error)}), status)


def _number(request: Request, name: str) -> float:
    try:
        value = float(request.query_params.get(name, ""))
    except ValueError:
        value = math.nan
    if not 0 <= value < 1e11:
        raise ValueError(f"{name}: write seconds since 1970")
    return value


def _range(request: Request) -> tuple[float, float]:
    since, until = _number(request, "since"), _number(request, "until")
    if not 0 < until - since <= LONGEST_RANGE:
        raise ValueError("since, until: write a time of at most eight days")
    return since, until
