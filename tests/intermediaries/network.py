"""Two network namespaces with a link between them, that can stop to carry anything. Linux, and root."""

from __future__ import annotations

import ctypes
import itertools
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

CLIENT, SERVER, ANOTHER = "10.203.0.1", "10.203.0.2", "10.203.0.3"
"""The addresses of the two ends, and another one for the client; every pair has the same, for nothing leaves it."""

DEVICE = "veth0"
"""The name of the link at both ends."""

NOBODY = "02:00:00:00:00:99"
"""A hardware address that no interface has: frames to it are dropped at the other end, without a word."""

CLONE_NEWNET = 0x40000000
_NUMBERS = itertools.count()

How = Literal["dropped", "link down"]


def impossible() -> str:
    """Return why namespaces cannot be made here, ``""`` if they can."""
    if shutil.which("ip") is None:
        return "needs Linux, and ip (apt-get install iproute2)"
    if os.geteuid() != 0:
        return "needs root, for network namespaces"
    try:
        _ip("netns", "add", name := f"ub{os.getpid()}probe")
        _ip("netns", "del", name)
    except subprocess.CalledProcessError as exc:
        return f"network namespaces cannot be made here: {exc.stderr.decode().strip()}"
    return ""


def remove_leftovers() -> None:
    """Remove the namespaces of runs that were killed."""
    for match in re.finditer(r"^ub(\d+)[cs]\d+", _ip("netns", "list"), re.MULTILINE):
        if not Path(f"/proc/{match[1]}").exists():
            subprocess.run(["ip", "netns", "del", match[0]], capture_output=True, check=False)


@dataclass(frozen=True)
class Network:
    """A client's and a server's namespace.

    Attributes:
        client: name of the client's.
        server: name of the server's.
    """

    client: str
    server: str

    def cut(self, how: How) -> None:
        """Let nothing pass, in either direction; nobody is told."""
        if how == "link down":
            _ip("-n", self.client, "link", "set", DEVICE, "down")
            return
        self._address(self.client, SERVER, NOBODY)
        self._address(self.server, CLIENT, NOBODY)

    def mend(self, how: How) -> None:
        """Let everything pass again."""
        if how == "link down":
            _ip("-n", self.client, "link", "set", DEVICE, "up")
        self._connect()

    def readdress(self) -> None:
        """Give the client another address, as another network does: what is under way on the old one is lost."""
        _ip("-n", self.client, "addr", "del", f"{CLIENT}/24", "dev", DEVICE)
        _ip("-n", self.client, "addr", "add", f"{ANOTHER}/24", "dev", DEVICE)
        self._address(self.client, SERVER, _hardware_address(self.server))

    def _connect(self) -> None:
        self._address(self.client, SERVER, _hardware_address(self.server))
        self._address(self.server, CLIENT, _hardware_address(self.client))

    @staticmethod
    def _address(namespace: str, neighbour: str, hardware: str) -> None:
        _ip("-n", namespace, "neigh", "replace", neighbour, "lladdr", hardware, "dev", DEVICE, "nud", "permanent")


@contextmanager
def network() -> Iterator[Network]:
    """Make two namespaces with a link between them, and remove them."""
    number = next(_NUMBERS)
    made = Network(f"ub{os.getpid()}c{number}", f"ub{os.getpid()}s{number}")
    try:
        for name in (made.client, made.server):
            _ip("netns", "add", name)
            _ip("-n", name, "link", "set", "lo", "up")
        pair = ("name", DEVICE, "type", "veth", "peer", "name", DEVICE, "netns", made.server)
        _ip("-n", made.client, "link", "add", *pair)
        for name, address in ((made.client, CLIENT), (made.server, SERVER)):
            _ip("-n", name, "addr", "add", f"{address}/24", "dev", DEVICE)
            _ip("-n", name, "link", "set", DEVICE, "up")
        made._connect()
        yield made
    finally:
        for name in (made.client, made.server):
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


@contextmanager
def inside(namespace: str) -> Iterator[None]:
    """Put this thread, and the threads and programs that it starts, into a namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/thread-self/ns/net") as before, open(f"/var/run/netns/{namespace}") as there:  # noqa: PTH123
        _enter(libc, there.fileno())
        try:
            yield
        finally:
            _enter(libc, before.fileno())


def _enter(libc: ctypes.CDLL, descriptor: int) -> None:
    if libc.setns(descriptor, CLONE_NEWNET):  # os.setns comes with Python 3.12
        raise OSError(ctypes.get_errno(), "setns")


def _hardware_address(namespace: str) -> str:
    told = _ip("-n", namespace, "-o", "link", "show", DEVICE).split()
    return told[told.index("link/ether") + 1]


def _ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], capture_output=True, check=True).stdout.decode()
