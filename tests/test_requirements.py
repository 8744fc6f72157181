"""What is installed as a service is pinned: each package in one version, by hashes, and without a place to get it from."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCKS = {"service": [], "training": ["train"], "views": ["tui", "metrics", "web"]}
"""Files in requirements/ -> the extras of nicety that they are for, besides what it always needs."""


@dataclass(frozen=True)
class Pin:
    """One package of a lock."""

    version: Version
    hashes: tuple[str, ...]
    via: tuple[str, ...]  # what needs it


def pins(name: str) -> dict[str, Pin]:
    """The packages of a lock by name. A line in any other form than `name==version` with hashes is an error."""
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    found: dict[str, Pin] = {}
    for block in re.split(r"\n(?=[a-z0-9])", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).strip()):
        match = re.match(r"([a-z0-9][a-z0-9._-]*)==(\S+)(?: ; [^\\\n]+)? \\\n", block)
        assert match, block
        hashes = re.findall(r"^    --hash=sha256:([0-9a-f]{64})(?: \\)?$", block, re.MULTILINE)
        via = re.findall(r"^    #(?: via|  ) +([^\s#].*)$", block, re.MULTILINE)
        left = re.sub(r"^    (--hash=sha256:[0-9a-f]{64}( \\)?|#.*)$", "", block[match.end() :], flags=re.MULTILINE)
        assert not left.strip(), left
        found[match[1]] = Pin(Version(match[2]), tuple(hashes), tuple(each for each in via if not each.startswith("-c ")))
    assert len(found) >= len(PROJECT["dependencies"])
    return found


def wanted(extras: list[str]) -> list[Requirement]:
    """What pyproject.toml asks for."""
    texts = [*PROJECT["dependencies"], *(text for extra in extras for text in PROJECT["optional-dependencies"][extra])]
    return [Requirement(text) for text in texts]


@pytest.mark.parametrize("name", LOCKS)
def test_every_dependency_is_pinned_within_its_range(name: str) -> None:
    pinned = pins(name)
    for need in wanted(LOCKS[name]):
        assert pinned[canonicalize_name(need.name)].version in need.specifier, need


@pytest.mark.parametrize("name", LOCKS)
def test_every_package_has_the_hashes_of_its_files_and_is_needed(name: str) -> None:
    pinned = pins(name)
    for package, pin in pinned.items():
        assert len(set(pin.hashes)) == len(pin.hashes) >= 1, package
        assert pin.via, package
        for needs in pin.via:
            assert needs.startswith("nicety") or canonicalize_name(needs.partition("[")[0]) in pinned, (package, needs)


@pytest.mark.parametrize("name", LOCKS)
def test_what_a_pinned_package_needs_is_pinned(name: str) -> None:
    """By what the packages say that are installed here in the same version; others were resolved when the file was made."""
    pinned, checked = pins(name), 0
    for package, pin in pinned.items():
        try:
            if Version(version(package)) != pin.version:
                continue
        except PackageNotFoundError:
            continue
        checked += 1
        for text in requires(package) or ():
            need = Requirement(text)
            if need.marker is None or need.marker.evaluate({"extra": ""}):
                assert pinned[canonicalize_name(need.name)].version in need.specifier, (package, text)
    if not checked:
        pytest.skip("no package is installed here in the pinned version: run make requirements")


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_names_no_place_to_download_from(name: str) -> None:
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    assert (
        re.findall(r"https?:|@ |--(?:extra-)?index-url|--find-links|--trusted-host|-e |/", text.replace("-c requirements/", ""))
        == []
    )


def test_training_adds_packages_and_changes_none() -> None:
    service, training = pins("service"), pins("training")
    assert {name: training[name].version for name in service} == {name: pin.version for name, pin in service.items()}
    assert training.keys() - service.keys() >= {"scikit-learn", "jinja2"}


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_the_bill_of_materials_names_every_pinned_package(tmp_path: Path) -> None:
    folder = Path(sys.executable).parent
    if not (folder / "cyclonedx-py").exists():
        pytest.skip("needs cyclonedx-py: pip install -e '.[supply]'")
    out = tmp_path / "bill" / "sbom.json"
    make = ["make", "--no-print-directory", "--assume-old=.venv/supply-installed", f"BIN={folder}", f"SBOM={out}", "sbom"]
    subprocess.run(make, cwd=ROOT, check=True, timeout=120)
    bill = json.loads(out.read_text())
    assert bill["bomFormat"] == "CycloneDX"
    assert bill["metadata"]["component"]["name"] == "nicety"
    listed = {canonicalize_name(each["name"]): each["version"] for each in bill["components"]}
    assert listed == {name: str(pin.version) for name, pin in pins("training").items()}
    hashed = {canonicalize_name(each["name"]): len(each["externalReferences"][0]["hashes"]) for each in bill["components"]}
    assert hashed == {name: len(pin.hashes) for name, pin in pins("training").items()}
