"""Who signed a certificate, read from its bytes; and names with which programs on the way sign."""

from __future__ import annotations

import ssl

import pytest
import trustme

from unbroken.doctor.certificate import Signer, signer_of


def der(authority: trustme.CA) -> bytes:
    pem = authority.issue_cert("127.0.0.1").cert_chain_pems[0].bytes().decode()
    return ssl.PEM_cert_to_DER_cert(pem)


def test_the_issuer_is_read() -> None:
    signer = signer_of(der(trustme.CA(organization_name="Example Trust", organization_unit_name="tests")))
    assert signer.organization == "Example Trust"
    assert str(signer) == "Example Trust"
    assert signer.intercepting == ""


def test_every_cut_of_a_certificate_is_read_without_an_error() -> None:
    whole = der(trustme.CA(organization_name="Example Trust"))
    for end in range(len(whole)):
        assert signer_of(whole[:end]) == Signer("", "")
    for at in range(0, len(whole), 7):
        signer_of(whole[:at] + b"\xff\xff\xff" + whole[at + 3 :])


@pytest.mark.parametrize(
    ("signer", "program"),
    [
        (Signer("mitmproxy", "mitmproxy"), "mitmproxy"),
        (Signer("Zscaler Inc.", "Zscaler Intermediate Root CA (zscaler.net)"), "Zscaler"),
        (Signer("", "Charles Proxy CA (1 Jan 2026, laptop)"), "Charles"),
        (Signer("Let's Encrypt", "R11"), ""),
        (Signer("Google Trust Services", "WE1"), ""),
        (Signer("", ""), ""),
    ],
)
def test_programs_that_read_tls_are_known_by_their_name(signer: Signer, program: str) -> None:
    assert signer.intercepting == program


def test_both_names_are_told() -> None:
    assert str(Signer("Google Trust Services", "WE1")) == "Google Trust Services (WE1)"
    assert str(Signer("", "")) == "an authority without a name"
