"""A test in namespaces of its own: it may mount, fill and starve what it likes, and nothing of it is left.

`apart` runs its test again in a child of unshare(1) with mounts and, if asked for, a network that nobody
else sees; both end with that process, however it ends. Where that is not allowed (no root, a container
that forbids it) the test is skipped with the reason. `small_disk` makes a file system of some megabytes in
a file and mounts it there.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

INSIDE = "EMASS_TEST_APART"
CHILD_SECONDS = 240.0
ROOT = Path(__file__).resolve().parents[2]
CURE = "run the tests as root on Linux, where unshare and mount are allowed"


def apart(*kinds: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Run the decorated test in its own namespaces: of "mount", "net"."""

    def decorate(test: Callable[..., Any]) -> Callable[..., Any]:
        if os.environ.get(INSIDE):
            return test

        def run_apart(request: pytest.FixtureRequest) -> None:
            if trouble := _trouble(kinds):
                pytest.skip(f"namespaces absent: {trouble}; cure: {CURE}")
            arguments = [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider"]
            done = subprocess.run(
                [*_unshare(kinds), *arguments, request.node.nodeid],
                cwd=ROOT,
                env=os.environ | {INSIDE: "1"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=CHILD_SECONDS,
                check=False,
            )
            print(done.stdout)
            if done.returncode:
                pytest.fail(f"in its namespaces: {done.stdout}\n{done.stderr}", pytrace=False)

        run_apart.__name__, run_apart.__doc__, run_apart.__module__ = (
            test.__name__,
            test.__doc__,
            test.__module__,
        )
        vars(run_apart).update({key: value for key, value in vars(test).items() if key == "pytestmark"})
        return run_apart

    return decorate


def small_disk(folder: Path, octets: int) -> Path:
    """A file system of its own for the test, mounted below `folder`. Only inside `apart("mount")`."""
    image, place = folder / "disk.img", folder / "disk"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(octets)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(image)], check=True, capture_output=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(place)], check=True, capture_output=True)
    return place


def remount(place: Path, option: str) -> None:
    """Make the file system "ro" or "rw"."""
    subprocess.run(["mount", "-o", f"remount,{option}", str(place)], check=True, capture_output=True)


def few_ports(first: int, last: int) -> None:
    """A network with a loopback and so many ephemeral ports. Only inside `apart("net")`."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True, capture_output=True)
    Path("/proc/sys/net/ipv4/ip_local_port_range").write_text(f"{first} {last}")


def _unshare(kinds: tuple[str, ...]) -> list[str]:
    return ["unshare", *(f"--{kind}" for kind in kinds), "--"]


@cache
def _trouble(kinds: tuple[str, ...]) -> str:
    """Why this cannot be done here, or nothing."""
    needed = [
        "unshare",
        *(["mkfs.ext4", "mount"] if "mount" in kinds else []),
        *(["ip"] if "net" in kinds else []),
    ]
    for program in needed:
        if shutil.which(program) is None:
            return f"no {program}"
    script = "true"
    if "mount" in kinds:
        script = (
            "d=$(mktemp -d) && truncate -s 8M $d/i && mkfs.ext4 -q $d/i && mkdir $d/m && "
            "mount -o loop $d/i $d/m && umount $d/m && rm -r $d"
        )
    done = subprocess.run(
        [*_unshare(kinds), "sh", "-c", script], capture_output=True, text=True, timeout=30, check=False
    )
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["unshare failed"])[-1]
