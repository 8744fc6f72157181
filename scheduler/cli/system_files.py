"""Writes what is installed beside the program, from its own help: man pages, and completion for bash, zsh and fish.

    python -m nicety.scheduler.cli.system_files DIRECTORY

makes DIRECTORY/man/man1/nicety.1, man/man5/nicety.toml.5, completion/nicety.bash, _nicety and nicety.fish. Packages install them
(debian/rules); the repository keeps nothing of it. One page has a section a command: there is one name to know, and a search in it
finds any option. Knows the layout of the man pages, not what a command does.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import typer
from typer import completion as typers

from ... import __version__
from ..config import reference
from .app import app

SHELLS = {"bash": "nicety.bash", "zsh": "_nicety", "fish": "nicety.fish"}
"""Names of the files of completion. The package of a distribution renames the first to what its bash-completion wants."""

HIDDEN = frozenset({"--help", "--install-completion", "--show-completion"})
"""Options that every command has, or that only matter without the files here."""

COMMON = frozenset({"--config", "--state-dir"})
"""Options that may stand before or behind the command: they are described once."""

EXIT_CODES = (
    ("0", "All went well."),
    ("1", "It failed; for status, no daemon is running."),
    ("2", "Wrong usage."),
    ("3", "There are findings: something differs, is missing or was left. Each command says which."),
)

FILES = (
    ("/etc/nicety/nicety.toml", "The configuration; nicety.toml(5). Without it nicety observes."),
    ("~/.config/nicety/nicety.toml", "The configuration of a daemon that runs as a user."),
    ("/var/lib/nicety", "Traces, decisions, models and the ledger of changes."),
    ("/run/nicety/frame", "What the live view, the exporter and the page read."),
)

VARIABLES = (
    ("NICETY_CONFIG", "The configuration file, as --config."),
    ("NICETY_STATE_DIR", "The state directory, as --state-dir."),
)


def escaped(text: str) -> str:
    """Text as roff has it: no word of it is a request, and hyphens and quotes are those that people type.

    >>> print(escaped(".so it's --act"))
    \\&.so it\\(aqs \\-\\-act
    """
    for letter, roff in (("\\", "\\e"), ("-", "\\-"), ("'", "\\(aq"), ("`", "\\(ga"), ("^", "\\(ha"), ("~", "\\(ti")):
        text = text.replace(letter, roff)
    text = "".join(letter if letter.isascii() else f"\\[u{ord(letter):04X}]" for letter in text)
    return re.sub(r"(?m)^(?=\.)", r"\\&", text)


def quoted(text: str) -> str:
    """Text with commands in bold: what stands between backticks."""
    parts = text.split("`")
    return "".join(f"\\fB{escaped(part)}\\fR" if number % 2 else escaped(part) for number, part in enumerate(parts))


def title(name: str, section: int, date: str) -> list[str]:
    """The head of a page."""
    return [f'.TH "{escaped(name.upper())}" "{section}" "{date}" "nicety {__version__}" "nicety"', ".nh", ".ad l"]


def page_of_commands(date: str) -> str:
    """nicety(1)."""
    group: Any = typer.main.get_command(app)
    context = group.context_class(group, info_name="nicety")
    lines = [*title("nicety", 1, date), ".SH NAME", "nicety \\- an adaptive process scheduler"]
    lines += [".SH SYNOPSIS", ".B nicety", "[\\fIOPTION\\fR ...] \\fICOMMAND\\fR [\\fIARGUMENT\\fR ...]"]
    lines += [".SH DESCRIPTION", *paragraphs(group.help)]
    lines += ["It only observes until you let it act. Data goes to standard output, messages to standard error."]
    lines += [".SH OPTIONS", *options(group, context)]
    lines += [".SH COMMANDS", "\\fB\\-\\-config\\fR and \\fB\\-\\-state\\-dir\\fR may also stand behind the command."]
    for name, command in commands(group):
        lines += section_of(name, command, group.context_class(command, info_name=name))
    lines += [".SH EXIT STATUS", *listed(EXIT_CODES)]
    lines += [".SH ENVIRONMENT", *listed(VARIABLES), ".SH FILES", *listed(FILES)]
    lines += [".SH SEE ALSO", ".BR nicety.toml (5),", ".BR nice (1),", ".BR sched (7),", ".BR systemd (1)"]
    return joined(lines)


def joined(lines: list[str]) -> str:
    """The text of a page. A heading begins a paragraph by itself."""
    kept = [line for before, line in zip(["", *lines], lines, strict=False) if line != ".PP" or before[:3] not in (".SH", ".SS")]
    return "\n".join(kept) + "\n"


def commands(group: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    """(words, command) of every command in the order of the help; those of a command with commands of its own after it."""
    for name, command in group.commands.items():
        if getattr(command, "hidden", False):
            continue
        words = f"{before}{name}"
        inner = getattr(command, "commands", None)
        if inner is None or getattr(command, "invoke_without_command", False):
            yield words, command
        if inner is not None:
            yield from commands(command, f"{words} ")


def section_of(name: str, command: Any, context: Any) -> list[str]:
    """What one command does, its options and its example."""
    words = [word for word in command.collect_usage_pieces(context) if word != "[OPTIONS]"]
    usage = " ".join(words).translate({ord("{"): None, ord("}"): None})
    if getattr(command, "commands", None) is not None:
        usage = ""
    lines = [
        f'.SS "nicety {escaped(name)}"',
        ".PP",
        f"\\fBnicety {escaped(name)}\\fR [\\fIOPTION\\fR ...] {escaped(usage)}".rstrip(),
    ]
    lines += paragraphs(command.help or "")
    lines += options(command, context)
    if name == "train":
        lines += [".PP", "Its options are listed by \\fBnicety train \\-\\-help\\fR."]
    if command.epilog:
        _, _, example = command.epilog.partition("Example: ")
        lines += [".PP", f"Example: \\fB{escaped(example)}\\fR"]
    return lines


def paragraphs(text: str) -> list[str]:
    """Text whose paragraphs are apart by empty lines."""
    return [line for part in re.split(r"\n\s*\n", text.strip()) if part for line in (".PP", quoted(" ".join(part.split())))]


def options(command: Any, context: Any) -> list[str]:
    """The arguments and options of a command with their help."""
    left_out = HIDDEN if context.parent is None and context.info_name == "nicety" else HIDDEN | COMMON
    lines = []
    for each in command.get_params(context):
        record = None if left_out & set(each.opts) else each.get_help_record(context)
        if record is not None:
            words = each.metavar if each.param_type_name == "argument" else record[0]
            lines += [".TP", f"\\fB{escaped(words.strip())}\\fR", quoted(" ".join(record[1].split())) or "\\&"]
    return lines


def listed(rows: tuple[tuple[str, str], ...]) -> list[str]:
    """A list of words and their meaning."""
    return [line for word, text in rows for line in (".TP", f"\\fB{escaped(word)}\\fR", quoted(text))]


def page_of_keys(date: str) -> str:
    """nicety.toml(5)."""
    lines = [*title("nicety.toml", 5, date), ".SH NAME", "nicety.toml \\- configuration of nicety"]
    lines += [".SH SYNOPSIS", ".I /etc/nicety/nicety.toml", ".br", f".I {escaped('~/.config/nicety/nicety.toml')}"]
    lines += [".SH DESCRIPTION", *paragraphs(reference.INTRODUCTION)]
    for name, section in reference.all_sections():
        lines += [f'.SH "[{escaped(name)}]"', *paragraphs(section.__doc__ or "")]
        for key in reference.keys(section):
            kind = f"{key.type}, {key.limits}" if key.limits else key.type
            lines += [
                ".TP",
                f"\\fB{escaped(key.name)}\\fR ({escaped(kind)}; {escaped(_default(key.default))})",
                quoted(key.description),
            ]
    lines += [".SH FILES", *listed(FILES[:2]), ".SH SEE ALSO", ".BR nicety (1)"]
    return joined(lines)


def _default(value: Any) -> str:
    return "must be given" if value is msgspec.NODEFAULT else f"default {reference.shown(value).strip('`')}"


def completion(shell: str) -> str:
    """The file that completes `nicety` in a shell; one of `SHELLS`."""
    text: str = typers.get_completion_script(  # type: ignore[attr-defined]  # its own way to make a file
        prog_name="nicety", complete_var="_NICETY_COMPLETE", shell=shell
    )
    # zsh loads the file at the first completion, and expects that one of it, too.
    return f"{text.strip()}\n" + ('_nicety_completion "$@"\n' if shell == "zsh" else "")


def main() -> int:
    """Write all files below the directory that is named. Their date is $SOURCE_DATE_EPOCH or today."""
    if len(sys.argv) != 2:
        print("usage: python -m nicety.scheduler.cli.system_files DIRECTORY", file=sys.stderr)
        return 2
    seconds = os.environ.get("SOURCE_DATE_EPOCH")
    date = (datetime.fromtimestamp(int(seconds), UTC) if seconds else datetime.now(UTC)).date().isoformat()
    made = {"man/man1/nicety.1": page_of_commands(date), "man/man5/nicety.toml.5": page_of_keys(date)}
    made |= {f"completion/{file}": completion(shell) for shell, file in SHELLS.items()}
    for name, text in made.items():
        path = Path(sys.argv[1]) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
