"""Runs `guest/*_vm.py` in emulated machines: 8 CPUs, 2 memory nodes, cgroup v2, Debian's kernel, and this machine's systemd where
the units are tried; or a clean Debian with the package of `make deb`. Must not know what is tested.

The kernel is fetched from Debian as a package and unpacked, never installed. The guest sees this machine's root read-only (qemu
refuses its writes), with the checkout and its Python where they are. Needs no root, except to make that clean Debian.
`docs/testing-in-a-vm.md` says more.
"""

from __future__ import annotations

import argparse
import lzma
import os
import platform
import re
import shutil
import signal
import stat
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import package
from package import MissingError

CHECKOUT = Path(__file__).resolve().parents[2]
GUEST = Path(__file__).resolve().parent / "guest"

LAYOUTS = {
    "cores": "8,sockets=2,cores=4,threads=1",
    "smt": "8,sockets=2,cores=2,threads=2",
    "units": "8,sockets=2,cores=4,threads=1",
    "package": "8,sockets=2,cores=4,threads=1",
}
"""What `-smp` is given. CPUs 0-3 are the first socket and node in all. In `units` and `package` the first process is systemd."""

USUAL = ("cores", "smt", "units")
"""The layouts that are tried where none is named: these need neither root nor a package."""

TESTS = {"cores": "[!pu]*_vm.py", "smt": "[dt]*_vm.py", "units": "u*_vm.py", "package": "p*_vm.py"}
"""What is run where no file is named: in the second layout the daemon and the topology, for a weight does not depend on it."""

APPEND = (
    "console=ttyS0 quiet loglevel=3 panic=-1 nowatchdog clocksource=tsc tsc=reliable mitigations=off "
    "systemd.show_status=off systemd.firstboot=off"
)
"""What the kernel is told. Its first choice of a clock, an emulated HPET, and what it does against speculation cost much time; the
emulated time stamp counter is as good as the clock here."""

MODULES = ("virtio_pci", "9pnet_virtio", "9p")
"""What the kernel needs to see the shared root, besides what these need themselves."""

WANTED = re.compile(r"/vmlinuz-[^/]*$|/(virtio|9p|netfs|fscache)/[^/]*\.ko[^/]*$")
"""Files of the kernel's package that are kept."""

TOOLS = {
    "qemu-system-x86_64": "qemu-system-x86",
    "busybox": "busybox-static",
    "apt-get": "apt",
    "dpkg-deb": "dpkg",
    "systemd-sysusers": "systemd",
}
"""Programs and the Debian packages that they are from."""

XML = "/run/tmp/junit.xml"
"""Where pytest writes in the guest what became of each test."""

RESULTS = "-- results --"
"""The line before and after that file on the console: nothing else leads out of the guest."""

ESCAPES = re.compile(r"\x1b(c|\[[0-9;?]*[A-Za-z])")
"""With which the firmware clears a screen."""

INIT = """#!/bin/busybox sh
busybox mount -t proc proc /proc
busybox mount -t devtmpfs dev /dev
for module in $(busybox cat /modules/order); do busybox insmod /modules/$module || busybox echo "no module $module"; done
busybox mount -t 9p -o trans=virtio,version=9p2000.L,ro,cache=loose,msize=262144 root /root
busybox mount -t proc proc /root/proc
busybox mount -t sysfs sys /root/sys
busybox mount -t cgroup2 cgroup2 /root/sys/fs/cgroup
busybox mount -t devtmpfs dev /root/dev
busybox mkdir -p /root/dev/shm
busybox mount -t tmpfs tmpfs /root/dev/shm
busybox mount -t tmpfs -o mode=755 tmpfs /root/run
busybox mkdir -m 1777 /root/run/tmp
busybox cp /tests /root/run/tests
busybox ifconfig lo 127.0.0.1 up
busybox cp /begin /root/run/begin
exec busybox switch_root /root /bin/sh /run/begin
"""

