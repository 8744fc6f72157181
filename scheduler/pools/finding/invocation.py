"""What an argument list or a title runs, and its options. Pure: words in, words out. Must not know processes.

Only options that a kind of pool asks for by name are taken from an argument list: the others may hold secrets.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

_INTERPRETER = re.compile(r"(python|pypy|ruby)[\d.]*t?")
_CALLABLE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*(\(.*\))?")

PROGRAMS: Mapping[str, re.Pattern[str]] = MappingProxyType(
    {
        kind: re.compile(pattern)
        for kind, pattern in {
            "gunicorn": r"gunicorn[\d.]*(_paster)?",
            "uwsgi": r"uwsgi(-core|_python\d*)?",
            "celery": r"\[?celeryd?",
            "uvicorn": r"uvicorn|fastapi",
            "hypercorn": r"hypercorn",
            "granian": r"granian",
            "rq": r"rq|rqworker",
            "dramatiq": r"dramatiq(-gevent)?",
            "arq": r"arq",
            "huey": r"huey(_consumer(\.py)?)?",
            "php-fpm": r"php-fpm[\d.]*",
            "puma": r"puma",
            "unicorn": r"unicorn(_rails)?",
        }.items()
    }
)
"""Names of the programs that run each kind of pool, as they stand in an argument list or a title."""


class Invocation(NamedTuple):
    """What is run, and with what."""

    tool: str  # base name of the program, script or package, "" if it has no name
    arguments: tuple[str, ...]  # those after it


def invoked(arguments: Sequence[str]) -> Invocation:
    """What an argument list runs: a program, a script of an interpreter, or `-m MODULE`. A title is cut into its words.

    >>> invoked(["/usr/bin/python3", "-X", "dev", "/opt/bin/gunicorn", "app:app"]).tool
    'gunicorn'
    >>> invoked(["python3", "-m", "celery", "worker"]), invoked(["gunicorn: master [shop]"])
    (Invocation(tool='celery', arguments=('worker',)), Invocation(tool='gunicorn', arguments=('master', '[shop]')))
    """
    words = list(arguments)
    if not words:
        return Invocation("", ())
    if len(words) == 1 and re.search(r"[ :]", words[0]):
        return _title(words[0].split())
    first = words[0].rpartition("/")[2]
    if not _INTERPRETER.fullmatch(first):
        return Invocation(first, tuple(words[1:]))
    rest = iter(range(1, len(words)))
    for at in rest:
        word = words[at]
        if word == "-m":
            module = words[at + 1] if at + 1 < len(words) else ""
            return Invocation(module.split(".")[0], tuple(words[at + 2 :]))
        if word in ("-c", "-e"):
            break
        if word in ("-X", "-W"):
            next(rest, None)
        elif not word.startswith("-"):
            parts = word.split("/")
            script = parts[-2] if parts[-1] == "__main__.py" and len(parts) > 1 else parts[-1]
            return Invocation(script, tuple(words[at + 1 :]))
    return Invocation("", ())


def _title(words: Sequence[str]) -> Invocation:
    """A title: 'rq:worker-pool: NAME' is rq with the word worker-pool."""
    head = [word for word in words[0].split(":") if word] if words else []
    return Invocation(head[0].lstrip("[").rpartition("/")[2], (*head[1:], *words[1:])) if head else Invocation("", ())


def kind_of(arguments: Sequence[str]) -> str | None:
    """The kind of pool whose program this is; None for any other program."""
    tool = invoked(arguments).tool
    return next((kind for kind, pattern in PROGRAMS.items() if pattern.fullmatch(tool)), None)


def may_be(program: str) -> bool:
    """Whether a process with this name (`Identity.program`) is worth a look at its arguments.

    >>> [may_be(name) for name in ("python3 gunicorn", "python3 -m celery", "uwsgi", "ruby", "postgres", "python3 app.py")]
    [True, True, True, True, False, False]
    """
    words = program.split()
    if len(words) > 1 and _INTERPRETER.fullmatch(words[0]):
        words = [words[2].split(".")[0]] if words[1] == "-m" and len(words) > 2 else words[1:]
    return bool(words) and (words[0] == "ruby" or any(pattern.fullmatch(words[0]) for pattern in PROGRAMS.values()))


def option(arguments: Sequence[str], *names: str) -> str | None:
    """The value of an option, the last one counts; None if it is not given. `-w4`, `-w 4`, `--workers 4` and `--workers=4`.

    >>> option(["-w4", "--pid=/run/web.pid"], "-w", "--workers"), option(["-b", ":80"], "-w")
    ('4', None)
    """
    found = None
    for at, word in enumerate(arguments):
        for name in names:
            if word == name:
                found = arguments[at + 1] if at + 1 < len(arguments) else ""
            elif name.startswith("--") and word.startswith(f"{name}="):
                found = word[len(name) + 1 :]
            elif not name.startswith("--") and word.startswith(name) and not word.startswith("--"):
                found = word[len(name) :]
    return found


def whole_number(arguments: Sequence[str], *names: str) -> int | None:
    """As `option`, for a whole number; None also for what is none."""
    text = option(arguments, *names)
    return int(text) if text is not None and re.fullmatch(r"\d{1,9}", text) else None


def positionals(arguments: Sequence[str], flags: Collection[str]) -> Iterator[str]:
    """The words that are neither options nor values of options. `flags`: options that take no value."""
    rest = iter(arguments)
    for word in rest:
        if not word.startswith("-"):
            yield word
        elif "=" not in word and word not in flags and (word.startswith("--") or len(word) == 2):
            next(rest, None)


def application(arguments: Sequence[str]) -> str:
    """The application that a web server's arguments name, 'shop.wsgi:application'; "" if they name none."""
    named = [word for word in arguments if _CALLABLE.fullmatch(word)]
    last = arguments[-1] if arguments else ""
    return named[-1] if named else last if re.fullmatch(r"[A-Za-z_]\w*(\.\w+)+", last) else ""
