"""What is answered with a status: waited out, handed on, and never followed."""

from __future__ import annotations

import dataclasses
import gzip
import json
from email.utils import formatdate

import pytest

from conformance.expectations import ANSWER, fails, is_handed_on, is_replayed, is_retried, is_whole
from conformance.faces import CLIENTS, DRIVERS, POLICY, Face
from conformance.fixtures import Setting
from unbroken.core.failures import Phase
from unbroken.errors import ProviderError, StreamCut, UnexpectedResponse
from unbroken.lab import Fault

BUSY = {"busy"}


@pytest.fixture
def plain(settings) -> Setting:
    """One transport: to a status they are all the same, as :func:`test_a_busy_server_is_asked_again` shows."""
    return settings("http1")


def status(number: int, headers: dict[str, str] | None = None, **error: str) -> Fault:
    return Fault("status", "before_headers", status=number, headers=headers or {}, error=error)


def test_a_busy_server_is_asked_again(face: Face, setting: Setting) -> None:
    upstream = setting.serve(status(503, {"retry-after": "0.03"}), status(429))
    outcome = face.run(setting.ask(upstream))
    is_retried(outcome, upstream, codes=BUSY, requests=3)
    assert outcome.told[0].delay == pytest.approx(0.03)


@pytest.mark.parametrize("code", [408, 409, 425, 429, 503, 529])
def test_statuses_that_may_pass(face: Face, plain: Setting, code: int) -> None:
    upstream = plain.serve(status(code))
    is_retried(face.run(plain.ask(upstream)), upstream, codes=BUSY)


@pytest.mark.parametrize("code", [500, 502, 599])
def test_statuses_of_a_server_that_may_have_worked(face: Face, plain: Setting, code: int) -> None:
    upstream = plain.serve(status(code))
    outcome = face.run(plain.ask(upstream))
    is_retried(outcome, upstream, codes=BUSY, billed="unknown")


@pytest.mark.parametrize("code", [504, 524])
def test_a_gateway_that_gave_up_waiting(face: Face, plain: Setting, code: int) -> None:
    """It was asked to wait for the server, so the server had the request: replayed, however soon it gave up."""
    upstream = plain.serve(status(code))
    is_replayed(face.run(plain.ask(upstream)), upstream, codes={"gateway_gave_up"})


@pytest.mark.parametrize(
    ("headers", "delay"),
    [
        ({"retry-after": "0.05"}, pytest.approx(0.05)),
        ({"retry-after-ms": "40"}, pytest.approx(0.04)),
        ({"retry-after-ms": "40", "retry-after": "30"}, pytest.approx(0.04)),
        ({"retry-after": "soon"}, pytest.approx(0.0075, abs=0.0025)),
        ({}, pytest.approx(0.0075, abs=0.0025)),
    ],
)
def test_how_long_is_waited(face: Face, plain: Setting, headers: dict[str, str], delay: object) -> None:
    upstream = plain.serve(status(503, headers))
    outcome = face.run(plain.ask(upstream))
    is_retried(outcome, upstream, codes=BUSY)
    assert outcome.told[0].delay == delay


@pytest.mark.parametrize("ask", ["61", "3600", formatdate(4_102_444_800, usegmt=True)])
def test_who_asks_for_too_much_patience_is_not_waited_for(face: Face, plain: Setting, ask: str) -> None:
    upstream = plain.serve(status(429, {"retry-after": ask}))
    is_handed_on(face.run(plain.ask(upstream)), upstream, status=429)


@pytest.mark.parametrize("code", [400, 401, 402, 403, 404, 405, 410, 413, 415, 422, 451])
def test_statuses_that_will_not_pass(face: Face, plain: Setting, code: int) -> None:
    upstream = plain.serve(status(code))
    outcome = face.run(plain.ask(upstream))
    is_handed_on(outcome, upstream, status=code)
    assert outcome.report.attempts[0].status == code


@pytest.mark.parametrize(
    "error",
    [
        {"type": "insufficient_quota", "code": "insufficient_quota"},
        {"message": "Insufficient Balance", "type": "unknown_error"},
    ],
)
def test_an_exhausted_quota_is_handed_on_at_once(face: Face, plain: Setting, error: dict[str, str]) -> None:
    upstream = plain.serve(status(429, {"retry-after": "30"}, **error))
    outcome = face.run(plain.ask(upstream))
    is_handed_on(outcome, upstream, status=429)
    if outcome.is_typed:
        assert isinstance(outcome.error, ProviderError)
        assert not outcome.error.retryable
        assert outcome.error.kind == error["type"]


def test_the_server_knows_best_whether_to_ask_again(face: Face, plain: Setting) -> None:
    upstream = plain.serve(
        status(400, {"x-should-retry": "true"}), status(503, {"x-should-retry": "false", "retry-after": "0.01"})
    )
    is_handed_on(face.run(plain.ask(upstream)), upstream, status=503, requests=2)


def test_when_the_retries_are_used_up_the_last_response_is_handed_on(face: Face, plain: Setting) -> None:
    upstream = plain.serve(*[status(503)] * 5)
    policy = dataclasses.replace(POLICY, retries=2)
    outcome = face.run(plain.ask(upstream, policy=policy))
    is_handed_on(outcome, upstream, status=503, requests=3)
    if outcome.is_typed:
        assert outcome.error is not None
        assert outcome.error.retryable


