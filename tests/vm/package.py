"""The Debian package in a clean Debian, which is made once and kept: installed, upgraded, removed and purged in a chroot.

    make deb && sudo .venv/bin/python tests/vm/package.py

Needs root and `debootstrap`. `run.py --layout package` does the same, with the services, in an emulated machine; it takes the
clean Debian and the two packages from here.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]

SUITE = "bookworm"
"""The Debian that the package is for: its python3 is 3.11."""

WITH = ("systemd", "systemd-sysv", "dbus", "python3", "libstdc++6")
"""What a small server has beyond the smallest Debian."""

LEFT = (
    "etc/.pwd.lock",
    "etc/group-",
    "etc/gshadow-",
    "etc/passwd-",
    "etc/shadow-",
    "etc/subgid-",
    "etc/subuid-",
    "var/lib/dpkg/",
    "var/log/",
    "var/cache/ldconfig/",
    "run/",
    "tmp/",
)
"""What tells of any package that was ever there: backups of lists of users, dpkg's own files, logs. And what a boot empties."""


class MissingError(Exception):
    """Something that this needs is not on this machine; says how to get it."""


def built() -> Path:
    """The package of `make deb`, the newest if there are several."""
    found = sorted((CHECKOUT / "build").glob("nicety_*.deb"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise MissingError("there is no package to try. Type: make deb")
    return found[-1]


def version(package: Path) -> str:
    """The version of a package, by its own word."""
    return subprocess.check_output(["dpkg-deb", "--field", str(package), "Version"], text=True).strip()


def next_version(package: Path, place: Path) -> Path:
    """The same package as its next release would be: with a higher version, which its program names, and a unit that differs."""
    old = version(package)
    new = f"{old}.1"
    tree = place / "next"
    subprocess.run(["dpkg-deb", "--raw-extract", str(package), str(tree)], check=True)
    changed = {
        "DEBIAN/control": (f"\nVersion: {old}\n", f"\nVersion: {new}\n"),
        "usr/lib/nicety/lib/python3.11/site-packages/nicety/__init__.py": (f'"{old}"', f'"{new}"'),
        "lib/systemd/system/nicety.service": ("[Unit]\n", "[Unit]\n# The next release.\n"),
    }
    for name, (before, after) in changed.items():
        text = (tree / name).read_text()
        assert before in text, name
        (tree / name).write_text(text.replace(before, after, 1))
    made = place / f"nicety_{new}.deb"
    subprocess.run(
        ["dpkg-deb", "--build", "--root-owner-group", "-Znone", str(tree), str(made)], check=True, stdout=subprocess.DEVNULL
    )
    shutil.rmtree(tree)
    return made


def clean_debian(kept: Path) -> Path:
    """A tar file with a clean Debian, from the package sources of this machine. Made if it is not there: a minute."""
    file = kept / f"{SUITE}-{hashlib.sha256(' '.join(WITH).encode()).hexdigest()[:8]}.tar"
    if file.exists():
        return file
    if shutil.which("debootstrap") is None:
        raise MissingError("not installed: debootstrap. Type: sudo apt-get install --no-install-recommends debootstrap")
    asked = ["apt-get", "indextargets", "--format", "$(REPO_URI)", f"Codename: {SUITE}", "Created-By: Packages", "Component: main"]
    sources = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.split()
    if not sources:
        raise MissingError(
            f"apt knows no source of Debian {SUITE}: add one to /etc/apt/sources.list. Type then: sudo apt-get update"
        )
    kept.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="nicety-vm-") as scratch:
        root = Path(scratch) / "root"
        command = ["debootstrap", "--variant=minbase", f"--include={','.join(WITH)}", SUITE, str(root), sources[0]]
        print(f"package: making a clean Debian {SUITE}", flush=True)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise MissingError(f"debootstrap failed, it needs root and a network: {(done.stdout + done.stderr).strip()[-600:]}")
        for cached in (*(root / "var/cache/apt").rglob("*.*"), *(root / "var/lib/apt/lists").glob("*_*")):
            cached.unlink()
        unfinished = file.with_suffix(".unfinished")
        subprocess.run(["tar", "--create", "--file", str(unfinished), "--directory", str(root), "."], check=True)
        unfinished.rename(file)
    return file


def files(root: Path) -> dict[str, str]:
    """Path below a root -> what it is: mode, owner, and what it points to or holds. Not what is `LEFT`, nor other file systems."""
    here = root.stat().st_dev
    found = {}
    pending = [root]
    while pending:
        for path in pending.pop().iterdir():
            name = str(path.relative_to(root))
            status = path.lstat()
            if status.st_dev != here or f"{name}/".startswith(LEFT):
                continue
            if path.is_symlink():
                what = str(path.readlink())
            elif path.is_dir():
                what = ""
                pending.append(path)
            else:
                what = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
            found[name] = f"{status.st_mode:o} {status.st_uid}:{status.st_gid} {what}"
    return found


def differences(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """What is not as it was, one line each."""
    return [
        f"{name}: {before.get(name, 'was not there')} -> {after.get(name, 'is gone')}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]


class Chroot:
    """A clean Debian as a directory, in which commands are run with a /proc of their own."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def run(self, *command: str, status: int = 0) -> str:
        """What a command writes. Any other exit status than the expected is an error."""
        inside = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c"]
        inside += ['mount -t proc proc "$0/proc" && exec chroot "$0" "$@"', str(self.root), *command]
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
        done = subprocess.run(inside, capture_output=True, text=True, check=False, env=environment)
        said = done.stdout + done.stderr
        assert done.returncode == status, f"{' '.join(command)} ended with {done.returncode}: {said}"
        return said


def try_in_chroot(package: Path, kept: Path) -> None:
    """All that an administrator does with a package, where no service manager runs. An AssertionError says what went wrong."""
    with tempfile.TemporaryDirectory(prefix="nicety-vm-") as scratch:
        root = Path(scratch) / "root"
        root.mkdir()
        subprocess.run(["tar", "--extract", "--file", str(clean_debian(kept)), "--directory", str(root)], check=True)
        newer = next_version(package, Path(scratch))
        before = files(root)
        chroot = Chroot(root)
        for each in (package, newer):
            shutil.copy(each, root / "tmp")

        print(f"package: {package.name} is installed", flush=True)
        chroot.run("dpkg", "--install", f"/tmp/{package.name}")
        assert chroot.run("nicety", "--version").split()[-1] == version(package)
        assert "nicety" in chroot.run("cat", "/etc/passwd")
        report = chroot.run("sh", "-c", "nicety doctor; test $? = 0 -o $? = 3")
        assert re.search(r"configuration +ok +/etc/nicety/nicety.toml: 0 groups, 0 pools, observes", report), report
        assert "no daemon" in chroot.run("nicety", "status", status=1)
        assert "nicety" in chroot.run("bash", "-c", ". /usr/share/bash-completion/completions/nicety && complete -p nicety")
        assert (root / "etc/systemd/system/multi-user.target.wants/nicety.service").is_symlink()
        assert [*(root / "usr/lib/nicety").rglob("__pycache__")], "it was not compiled"

        print("package: it is upgraded, with a configuration of the administrator")
        config = root / "etc/nicety/nicety.toml"
        config.write_text("[daemon]\ninterval = 2.0\n")
        chroot.run("dpkg", "--install", f"/tmp/{newer.name}")
        assert chroot.run("nicety", "--version").split()[-1] == version(newer)
        assert config.read_text() == "[daemon]\ninterval = 2.0\n"

        print("package: it is removed and purged", flush=True)
        chroot.run("dpkg", "--remove", "nicety")
        assert config.exists()
        assert not (root / "usr/lib/nicety").exists()
        chroot.run("dpkg", "--purge", "nicety")
        left = differences(before, files(root))
        assert not left, "\n".join(left)


def main() -> int:
    """Exit status: 0, 1 if the package has a fault, 2 if it could not be tried."""
    from run import cache

    try:
        package = built()
        try_in_chroot(package, cache())
    except MissingError as missing:
        print(f"package: {missing}", file=sys.stderr)
        return 2
    except AssertionError as fault:
        print(f"package: {fault}", file=sys.stderr)
        return 1
    print(f"package: {package.name}: installed, upgraded, removed, purged: nothing left")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
