"""A real v2ray on this machine: the local proxy whose idle timer cuts a turn while the model thinks."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ports import free_port
from real.parts import missing
from waiting import poll


@dataclass(frozen=True)
class V2Ray:
    """A running v2ray.

    Attributes:
        http_url: of its HTTP proxy.
        socks_url: of its SOCKS5 proxy.
    """

    http_url: str
    socks_url: str


def executable() -> str:
    """Where v2ray is installed; without it the test is skipped, or, where it must be there, failed."""
    found = shutil.which("v2ray")
    return found or missing("v2ray is not installed; on Debian and Ubuntu: apt-get install v2ray")


@contextmanager
def running(folder: Path, *, conn_idle: int) -> Iterator[V2Ray]:
    """Run v2ray with an HTTP and a SOCKS5 inbound on free ports.

    Args:
        folder: for its configuration and its log.
        conn_idle: seconds without a byte after which it cuts a connection; in fact, one to two times as many.
    """
    program = executable()
    http_port, socks_port = free_port(), free_port()
    config, log = folder / "v2ray.json", folder / "v2ray.log"
    config.write_text(json.dumps(_config(http_port, socks_port, conn_idle)))
    with log.open("wb") as output:
        process = subprocess.Popen([program, "-config", str(config)], stdout=output, stderr=subprocess.STDOUT)
        try:
            for port in (http_port, socks_port):
                _wait_until_listening(port, process, log)
            yield V2Ray(f"http://127.0.0.1:{http_port}", f"socks5h://127.0.0.1:{socks_port}")
        finally:
            process.kill()
            process.wait()


def _config(http_port: int, socks_port: int, conn_idle: int) -> dict[str, object]:
    idle = {"handshake": 4, "connIdle": conn_idle, "uplinkOnly": 1, "downlinkOnly": 1}
    return {
        "log": {"loglevel": "info"},
        "policy": {"levels": {"0": idle}},
        "inbounds": [
            {"listen": "127.0.0.1", "port": http_port, "protocol": "http", "settings": {"userLevel": 0}},
            {"listen": "127.0.0.1", "port": socks_port, "protocol": "socks", "settings": {"userLevel": 0}},
        ],
        "outbounds": [{"protocol": "freedom", "settings": {"userLevel": 0}}],
    }


def _wait_until_listening(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    def listening() -> bool:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert process.poll() is None, f"v2ray does not start: {log.read_text(errors='replace')[-2000:]}"
            return False
        return True

    poll(listening, every=0.02)