def test_a_late_refusal_may_have_been_billed(face: Face, plain: Setting) -> None:
    upstream = plain.serve(Fault("status", "before_headers", status=504, seconds=0.3))
    outcome = face.run(plain.ask(upstream, policy=dataclasses.replace(POLICY, slow_status_after=0.1)))
    is_replayed(outcome, upstream, codes={"gateway_gave_up"})


def test_a_late_refusal_is_handed_on_where_nothing_may_be_replayed(face: Face, plain: Setting) -> None:
    upstream = plain.serve(Fault("status", "before_headers", status=504, seconds=0.3))
    outcome = face.run(plain.ask(upstream, policy=dataclasses.replace(POLICY, slow_status_after=0.1, replays=0)))
    is_handed_on(outcome, upstream, status=504)


class TestARequestThatAlreadyIsARetry:
    """An SDK that retries by itself gets one attempt, or the two would multiply."""

    @pytest.mark.parametrize("count", ["1", "2"])
    def test_a_refusal_is_handed_on(self, face: Face, plain: Setting, count: str) -> None:
        upstream = plain.serve(status(503))
        outcome = face.run(plain.ask(upstream, headers={"x-stainless-retry-count": count}))
        is_handed_on(outcome, upstream, status=503)

    def test_a_cut_is_an_error(self, face: Face, plain: Setting) -> None:
        upstream = plain.serve(Fault("rst", "after_role"))
        outcome = face.run(plain.ask(upstream, headers={"X-Stainless-Retry-Count": "1"}))
        fails(outcome, upstream, StreamCut, requests=1)
        assert outcome.error is not None
        assert outcome.error.phase is Phase.PRELUDE

    def test_the_first_one_is_none(self, face: Face, plain: Setting) -> None:
        upstream = plain.serve(Fault("rst", "after_role"))
        is_replayed(face.run(plain.ask(upstream, headers={"x-stainless-retry-count": "0"})), upstream)


class TestAnotherAnswerThanWasAskedFor:
    @pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
    def test_a_redirect_is_handed_on_and_not_followed(self, face: Face, setting: Setting, code: int) -> None:
        upstream = setting.serve()
        target = f"{upstream.url}/chat/completions?key=secret"
        upstream = setting.serve(status(code, {"location": target}))
        outcome = face.run(setting.ask(upstream))
        is_handed_on(outcome, upstream, status=code)
        if outcome.is_typed:
            assert isinstance(outcome.error, UnexpectedResponse)
            assert "/v1/chat/completions" in str(outcome.error)
            assert "secret" not in str(outcome.error)

    def test_html_is_handed_on(self, face: Face, setting: Setting) -> None:
        page = Fault(
            "status", "before_headers", status=200, headers={"content-type": "text/html"}, body=b"<html>Log in</html>"
        )
        upstream = setting.serve(page)
        outcome = face.run(setting.ask(upstream))
        is_handed_on(outcome, upstream, status=200)
        if outcome.is_typed:
            assert isinstance(outcome.error, UnexpectedResponse)

    def test_html_that_is_cut_is_not_replayed(self, settings, face: Face) -> None:
        setting = settings("http1")
        page = b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 99999\r\n\r\n<html>"
        upstream = setting.serve(Fault("raw", "connect", body=page))
        outcome = face.run(setting.ask(upstream, headers={"Connection": "close"}))
        assert isinstance(outcome.error, StreamCut)
        assert len(upstream.requests) == 1
        assert (outcome.data or b"<html>").startswith(b"<html>")

    def test_json_is_handed_on(self, setting: Setting) -> None:
        choice = {"index": 0, "message": {"role": "assistant", "content": ANSWER}, "finish_reason": "stop"}
        body = json.dumps({"id": "1", "object": "chat.completion", "choices": [choice]}).encode()
        whole = Fault("status", "before_headers", status=200, headers={"content-type": "application/json"}, body=body)
        for face in DRIVERS:
            upstream = setting.serve(whole)
            is_handed_on(face.run(setting.ask(upstream)), upstream, status=200)
        for face in CLIENTS:
            upstream = setting.serve(whole)
            outcome = face.run(setting.ask(upstream))
            assert outcome.error is None
            assert outcome.text == ANSWER


def test_an_error_that_is_compressed_is_read(face: Face, plain: Setting) -> None:
    body = gzip.compress(json.dumps({"error": {"message": "No.", "type": "insufficient_quota"}}).encode())
    headers = {"content-encoding": "gzip"}
    upstream = plain.serve(Fault("status", "before_headers", status=429, headers=headers, body=body))
    outcome = face.run(plain.ask(upstream))
    assert len(upstream.requests) == 1
    if outcome.is_typed:
        assert isinstance(outcome.error, ProviderError)
        assert outcome.error.kind == "insufficient_quota"
    else:
        assert outcome.data == gzip.decompress(body)
        assert outcome.head is not None
        assert "content-encoding" not in outcome.head.fields


def test_identity_is_asked_for_whatever_the_caller_accepts(face: Face, plain: Setting) -> None:
    upstream = plain.serve()
    outcome = face.run(plain.ask(upstream, headers={"Accept-Encoding": "gzip, br"}))
    is_whole(outcome, upstream, requests=1)
    values = [value for name, value in upstream.requests[0].headers if name == "accept-encoding"]
    assert values == ["identity"]
