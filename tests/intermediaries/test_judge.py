"""The judge of what we say can complain, and does not complain of what is true."""

from __future__ import annotations

import dataclasses

import pytest

from intermediaries.judge import Truth, advice, wrong
from unbroken.core import advice as product

V2RAY = Truth(idle=(2, 4), proxy=True, version="HTTP/2", ping=0, ping_helps=True)
NGINX = dataclasses.replace(V2RAY, idle=(2, 2), proxy=False, ping_helps=False)
HTTP1 = dataclasses.replace(V2RAY, version="HTTP/1.1")
PINGED = dataclasses.replace(V2RAY, ping=10.0)
NO_TIMER = dataclasses.replace(V2RAY, idle=None)


@pytest.mark.parametrize(
    ("said", "truth", "reasons"),
    [
        ("something on the way cuts idle connections after about 4 s", V2RAY, []),
        ("something on the way cuts idle connections after about 9 s", V2RAY, ["the timer fires after 2 to 4 s"]),
        ("cuts idle connections after about 4 s", NO_TIMER, ["nothing on the way has an idle timer"]),
        ("turn PING on", V2RAY, []),
        ("turn PING on", PINGED, ["PING is on, every 10 s"]),
        ("turn PING on", NGINX, ["PING does not reach what cuts here"]),
        ("turn PING on", HTTP1, ["there is no PING over HTTP/1.1"]),
        ("say --ping 1", V2RAY, []),
        ("say --ping 10", V2RAY, ["the timer fires after 2 s"]),
        ("although PING kept them busy", V2RAY, ["no PING was sent"]),
        (
            "although PING kept them busy",
            PINGED,
            ["one PING in 10 s keeps nothing busy that is cut after 2 s"],
        ),
        ("although PING kept them busy", dataclasses.replace(NGINX, ping=1.0), []),
        ("bypass the proxy (--no-proxy)", V2RAY, []),
        ("bypass the proxy (--no-proxy)", NGINX, ["no proxy is configured"]),
        ("use an https endpoint that speaks HTTP/2", HTTP1, []),
        ("use an https endpoint that speaks HTTP/2", V2RAY, ["the endpoint speaks HTTP/2"]),
        ("over HTTP/1.1 no PING can prevent it", HTTP1, []),
        (
            "over HTTP/1.1 no PING can prevent it",
            V2RAY,
            ["PING does keep this path busy", "the connection is HTTP/2"],
        ),
        ("path dead, no answer to PING", PINGED, ["every path here is alive"] * 2),
        ("cut after 4.0 s, before any output (connection reset)", V2RAY, []),
        ("Traceback (most recent call last):", V2RAY, ["nothing may crash"]),
        ("a gateway answers HTTP 504 after about 2 s, which no PING can prevent", NGINX, []),
        (
            "a gateway answers HTTP 504 after about 2 s, which no PING can prevent",
            V2RAY,
            ["nothing here reads HTTP", "PING does keep this path busy"],
        ),
        ("it counts the answer's bytes alone", NGINX, []),
        ("it counts the answer's bytes alone", PINGED, ["PING does keep this path busy"]),
        ("cut after 4 s: pinging every 1.3 s from now on", PINGED, []),
        ("cut after 4 s: pinging every 1.3 s from now on", V2RAY, ["no PING is sent"]),
        ("cut after 4 s: pinging every 3 s from now on", PINGED, ["the timer fires after 2 s"]),
        ("before PING is sent, every 10 s: --ping 1", PINGED, []),
        ("before PING is sent, every 10 s: --ping 1", V2RAY, ["PING is asked for every 0 s"]),
        ("sooner than PING can keep them busy", PINGED, ["PING every 1.25 s keeps them busy"]),
        ("put `unbroken relay --heartbeat 1 --early-heartbeat` beside it", NGINX, []),
        ("put `unbroken relay --heartbeat 3` beside it", NGINX, ["a heartbeat as rare keeps nothing busy"]),
    ],
)
def test_a_claim_is_compared_with_what_is_configured(said: str, truth: Truth, reasons: list[str]) -> None:
    assert [found.reason for found in wrong([said, said], truth)] == reasons


def test_advice_in_words_that_are_not_known_is_told() -> None:
    assert [found.claim for found in wrong(["something on the way is amiss"], V2RAY)] == ["(advice)"]


@pytest.mark.parametrize("pinged", [True, False])
@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/2", ""])
def test_the_advice_of_today_is_recognised(pinged: bool, version: str) -> None:
    cuts = [product.SilentCut(at=at, silent=3.0, pinged=pinged, http_version=version) for at in range(3)]
    sentence = product.advice(cuts)
    assert advice([f"cut; {sentence}", sentence]) == [sentence]
    assert wrong([sentence], NO_TIMER)
