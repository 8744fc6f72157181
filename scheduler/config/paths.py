"""Where files lie: which configuration is read, and where state is kept. Creates nothing. Must not know the contents.

Environment and user id are arguments, so that a test can be any user.
"""

from __future__ import annotations

import difflib
import os
import pwd
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..hands.owner import BRAIN, HANDS, part_of
from .sections import Config, ConfigError, parse

SOCKET_PATH_LIMIT = 107
"""Longest path of a unix socket in bytes: sizeof(sun_path) - 1, unix(7)."""


SYSTEM_CONFIG = Path("/etc/nicety/nicety.toml")
"""The configuration of the machine, for anyone who has none of their own."""

_STATE = Path(".local", "state", "nicety")
"""The state directory in a home directory (XDG Base Directory Specification)."""


class PathError(Exception):
    """A file or directory cannot be used; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Paths:
    """The files of one state directory.

    A daemon of one user has all of them in it. The two units have a user each, so there the directory has a part for each of the
    two: `hands` and `brain`.
    """

    root: Path
    socket: Path
    said: str = ""  # why the state is not in its usual place, "" if it is

    @property
    def hands(self) -> Path:
        """Directory of the ledger and its lock."""
        return Path(part_of(str(self.root), HANDS))

    @property
    def stores(self) -> Path:
        """Directory of everything else."""
        return Path(part_of(str(self.root), BRAIN))

    @property
    def traces(self) -> Path:
        """Directory of the trace store."""
        return self.stores / "traces"

    @property
    def decisions(self) -> Path:
        """The decision log."""
        return self.stores / "decisions.db"

    @property
    def ledger(self) -> Path:
        """The ledger of original values."""
        from ..hands.ledger import NAME  # here, because commands that only read do without a ledger

        return self.hands / NAME

    @property
    def models(self) -> Path:
        """Directory of promoted artefacts."""
        return self.stores / "models"


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration and where it came from."""

    config: Config
    path: Path | None  # None: no file, the defaults are in force


def find_config(explicit: str | None, environment: Mapping[str, str], uid: int) -> Path | None:
    """The configuration file to read; None means the defaults.

    In this order: `explicit`, $NICETY_CONFIG, for users $XDG_CONFIG_HOME/nicety/nicety.toml, /etc/nicety/nicety.toml. The working
    directory is not searched: a file there must not decide what a daemon runs.
    """
    named = explicit or environment.get("NICETY_CONFIG")
    if named:
        return Path(named)
    try:
        candidates = _candidates(environment, uid)
    except PathError:
        candidates = [SYSTEM_CONFIG]  # a service whose user exists only while it runs has no home directory
    return next((path for path in candidates if os.path.isfile(path)), None)  # noqa: PTH113 - false where it may not be looked


def _candidates(environment: Mapping[str, str], uid: int) -> list[Path]:
    """Where a configuration file may be, the preferred place first."""
    if uid == 0:
        return [SYSTEM_CONFIG]
    base = environment.get("XDG_CONFIG_HOME")
    return [(Path(base) if base else _home(environment) / ".config") / "nicety" / "nicety.toml", SYSTEM_CONFIG]


def place_of_config(explicit: str | None, environment: Mapping[str, str], uid: int) -> Path:
    """The configuration file to write: the one that is read, else where a new one is found. For a user that is below
    $XDG_CONFIG_HOME. Raises PathError for a user without a home directory."""
    found = find_config(explicit, environment, uid)
    return _candidates(environment, uid)[0] if found is None else found


def load_config(explicit: str | None, environment: Mapping[str, str], uid: int) -> Loaded:
    """Find, read and parse the configuration.

    Raises ConfigError with every problem in it, PathError if the file cannot be read or is not safe to use.
    """
    path = find_config(explicit, environment, uid)
    return Loaded(Config(), None) if path is None else Loaded(read_config(path, uid), path)


def read_config(path: Path, uid: int) -> Config:
    """Read and parse one file. A reload calls this. Errors as in `load_config`."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read()
    except OSError as error:
        raise PathError(f"configuration {path}: {error.strerror}; check the path, or leave --config out for the defaults") from None
    if uid == 0 and stat.S_ISREG(mode) and mode & stat.S_IWOTH:
        raise PathError(f"configuration {path}: everybody may write it, so root does not use it; run `chmod o-w {path}`")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError([f"{path}:{line}: not UTF-8 (byte {data[error.start]:#04x}); save the file as UTF-8"]) from None
    return parse(text, str(path), uid_of)


def uid_of(name: str) -> int:
    """The uid of a user, by the machine's database of users. Raises LookupError as `sections.UidOf` asks."""
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        close = difflib.get_close_matches(name, [entry.pw_name for entry in pwd.getpwall()], n=1, cutoff=0.5)
        hint = f'did you mean "{close[0]}"?' if close else "give the uid if the user is made later"
        raise LookupError(f'no user is called "{name}"; {hint}') from None


def state_paths(config: Config, explicit: str | None, environment: Mapping[str, str], uid: int) -> Paths:
    """The files of the state directory: `explicit`, $NICETY_STATE_DIR, the configuration's, else the default of the user.

    If the user may not write $HOME (`sudo -u` and `su` can leave root's), the home directory of the password database is used, and
    `said` reports that. Raises PathError if that directory cannot be used either.
    """
    named = explicit or environment.get("NICETY_STATE_DIR") or config.daemon.state_dir
    said = ""
    if named:
        root = Path(named).expanduser().absolute()
    elif uid == 0:
        root = Path("/var/lib/nicety")
    elif environment.get("XDG_STATE_HOME"):
        root = Path(environment["XDG_STATE_HOME"]) / "nicety"
    else:
        root, said = _own_state(_home(environment), uid)
    stores = Path(part_of(str(root), BRAIN))
    socket = Path(config.daemon.socket).expanduser().absolute() if config.daemon.socket else stores / "control.sock"
    return Paths(root, socket, said)


def _own_state(home: Path, uid: int) -> tuple[Path, str]:
    """(state directory in a home directory that the user may write, a message if that is not `home`)."""
    root = home / _STATE
    if _writable(root, home, uid):
        return root, ""
    cause = f"uid {uid} may not write {home} ($HOME)"
    try:
        own = Path(pwd.getpwuid(uid).pw_dir)
    except KeyError:
        raise PathError(f"{cause}, and the password database has no home directory for it; give --state-dir DIR") from None
    if own == home or not own.is_dir() or not _writable(own / _STATE, own, uid):
        raise PathError(f"{cause}, nor {own}; give --state-dir DIR")
    return own / _STATE, f"{cause}: the state is kept in {own / _STATE}"


def _writable(root: Path, home: Path, uid: int) -> bool:
    """Whether the user may write `root`, or the nearest directory up to `home` that exists. True if none does."""
    for path in (root, *root.parents):
        try:
            status = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            if path == home:
                return True
            continue
        except OSError:
            return False
        bits = stat.S_IWUSR | stat.S_IXUSR
        if status.st_uid != uid:
            bits >>= 3 if status.st_gid in os.getgroups() else 6
        return status.st_mode & bits == bits
    return True


def _home(environment: Mapping[str, str]) -> Path:
    home = environment.get("HOME")
    if home:
        return Path(home)
    try:
        return Path.home()
    except RuntimeError:
        raise PathError("there is no home directory ($HOME is not set); give --state-dir and --config") from None
