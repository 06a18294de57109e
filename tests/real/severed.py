"""A client and a server on two machines of their own, as far as the network goes, and the link between them."""

from __future__ import annotations

import ctypes
import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from real.parts import missing

SERVER = "10.203.77.2"
CLIENT, ANOTHER = "10.203.77.1", "10.203.77.3"
"""The addresses, which are the same in every pair: they share no network."""

_DEVICE = "veth0"
_NOBODY = "02:00:00:00:00:99"
_CLONE_NEWNET = 0x40000000
_NUMBERS = itertools.count()


class Link:
    """The link between two network namespaces, each of them a thread's whole network.

    Args:
        client, server: names of the namespaces.
    """

    def __init__(self, client: str, server: str) -> None:
        self.client = client
        self.server = server

    def cut(self) -> None:
        """Drop every packet, both ways; nobody is told: frames go to a hardware address that nobody has."""
        for name, other in ((self.client, SERVER), (self.server, CLIENT)):
            self._lead(name, other, _NOBODY)

    def mend(self) -> None:
        """Carry packets again."""
        for name, peer, other in ((self.client, self.server, SERVER), (self.server, self.client, CLIENT)):
            self._lead(name, other, _hardware_address(peer))

    def readdress(self) -> None:
        """Give the client another address, as another network does: what is under way on the old one is lost."""
        _ip("-n", self.client, "addr", "del", f"{CLIENT}/24", "dev", _DEVICE)
        _ip("-n", self.client, "addr", "add", f"{ANOTHER}/24", "dev", _DEVICE)
        self._lead(self.client, SERVER, _hardware_address(self.server))

    @staticmethod
    def _lead(namespace: str, neighbour: str, hardware: str) -> None:
        _ip("-n", namespace, "neigh", "replace", neighbour, "lladdr", hardware, "dev", _DEVICE, "nud", "permanent")


@contextmanager
def severed_link() -> Iterator[Link]:
    """Make the link; skip the test where that cannot be done."""
    if shutil.which("ip") is None or os.geteuid() != 0:
        missing("network namespaces, which need Linux, root and ip (apt-get install iproute2)")
    number = f"{os.getpid()}-{next(_NUMBERS)}"
    link = Link(f"ub-client-{number}", f"ub-server-{number}")
    try:
        try:
            for name in (link.client, link.server):
                _ip("netns", "add", name)
                _ip("-n", name, "link", "set", "lo", "up")
        except subprocess.CalledProcessError as exc:
            missing(f"network namespaces, which cannot be made here: {exc.stderr.decode().strip()}")
        pair = ("name", _DEVICE, "type", "veth", "peer", "name", _DEVICE, "netns", link.server)
        _ip("-n", link.client, "link", "add", *pair)
        for name, address in ((link.client, CLIENT), (link.server, SERVER)):
            _ip("-n", name, "addr", "add", f"{address}/24", "dev", _DEVICE)
            _ip("-n", name, "link", "set", _DEVICE, "up")
        link.mend()
        yield link
    finally:
        for name in (link.client, link.server):
            with suppress(subprocess.CalledProcessError):
                _ip("netns", "del", name)


@contextmanager
def inside(namespace: str) -> Iterator[None]:
    """Put this thread, and threads that it starts, into a namespace."""
    with open("/proc/thread-self/ns/net") as before, open(f"/var/run/netns/{namespace}") as there:  # noqa: PTH123
        _enter(there.fileno())
        try:
            yield
        finally:
            _enter(before.fileno())


def _enter(descriptor: int) -> None:
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, _CLONE_NEWNET):  # os.setns comes with Python 3.12
        raise OSError(ctypes.get_errno(), "setns")


def _hardware_address(namespace: str) -> str:
    words = _ip("-n", namespace, "-o", "link", "show", _DEVICE).split()
    return words[words.index("link/ether") + 1]


def _ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], capture_output=True, check=True).stdout.decode()
