from __future__ import annotations

import shutil
import ssl
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from lab.clients import RawClient, text_of
from unbroken.lab import ScriptedAnswer, Upstream
from unbroken.lab.certificate import Authority


def trusting(authority: Authority) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.file))
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    return context


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_client_that_trusts_it_is_served(host: str, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    with (
        Upstream(answer=ScriptedAnswer(text="safe"), ssl_context=authority.server_context()) as upstream,
        RawClient(upstream.port, trusting(authority), host=host) as client,
    ):
        client.post()
        assert text_of(client.read_response()[1]) == "safe"


def test_nobody_else_trusts_it(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    with Upstream(ssl_context=Authority(tmp_path).server_context()) as upstream, pytest.raises(ssl.SSLError):
        RawClient(upstream.port, trusting(Authority(other)))


def test_programs_are_told_of_it(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    assert authority.environment()["SSL_CERT_FILE"] == str(tmp_path / "ca.pem")


@pytest.mark.skipif(sys.platform == "win32", reason="modes of POSIX")
def test_its_keys_are_for_the_user_alone(tmp_path: Path) -> None:
    Authority(tmp_path)
    assert stat.S_IMODE((tmp_path / "server.pem").stat().st_mode) == 0o600
    assert "PRIVATE" not in (tmp_path / "ca.pem").read_text()


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl")
def test_openssl_finds_nothing_wrong_with_it(tmp_path: Path) -> None:
    for _ in range(3):  # the numbers are drawn
        Authority(tmp_path)
        command = [
            "openssl",
            "verify",
            "-x509_strict",
            "-CAfile",
            str(tmp_path / "ca.pem"),
            str(tmp_path / "server.pem"),
        ]
        subprocess.run(command, check=True, capture_output=True)
