"""The doctor behind real proxies and servers, each with a timer that is known: its sentence is what is configured."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from intermediaries.doctor import Diagnosis, diagnosed, doctor
from intermediaries.kinds import BY_NAME, INTERMEDIARIES, TIMER, Intermediary
from intermediaries.running import Trust, connects, end, make_trust, running
from ports import free_port
from real.parts import missing
from unbroken.lab import CuttingProxy, Upstream
from waiting import poll

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("real intermediaries")]

CONFIGURED, LONGEST = 4, 14
"""Seconds: the timer of each intermediary, and the longest silence that is tried."""

AT_ONCE = 5

LENIENCE = 0.5
"""Seconds by which a measured limit may be short of the timer. It may be longer by more: the machine is busy."""

LEFT_OUT = {
    "dante": "its timer does not fire while other connections of the process are busy, as those of the test are",
}

NAMES = [one.name for one in INTERMEDIARIES if one.name not in LEFT_OUT]
CUTTING = [name for name in NAMES if BY_NAME[name].idle is not None]
PROXIES = [name for name in CUTTING if BY_NAME[name].scheme and name != "mitmproxy"]
"""Those through which a server on this machine is reached."""

TUNNELS = [name for name in CUTTING if not BY_NAME[name].scheme and BY_NAME[name].ping_helps]
READERS = [name for name in CUTTING if not BY_NAME[name].ping_helps]

NGINX_WITH_KEEPALIVE = """
daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log; worker_processes 1;
events {{ }}
http {{
  access_log off; client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
  uwsgi_temp_path {folder}; scgi_temp_path {folder};
  server {{
    listen 127.0.0.1:{port} ssl http2; ssl_certificate {pem}; ssl_certificate_key {pem};
    keepalive_timeout {timer}s; client_header_timeout {timer}s;
    location / {{ return 200 "{{}}"; }}
  }}
}}
"""


def installed(name: str) -> Intermediary:
    one = BY_NAME[name]
    if not one.installed:
        missing(f"{one.program} is not installed: {one.get}")
    return one


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder that programs can read which give up root's rights; pytest's own are closed to them."""
    with tempfile.TemporaryDirectory(prefix="unbroken-doctor-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(scope="module")
def trust(folder: Path) -> Trust:
    return make_trust(folder, "127.0.0.1", "localhost")


@pytest.fixture(scope="module")
def found(trust: Trust, folder: Path) -> dict[str, Diagnosis]:
    """What the doctor says behind each of those that are installed, some at a time."""

    def examine(name: str) -> Diagnosis:
        home = folder / name
        home.mkdir(mode=0o755)
        return diagnosed(BY_NAME[name], trust, home, CONFIGURED, LONGEST)

    there = [name for name in NAMES if BY_NAME[name].installed]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return dict(zip(there, pool.map(examine, there), strict=True))


@pytest.mark.parametrize("name", CUTTING)
def test_the_limit_is_the_configured_one(name: str, found: dict[str, Diagnosis]) -> None:
    idle = installed(name).idle
    told = found[name]
    assert idle is not None
    least, most = (seconds * CONFIGURED / TIMER for seconds in idle)
    assert (told.code, "path_cuts_idle" in told.codes) == (4, True)
    assert told.idle_limit is not None
    assert least - LENIENCE <= told.idle_limit <= max(10.0, most + 2.0)
    assert f"after about {told.idle_limit:g} s" in told.sentences


@pytest.mark.parametrize("name", PROXIES)
def test_a_proxy_that_cuts_is_named_and_so_is_what_keeps(name: str, found: dict[str, Diagnosis]) -> None:
    scheme = installed(name).scheme
    told = found[name].sentences
    assert told.startswith(f"the local proxy at {scheme}://127.0.0.1:")
    assert "HTTP/2 PING every 1 s keeps them" in told
    assert "TCP keepalive does not help: it tests only the hop to the proxy" in told
    assert "(Policy.ping_interval) comes in time" in told


@pytest.mark.parametrize("name", TUNNELS)
def test_a_server_in_between_is_told_from_a_proxy(name: str, found: dict[str, Diagnosis]) -> None:
    installed(name)
    told = found[name].sentences
    assert told.startswith("something on the way to 127.0.0.1:")
    assert "proxy at" not in told
    assert "by FIN" in told


@pytest.mark.parametrize("name", READERS)
def test_a_server_that_reads_http_is_told_and_ping_is_not_advised(name: str, found: dict[str, Diagnosis]) -> None:
    installed(name)
    told = found[name].sentences
    assert told.startswith("something that reads HTTP on the way to 127.0.0.1:")
    assert "SSE comments from the server keep them" in told
    assert "--ping " not in told


def test_a_proxy_without_a_timer_is_not_blamed(found: dict[str, Diagnosis]) -> None:
    installed("sing-box")
    told = found["sing-box"]
    assert (told.code, told.findings, told.idle_limit) == (0, [], None)


def test_a_proxy_that_reads_tls_is_named_as_that(found: dict[str, Diagnosis]) -> None:
    installed("mitmproxy")
    assert found["mitmproxy"].codes == ["tls_intercepted", "path_cuts_idle"]


# The far end's own timer


@contextmanager
def nginx(folder: Path, trust: Trust, timer: int) -> Iterator[int]:
    """Run nginx as a provider that keeps connections without a request for so many seconds."""
    program = shutil.which("nginx") or missing("nginx is not installed: apt-get install nginx")
    port = free_port()
    conf = folder / "nginx.conf"
    conf.write_text(NGINX_WITH_KEEPALIVE.format(folder=folder, port=port, pem=trust.pem, timer=timer))
    folder.chmod(0o777)  # its worker gives up root's rights
    process = subprocess.Popen([program, "-p", str(folder), "-c", str(conf)], stderr=subprocess.DEVNULL)
    try:
        poll(lambda: connects(port), 60.0, every=0.02)
        yield port
    finally:
        end(process)


@pytest.fixture(scope="module")
def polite(trust: Trust, folder: Path) -> dict[str, Diagnosis]:
    """What the doctor says of far ends with a timer of their own, behind proxies that have none, or a long one."""
    folder = folder / "far-ends"
    served = folder / "nginx"
    served.mkdir(parents=True)
    with ExitStack() as stack:
        goes = stack.enter_context(nginx(served, trust, CONFIGURED))
        healthy = stack.enter_context(CuttingProxy(idle=600))
        origin = stack.enter_context(Upstream(ssl_context=trust.server()))
        balanced = running(installed("haproxy-tcp"), origin.port, trust, folder / "haproxy", CONFIGURED)
        balancer = stack.enter_context(balanced)
        proxies = {"lab": healthy.url}
        for name in ("squid", "sing-box"):
            if BY_NAME[name].installed:
                port = stack.enter_context(running(BY_NAME[name], goes, trust, folder / name, 600))
                proxies[name] = f"http://127.0.0.1:{port}"
        common = ["--ca-file", str(trust.ca), "--max", str(LONGEST)]
        pool = stack.enter_context(ThreadPoolExecutor(AT_ONCE))
        cases = {(far, by): port for far, port in (("nginx", goes), ("balancer", balancer)) for by in proxies}
        futures = {
            f"{far} {by}": pool.submit(
                doctor,
                folder / f"{far}-{by}",
                "--base-url",
                f"https://127.0.0.1:{port}/v1",
                "--proxy",
                proxies[by],
                *common,
            )
            for (far, by), port in cases.items()
        }
        return {name: future.result() for name, future in futures.items()}


@pytest.mark.parametrize("by", ["lab", "squid", "sing-box"])
def test_a_far_end_with_a_timer_of_its_own_yields_no_blame_of_the_proxy(by: str, polite: dict[str, Diagnosis]) -> None:
    if f"nginx {by}" not in polite:
        installed(by)
    told = polite[f"nginx {by}"]
    assert (told.code, told.codes, told.idle_limit) == (0, ["far_end_timer"], None)
    assert "by GOAWAY" in told.sentences or "(GOAWAY)" in told.sentences
    assert "proxy" not in told.sentences


@pytest.mark.parametrize("by", ["lab", "squid", "sing-box"])
def test_a_balancer_before_the_far_end_is_not_taken_for_the_proxy(by: str, polite: dict[str, Diagnosis]) -> None:
    if f"balancer {by}" not in polite:
        installed(by)
    told = polite[f"balancer {by}"]
    assert told.codes == ["path_cuts_idle"]
    assert told.sentences.startswith("not the proxy, through which a server on this machine stays connected:")
    assert "it may be the far end's own" in told.sentences