CLEAN = """#!/bin/busybox sh
busybox mount -t proc proc /proc
busybox mount -t devtmpfs dev /dev
for module in $(busybox cat /modules/order); do busybox insmod /modules/$module || busybox echo "no module $module"; done
busybox mount -t tmpfs -o mode=755,size=90% tmpfs /root
busybox mkdir /root/host
busybox mount -t 9p -o trans=virtio,version=9p2000.L,ro,cache=loose,msize=262144 root /root/host
busybox tar -x -f /root/host{debian} -C /root
busybox cp /tests /begin /root/
busybox cp /tests.service /root/etc/systemd/system/
busybox ln -s /etc/systemd/system/tests.service /root/etc/systemd/system/multi-user.target.wants/
busybox ln -s /dev/null /root/etc/systemd/system/serial-getty@ttyS0.service
exec busybox switch_root /root /sbin/init
"""
"""The first process where the package is tried: it unpacks the clean Debian into memory, and begins it as any machine begins."""

BESIDE = """[Unit]
DefaultDependencies=no
After=basic.target dbus.service
[Service]
Type=oneshot
ExecStart=/bin/sh /begin
"""
"""The unit of the tests there."""

PACKAGE = """
exec > /dev/ttyS0 2>&1
mkdir -p -m 1777 /run/tmp
mkdir -p /run/systemd/system
printf '[Slice]\\nCPUWeight=50\\n' > /run/systemd/system/weighed.slice
systemctl daemon-reload
systemctl start weighed.slice
/bin/sh /tests
echo "guest ended with $?"
poweroff --force --force
"""
"""What it does. A slice with a weight has the cpu controller on."""

ALONE = """
echo "+cpu +cpuset" > /sys/fs/cgroup/cgroup.subtree_control
/bin/sh /run/tests
echo "guest ended with $?"
busybox poweroff -f
"""
"""What begins after that: the tests."""

UNITS = """
mount -t tmpfs -o mode=755 tmpfs /opt
mkdir /opt/python /opt/packages /opt/nicety
mount --bind {base} /opt/python
mount --bind {packages} /opt/packages
mount --bind {checkout} /opt/nicety
mkdir /run/etc /run/bin
for name in passwd group shadow gshadow nsswitch.conf ld.so.cache localtime; do cp -a /etc/$name /run/etc/; done
mount --bind /run/etc /etc
mount --bind /run/bin /usr/local/bin
mount -t tmpfs -o mode=755 tmpfs /var/lib
for name in /tmp /var/tmp; do mount -t tmpfs -o mode=1777 tmpfs $name; done
mkdir -p {checkout}
mount --bind /opt/nicety {checkout}
cat > /usr/local/bin/nicety <<'END'
#!/bin/sh
PYTHONPATH=/opt/nicety/src:/opt/packages PYTHONDONTWRITEBYTECODE=1 exec /opt/python/bin/python3 -m nicety.scheduler "$@"
END
chmod 755 /usr/local/bin/nicety
systemd-sysusers /opt/nicety/configs/nicety.sysusers
mkdir -p /run/units/nicety.service.d /run/units/nicety-hands.service.d
cd /run/units
for name in nicety nicety-hands; do
  printf '[Service]\nTimeoutStartSec=400\nStandardError=append:/run/tmp/%s.log\n' $name > $name.service.d/here.conf
done
cp /opt/nicety/configs/nicety*.service /opt/nicety/configs/nicety*.socket .
for name in sysinit basic shutdown sockets tests; do printf '[Unit]\nDefaultDependencies=no\n' > $name.target; done
printf 'Wants=tests.service weighed.slice\n' >> tests.target
printf '[Slice]\nCPUWeight=50\n' > weighed.slice
cat > tests.service <<'END'
[Unit]
DefaultDependencies=no
[Service]
Type=oneshot
ExecStart=/bin/sh -c '/bin/sh /run/tests > /dev/ttyS0 2>&1; echo "guest ended with $?" > /dev/ttyS0; busybox poweroff -f'
END
SYSTEMD_UNIT_PATH=/run/units exec /lib/systemd/systemd --unit=tests.target --log-target=console --show-status=no
"""
"""What begins where the units are tried: systemd, which knows only them and the tests. They see this Python and the checkout in
/opt, as in the documented installation: into /root and /tmp they may not look. A slice with a weight has the cpu controller on."""


