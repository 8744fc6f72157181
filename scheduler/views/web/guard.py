"""Who may see the page, and what a browser may do with it. Every request passes here first.

The page shows what runs on a machine. So it is served to a browser on the same machine only, that has the token, and to no page of
another site that this browser has open: docs/web.md says how, and `tests/unit/views/web/test_glances.py` attacks it.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Iterable
from http.cookies import CookieError, SimpleCookie
from pathlib import Path

from starlette.datastructures import Headers, QueryParams
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ...hands.safe_files import StoreError, private_descriptor, private_directory

TOKEN_BYTES = 32
"""Of chance in a token (chosen: as many as its hash keeps)."""

TOKEN_FILE = "web-token"  # noqa: S105 - the name of a file
"""In the directory of the stores, for its owner only."""

COOKIE_DAYS = 30
"""How long a browser stays signed in (chosen)."""

LONGEST = 2048
"""Bytes of a path or a query (chosen: the longest name of a group takes 1,536)."""

LOCAL = frozenset({"localhost", "127.0.0.1", "[::1]"})
"""Names by which a browser on this machine calls it. No name server answers for them, so a page of somebody else's has none."""

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Of every answer: nothing inline, nothing from elsewhere, in no frame of another page, kept nowhere."""

UNSIGNED = "This page needs the token of `nicety web`: open the address that it printed.\n"


def read_token(stores: Path, *, new: bool = False) -> str:
    """The token of a state directory, made if there is none, or if it is to be `new`. Raises StoreError if it cannot be kept."""
    path = private_directory(stores) / TOKEN_FILE
    descriptor = private_descriptor(path)
    try:
        token = os.read(descriptor, 256).decode("ascii", "replace").strip()
        if new or not re.fullmatch(r"[\w-]{43}", token, re.ASCII):
            token = secrets.token_urlsafe(TOKEN_BYTES)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{token}\n".encode(), 0)
        os.fchmod(descriptor, 0o600)
    except OSError as error:
        raise StoreError(f"cannot keep the token in {path}: {error.strerror}; free the disk, or check its mount") from None
    finally:
        os.close(descriptor)
    return token


def host_of(value: str) -> str:
    """The name in a Host header, in lower case without its port.

    >>> host_of("LocalHost:8787"), host_of("[::1]:80"), host_of("evil.example")
    ('localhost', '[::1]', 'evil.example')
    """
    return re.sub(r":\d{1,5}$", "", value.strip().lower())


class Guard:
    """Answers what may not pass, and adds `HEADERS` to every answer."""

    def __init__(self, app: ASGIApp, token: str, names: Iterable[str] = ()) -> None:
        """`names`: by which the page is called besides `LOCAL`, that of a reverse proxy."""
        self._app = app
        self._token = token.encode()
        self._names = LOCAL | {name.lower() for name in names}
        self._session = hmac.new(self._token, b"session of a browser", hashlib.sha256).hexdigest()
        self.cookie = f"nicety-{hashlib.sha256(self._token).hexdigest()[:8]}"
        """Its name has a trace of the token: browsers do not tell two ports of one machine apart."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = {name.lower().encode() for name in HEADERS}
                kept = [pair for pair in message["headers"] if pair[0].lower() not in own]
                message["headers"] = kept + [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
            await send(message)

        await (self._refused(scope) or self._app)(scope, receive, guarded)

    def _refused(self, scope: Scope) -> Response | None:
        """The answer to a request that may not pass; None if it may."""
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        if len(hosts) != 1 or host_of(hosts[0]) not in self._names:
            return PlainTextResponse("The page is not called by this name; `nicety web --name NAME` allows one.\n", 421)
        if scope["method"] not in ("GET", "HEAD"):
            return PlainTextResponse("The page only shows: nothing can be changed through it.\n", 405, {"Allow": "GET, HEAD"})
        if len(scope["raw_path"] or b"") > LONGEST or len(scope["query_string"]) > LONGEST:
            return PlainTextResponse("The address is too long.\n", 414)
        if headers.get("sec-fetch-site", "none") == "cross-site" and scope["path"] != "/":
            return PlainTextResponse("Another site may not read this page.\n", 403)
        given = QueryParams(scope["query_string"]).get("token") if scope["path"] == "/" else None
        if given is not None and hmac.compare_digest(given.encode("utf-8", "surrogatepass"), self._token):
            answer = RedirectResponse("/", 303)  # so that the token stays in no history
            answer.set_cookie(self.cookie, self._session, COOKIE_DAYS * 86400, path="/", httponly=True, samesite="strict")
            return answer
        return None if self._signed_in(headers) else PlainTextResponse(UNSIGNED, 401)

    def _signed_in(self, headers: Headers) -> bool:
        try:
            found = SimpleCookie(headers.get("cookie", "")).get(self.cookie)
        except CookieError:
            return False
        return found is not None and hmac.compare_digest(found.value.encode("utf-8", "surrogatepass"), self._session.encode())
