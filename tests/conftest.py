from __future__ import annotations

import contextlib
import os
import signal
import ssl
from collections.abc import Iterator

import hypothesis
import pytest
import trustme

import timing
import unbroken.wire.keepalive
from lanes import pytest_collection_modifyitems

__all__ = ["pytest_collection_modifyitems"]

# A shell ignores SIGINT and SIGQUIT in what it runs in the background, nohup SIGHUP; programs that tests start would
# inherit that, and the tests of signals would wait for what never comes.
signal.signal(signal.SIGINT, signal.default_int_handler)
for name in ("SIGQUIT", "SIGHUP"):
    with contextlib.suppress(AttributeError):  # Windows has neither
        signal.signal(getattr(signal, name), signal.SIG_DFL)

# The gate draws the same examples each time: it judges the change, not the draw. ``make explore`` draws new ones. A
# deadline would measure the machine.
hypothesis.settings.register_profile("gate", deadline=None, derandomize=True)
hypothesis.settings.register_profile("explore", deadline=None)
hypothesis.settings.load_profile(os.environ.get("UNBROKEN_HYPOTHESIS", "gate"))


@pytest.fixture(autouse=True)
def frequent_pings(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test has no time for one PING a second; that there are no more is tested in ``wire/test_keepalive.py``."""
    monkeypatch.setattr(unbroken.wire.keepalive, "MIN_INTERVAL", 0.0)


@pytest.fixture
def promptly() -> Iterator[timing.Control]:
    """``promptly(since, until)`` asserts that something came within 100 ms, compared with a control beside it."""
    with timing.control() as running:
        yield running


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="session")
def server_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "localhost", "::1").configure_cert(context)
    return context


@pytest.fixture
def client_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context