def main() -> int:
    """Exit status of pytest in the guest, of the first layout that failed; 2 if there was no guest to ask."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, help="guest tests to run; all if none is named")
    parser.add_argument(
        "--layout", choices=[*LAYOUTS], action="append", help="CPU layout, may be repeated; each but package if none is named"
    )
    parser.add_argument("--package", default="linux-image-amd64", help="Debian package of the kernel")
    parser.add_argument("--limit", type=float, default=900, help="seconds that a guest may take")
    parser.add_argument("--pytest", default="", help="further options for pytest in the guest")
    asked = parser.parse_args()
    layouts = asked.layout or USUAL
    began = time.monotonic()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(2))  # so that `boot` ends the machine
    try:
        check_tools()
        kernel, modules = unpacked(asked.package, cache())
        statuses = {}
        for layout in layouts:
            files = [file.resolve() for file in asked.files] or sorted(GUEST.glob(TESTS[layout]))
            with tempfile.TemporaryDirectory(prefix="nicety-vm-") as scratch:
                initramfs = Path(scratch) / "initramfs"
                if layout == "package":
                    made = package_contents(modules, files, asked.pytest, Path(scratch))
                else:
                    begin = UNITS.format(base=sys.base_prefix, packages=sysconfig.get_path("purelib"), checkout=CHECKOUT)
                    tests = script(files, layout, asked.pytest)
                    made = contents(modules, INIT, {"tests": tests, "begin": begin if layout == "units" else ALONE})
                initramfs.write_bytes(b"".join(archive(made)))
                statuses[layout] = boot(kernel, initramfs, layout, asked.limit)
    except MissingError as missing:
        print(f"test-vm: {missing}", file=sys.stderr)
        return 2
    words = {layout: "passed" if status == 0 else f"FAILED ({status})" for layout, status in statuses.items()}
    said = ", ".join(f"{layout} {word}" for layout, word in words.items())
    print(f"test-vm: {said}; {kernel.name}, {time.monotonic() - began:.0f} s")
    return next((status for status in statuses.values() if status), 0)


def check_tools() -> None:
    """Raises MissingError with the command that installs what is not here."""
    if platform.machine() != "x86_64":
        raise MissingError(f"the emulated machine runs this machine's Python, so it needs an x86_64, not {platform.machine()}")
    packages = [package for program, package in TOOLS.items() if shutil.which(program) is None]
    busybox = shutil.which("busybox")
    if busybox is not None and b"/ld-linux" in Path(busybox).read_bytes()[:4096]:
        packages.append("busybox-static")  # the dynamic one has no libraries in the initramfs
    if packages:
        names = " ".join(packages)
        raise MissingError(f"not installed: {names}. Type: sudo apt-get install --no-install-recommends {names}")


def cache() -> Path:
    """Where unpacked kernels are kept."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base else Path.home() / ".cache") / "nicety-vm"


# --- the kernel -------------------------------------------------------------------------------------------------------------------


def unpacked(package: str, place: Path) -> tuple[Path, dict[str, bytes]]:
    """The kernel image of a package, and the modules by name in the order in which they are to be loaded. Fetched if not cached."""
    directory = place / versioned(package)
    if not (directory / "complete").exists():
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        fetch(directory.name, directory)
        (directory / "complete").touch()
    modules: dict[str, bytes] = {}
    for name in MODULES:
        load(name, directory, modules)
    return next(directory.glob("vmlinuz-*")), modules


