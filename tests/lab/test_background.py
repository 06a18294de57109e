"""The lab's server keeps Responses that are asked for with ``background``: they are resumed, cancelled and deleted."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx
import pytest

from unbroken.lab import Background, Fault, ScriptedAnswer, Upstream

ANSWER = ScriptedAnswer(text=["one", " two", " three"])
ASKED = {"model": "lab", "input": "Hi", "stream": True, "background": True}


def numbers(stream: bytes) -> list[int]:
    return [int(number) for number in re.findall(rb'"sequence_number": (\d+)', stream)]


def ask(upstream: Upstream, **fields: Any) -> httpx.Response:
    return httpx.post(f"{upstream.url}/responses", json=ASKED | fields)


def rest(upstream: Upstream, after: int) -> httpx.Response:
    return httpx.get(f"{upstream.url}/responses/resp_lab_1?stream=true&starting_after={after}")


def test_the_rest_is_byte_for_byte_what_followed() -> None:
    with Upstream(answer=ANSWER, background=Background()) as upstream:
        whole = ask(upstream).content
        assert numbers(whole) == list(range(len(numbers(whole))))
        events = whole.split(b"\n\n")
        for after in range(-1, len(events) - 1):
            assert rest(upstream, after).content == b"\n\n".join(events[after + 1 :])
        assert (len(upstream.requests_for("generation")), len(upstream.requests_for("resume"))) == (1, len(events))


def test_a_stream_is_cut_after_so_many_events_also_when_it_is_resumed() -> None:
    faults = [Fault("clean_end", "after_events", offset=3), Fault("clean_end", "after_events", offset=2)]
    with Upstream(answer=ANSWER, background=Background(), faults=faults) as upstream:
        assert numbers(ask(upstream).content) == [0, 1, 2]
        assert numbers(rest(upstream, 2).content) == [3, 4]
        assert numbers(rest(upstream, 4).content)[0] == 5


def test_cutting_after_a_character_keeps_the_events_of_that_stream() -> None:
    fault = Fault("clean_end", "after_characters", offset=5)
    with Upstream(answer=ANSWER, background=Background(), faults=[fault]) as upstream:
        first = numbers(ask(upstream).content)
        assert numbers(rest(upstream, first[-1]).content)[0] == first[-1] + 1
        assert b'"delta": "wo"' in rest(upstream, first[-1]).content


@pytest.mark.parametrize(
    ("background", "expected"),
    [
        (Background(skips=frozenset({6})), [4, 5, 7, 8]),
        (Background(repeats=frozenset({6})), [4, 5, 6, 6, 7, 8]),
        (Background(rewinds=2), [2, 3, 4, 5, 6, 7, 8]),
    ],
)
def test_servers_that_do_not_go_on_exactly(background: Background, expected: list[int]) -> None:
    with Upstream(answer=ANSWER, background=background) as upstream:
        assert numbers(ask(upstream).content)[-1] > 8
        assert numbers(rest(upstream, 3).content)[: len(expected)] == expected


def test_the_first_stream_may_lack_an_event_too() -> None:
    with Upstream(answer=ANSWER, background=Background(first_skips=frozenset({5}))) as upstream:
        assert numbers(ask(upstream).content)[4:6] == [4, 6]


def test_a_response_is_told_cancelled_and_deleted() -> None:
    with Upstream(answer=ANSWER, background=Background()) as upstream:
        ask(upstream)
        url = f"{upstream.url}/responses/resp_lab_1"
        assert httpx.get(url).json()["status"] == "completed"
        assert httpx.post(f"{url}/cancel").json()["status"] == "cancelled"
        assert httpx.delete(url).json() == {"id": "resp_lab_1", "object": "response", "deleted": True}
        assert rest(upstream, 1).status_code == httpx.get(url).status_code == 404
        assert (len(upstream.requests_for("cancel")), len(upstream.requests_for("delete"))) == (1, 1)


def test_a_server_may_forget() -> None:
    with Upstream(answer=ANSWER, background=Background(forgets=True)) as upstream:
        ask(upstream)
        assert rest(upstream, 1).status_code == 404


@pytest.mark.parametrize(
    ("refuses", "fields", "named"),
    [
        ("background", {}, "background"),
        ("store", {"store": False}, "store"),
        ("store", {}, None),
        ("stored", {}, "store"),
        ("stored", {"store": False}, None),
        ("background", {"background": False}, None),
    ],
)
def test_fields_that_are_refused(refuses: Any, fields: dict[str, Any], named: str | None) -> None:
    with Upstream(answer=ANSWER, background=Background(refuses=refuses)) as upstream:
        response = ask(upstream, **fields)
        assert response.status_code == (400 if named else 200)
        assert named is None or json.loads(response.content)["error"]["param"] == named


class TestInteractions:
    """Their events are found by ids, which not all of them have."""

    @staticmethod
    def begun(upstream: Upstream) -> bytes:
        return httpx.post(f"{upstream.origin}/v1beta/interactions", json=ASKED).content

    def test_the_rest_is_byte_for_byte_what_followed(self) -> None:
        with Upstream(answer=ANSWER, background=Background()) as upstream:
            events = self.begun(upstream).split(b"\n\n")
            url = f"{upstream.origin}/v1beta/interactions/v1_lab_1?stream=true"
            named = [re.search(rb'"event_id": "(e_[0-9]+)"', event) for event in events]
            places = {found[1].decode(): number for number, found in enumerate(named) if found}
            assert 0 < len(places) < len(events) - 1
            for place, number in places.items():
                assert httpx.get(f"{url}&last_event_id={place}").content == b"\n\n".join(events[number + 1 :])

    def test_one_is_told_cancelled_and_deleted(self) -> None:
        with Upstream(answer=ANSWER, background=Background()) as upstream:
            self.begun(upstream)
            url = f"{upstream.origin}/v1beta/interactions/v1_lab_1"
            assert httpx.get(url).json()["status"] == "completed"
            assert httpx.post(f"{url}/cancel").json()["status"] == "cancelled"
            assert httpx.delete(url).json() == {}
            assert httpx.get(url).status_code == 404
