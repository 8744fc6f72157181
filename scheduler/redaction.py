"""Keeps passwords out of whatever is recorded, logged or shown; the only place that decides what one looks like. Pure.

A password comes in with the configuration (the URL of a broker or of a queue, the arguments of a command), with the environment of
a worker, and in what other programs write about them. Nobody needs it in a log, so too much is hidden rather than too little.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import unquote

HIDDEN = "**"
"""What stands for a password."""

_NAMES = r"[\w.-]*(?:pass(?:word|wd|phrase|code)?|pwd|secret|token|api[_-]?key|access[_-]?key|private[_-]?key|credentials?)"
"""The end of names whose values are secret: `password`, `redis_pass`, `AWS_SECRET_ACCESS_KEY`, `--api-key`."""

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)([^\s\"'<>]*)@")
_VALUE = re.compile(rf"(?i)\b({_NAMES})([\"']?\s*[=:]\s*)(\"[^\"]*\"|'[^']*'|[^\s&;,\"']+)")
_SEPARATE = re.compile(r"[;,](?=[A-Za-z][A-Za-z0-9+.-]*://)")
"""Between the URLs of a broker with several servers."""


def redacted(text: str, *urls: str) -> str:
    """`text` without the passwords of these URLs, of any URL in it, and of what it calls a password.

    >>> redacted("cannot reach redis://:s3cret@10.0.0.1/0: NOAUTH")
    'cannot reach redis://:**@10.0.0.1/0: NOAUTH'
    >>> redacted("AUTH s3cret was refused, password=other", "redis://:s3cret@10.0.0.1/0")
    'AUTH ** was refused, password=**'
    """
    known = {secret for url in urls for secret in _passwords(url)}
    for secret in sorted(known, key=lambda each: (-len(each), each)):  # one may be a part of another
        text = text.replace(secret, HIDDEN)
    return _VALUE.sub(rf"\1\2{HIDDEN}", _URL.sub(_without_user, text))


def redacted_url(url: str) -> str:
    """A URL of the configuration without its password; `$NAME` as it is.

    >>> redacted_url("amqp://app:s3cret@queue.example:5672/jobs"), redacted_url("$CELERY_BROKER_URL")
    ('amqp://app:**@queue.example:5672/jobs', '$CELERY_BROKER_URL')
    """
    return redacted(url, url)


def redacted_command(words: Sequence[str]) -> list[str]:
    """An argument list with the program alone: any argument can be a password (`redis-cli -a s3cret`).

    >>> redacted_command(["redis-cli", "-a", "s3cret", "llen", "jobs"])
    ['redis-cli', '**']
    """
    return [*words[:1], *([HIDDEN] if len(words) > 1 else [])]


def _without_user(match: re.Match[str]) -> str:
    """A URL up to its `@`: a user with a password keeps the name; one without may be a token."""
    user, colon, _ = match[2].partition(":")
    return f"{match[1]}{user}:{HIDDEN}@" if colon else f"{match[1]}{HIDDEN}@"


def _passwords(url: str) -> set[str]:
    """Whatever of a URL may be a password, also where it was written wrongly: not percent-encoded, or without its `@`.

    Libraries cut such a URL in different places, and their messages quote a piece. So it is cut in each of these places here.
    """
    found = set[str]()
    for each in _SEPARATE.split(url):
        rest = each.partition("://")[2]
        authority = re.split(r"[/?#]", rest, maxsplit=1)[0]  # as urllib.parse cuts it
        for part in (rest, authority):
            user, at, _ = part.rpartition("@")
            if at:
                found.add(user.partition(":")[2] or user)
        _, colon, port = authority.rpartition("@")[2].rpartition(":")
        if colon and not port.isdecimal() and not port.endswith("]"):  # `]`: the end of an IPv6 address
            found.add(port)
        found |= {match[3] for match in _VALUE.finditer(rest)}
    return {form for secret in found for form in (secret, unquote(secret)) if form}