def versioned(package: str) -> str:
    """The package that holds the kernel: linux-image-amd64 only depends on it."""
    told = subprocess.run(["apt-cache", "depends", package], capture_output=True, text=True, check=False)
    found = re.search(r"Depends: (linux-image-\d\S+)", told.stdout)
    if told.returncode != 0:
        raise MissingError(f"apt does not know the package {package}: {told.stderr.strip()} Type: sudo apt-get update")
    return found[1] if found else package


def fetch(package: str, directory: Path) -> None:
    """Download a package and take out of it the kernel and the file systems and buses that are modules."""
    print(f"test-vm: fetching {package}", flush=True)
    with tempfile.TemporaryDirectory(prefix="nicety-vm-") as scratch:
        # apt would become its own user, who may not write here: there is nothing to protect in one file
        command = ["apt-get", "--quiet", "--option", "APT::Sandbox::User=root", "download", package]
        got = subprocess.run(command, cwd=scratch, capture_output=True, text=True, check=False)
        packages = [*Path(scratch).glob("*.deb")]
        if got.returncode != 0 or not packages:
            raise MissingError(f"{package} could not be downloaded: {got.stderr.strip()} Type: sudo apt-get update")
        unpacking = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", packages[0]], stdout=subprocess.PIPE)
        with unpacking, tarfile.open(fileobj=unpacking.stdout, mode="r|") as tar:
            for member in tar:
                file = tar.extractfile(member) if WANTED.search(member.name) else None
                if file is not None:
                    (directory / Path(member.name).name).write_bytes(file.read())


def load(name: str, directory: Path, modules: dict[str, bytes]) -> None:
    """Put a module behind those that it names as its needs. One that the package does not have is part of the kernel itself."""
    files = [*directory.glob(f"{name}.ko*")]
    if name in modules or not files:
        return
    raw = files[0].read_bytes()
    content = lzma.decompress(raw) if files[0].suffix == ".xz" else raw
    depends = re.search(rb"\0depends=([^\0]*)\0", content)
    for need in depends[1].decode().split(",") if depends else ():
        if need:
            load(need, directory, modules)
    modules[name] = content


# --- the initramfs ----------------------------------------------------------------------------------------------------------------


def script(files: Iterable[Path], layout: str, options: str, before: str = "", python: str = f"{sys.prefix}/bin/python") -> str:
    """What the guest does when its root is mounted. `before`: where it has this machine's root; `python`: what runs pytest."""
    paths = f"{before}{CHECKOUT}/src:{before}{GUEST}"
    return "\n".join(
        (
            f"cd {before}{CHECKOUT}",
            "export HOME=/run/tmp TMPDIR=/run/tmp PATH=/usr/sbin:/usr/bin:/sbin:/bin OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE=1",
            "export HYPOTHESIS_STORAGE_DIRECTORY=/run/tmp/hypothesis",  # its plugin makes one at each start
            f"export NICETY_VM_LAYOUT={layout} PYTHONPATH={paths}"
            + (f":{before}{sysconfig.get_path('purelib')}" if before else ""),
            f"{python} -m pytest -p no:cacheprovider --color=no --junit-xml={XML} {options} "
            + " ".join(f"{before}{file}" for file in files),
            "status=$?",
            f"echo; echo {RESULTS}; cat {XML}; echo; echo {RESULTS}",
            "exit $status",
            "",
        )
    )


def package_contents(modules: Mapping[str, bytes], files: Iterable[Path], options: str, scratch: Path) -> dict[str, bytes]:
    """The files of the initramfs where the package is tried: in the guest, this machine's root is /host."""
    debian = package.clean_debian(cache())
    older = package.built()
    newer = package.next_version(older, scratch)
    names = f"export NICETY_VM_PACKAGES=/host{older}:/host{newer}\n"
    tests = names + script(files, "package", options, "/host", "python3")
    return contents(modules, CLEAN.format(debian=debian), {"tests": tests, "begin": PACKAGE, "tests.service": BESIDE})


