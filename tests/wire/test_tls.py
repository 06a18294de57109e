from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import trustme

from unbroken.errors import UsageError
from unbroken.wire.tls import client_context


def test_verifies_by_the_system_s_trust_store() -> None:
    context = client_context()
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)


@pytest.mark.parametrize("convert", [str, Path])
def test_verifies_by_a_file(convert: type, tmp_path: Path, authority: trustme.CA) -> None:
    path = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(path)
    context = client_context(convert(path))
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert len(context.get_ca_certs()) == 1


def test_verifies_nothing_when_told_so() -> None:
    context = client_context(False)
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_NONE, False)


def test_takes_a_context_as_it_is(client_tls: ssl.SSLContext) -> None:
    assert client_context(client_tls) is client_tls


def test_a_file_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot use the CA file '.*none.pem': No such file"):
        client_context(tmp_path / "none.pem")


def test_a_file_that_is_no_certificate(tmp_path: Path) -> None:
    (tmp_path / "some.pem").write_text("none here")
    with pytest.raises(UsageError, match="it holds no PEM certificate"):
        client_context(tmp_path / "some.pem")