def contents(modules: Mapping[str, bytes], init: str, files: Mapping[str, str]) -> dict[str, bytes]:
    """The files of the initramfs by path."""
    busybox = shutil.which("busybox")
    assert busybox is not None
    return {
        "init": init.encode(),
        **{name: text.encode() for name, text in files.items()},
        "bin/busybox": Path(busybox).read_bytes(),
        "modules/order": "".join(f"{name}\n" for name in modules).encode(),
        **{f"modules/{name}": content for name, content in modules.items()},
    }


def archive(files: Mapping[str, bytes]) -> Iterator[bytes]:
    """A cpio archive as Documentation/driver-api/early-userspace/buffer-format.rst has it."""
    for directory in ("bin", "dev", "modules", "proc", "root"):
        yield entry(directory, stat.S_IFDIR | 0o755, b"")
    for path, content in files.items():
        yield entry(path, stat.S_IFREG | 0o755, content)
    yield entry("TRAILER!!!", 0, b"")


def entry(path: str, mode: int, content: bytes) -> bytes:
    """One file of the archive; its inode number is 0, for nothing here has two links."""
    numbers = (0, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(path) + 1, 0)
    head = b"070701" + b"".join(b"%08X" % number for number in numbers) + path.encode() + b"\0"
    return head + bytes(-len(head) % 4) + content + bytes(-len(content) % 4)


# --- the machine ------------------------------------------------------------------------------------------------------------------


def boot(kernel: Path, initramfs: Path, layout: str, limit: float) -> int:
    """Run the machine until it is off or time is up, its console on our output. Exit status of the tests; 2 if it never told."""
    memory = 2048 if layout == "package" else 512  # MiB a node; a whole Debian and two versions of the package are in it
    command = [
        "qemu-system-x86_64",
        *("-accel", "tcg,thread=single"),  # with a thread a CPU, one boot in five crashed
        *("-cpu", "max,vendor=GenuineIntel", "-smp", LAYOUTS[layout]),  # of an AMD one Linux sees no SMT here
        *("-m", f"{2 * memory}M"),
        *("-object", f"memory-backend-ram,id=m0,size={memory}M", "-numa", "node,nodeid=0,cpus=0-3,memdev=m0"),
        *("-object", f"memory-backend-ram,id=m1,size={memory}M", "-numa", "node,nodeid=1,cpus=4-7,memdev=m1"),
        *("-virtfs", "local,path=/,mount_tag=root,security_model=none,readonly=on,multidevs=remap"),
        *("-kernel", str(kernel), "-initrd", str(initramfs)),
        *("-append", APPEND),
        *("-nodefaults", "-no-user-config", "-nographic", "-no-reboot", "-serial", "stdio"),
    ]
    print(f"test-vm: {layout}: -smp {LAYOUTS[layout]}", flush=True)
    machine = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    late = threading.Event()

    def stop() -> None:
        late.set()
        machine.kill()

    timer = threading.Timer(limit, stop)
    timer.start()
    status = 2
    results: list[str] | None = None
    try:
        assert machine.stdout is not None
        for line in machine.stdout:
            text = ESCAPES.sub("", line.decode(errors="replace")).rstrip("\r\n")
            ended = re.fullmatch(r"guest ended with (\d+)", text)
            if ended:
                status = int(ended[1])
            elif text == RESULTS:
                if results is not None:
                    keep(layout, "\n".join(results))
                results = [] if results is None else None
            elif results is not None:
                results.append(text)
            else:
                print(text, flush=True)
    finally:
        timer.cancel()
        machine.kill()
        machine.wait()
    if late.is_set():
        print(f"test-vm: {layout}: not done after {limit:.0f} s", flush=True)
    return status


def keep(layout: str, results: str) -> None:
    """Write what became of each test where `make test` writes it too."""
    place = CHECKOUT / "build"
    place.mkdir(exist_ok=True)
    (place / f"junit-vm-{layout}.xml").write_text(results)


if __name__ == "__main__":
    raise SystemExit(main())
