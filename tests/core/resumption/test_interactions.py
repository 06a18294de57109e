"""An interaction that runs in the background is taken up where its stream was cut, although few events have ids."""

from __future__ import annotations

import json
from typing import Any

import pytest

from core.playbook import COMMENT, Playbook, answers, brings, ends, fails, is_cancelled, is_lost, speaks
from unbroken.core.actions import EndTurn, Give, Send
from unbroken.core.dialects.interactions.resumption import MAX_IDS, InteractionsBookmark
from unbroken.core.failures import Failure
from unbroken.core.http import Request
from unbroken.core.sse import encode, parse
from unbroken.errors import StreamCut

URL = "https://api.example.com/v1beta/interactions"
HEADERS = ((b"x-goog-api-key", b"AIzaKey"), (b"Content-Type", b"application/json"))


def event(kind: str, name: str = "", **fields: Any) -> bytes:
    named = {"event_id": name} if name else {}
    return encode(json.dumps({**fields, **named, "event_type": kind}), event=kind)


def text(words: str, name: str = "") -> bytes:
    return event("step.delta", name, index=0, delta={"type": "text", "text": words})


CREATED = event("interaction.created", interaction={"id": "v1_x", "status": "in_progress"})
UPDATE = event("interaction.status_update", interaction_id="v1_x", status="in_progress")
START = event("step.start", index=0, step={"type": "model_output"})
STOP = event("step.stop", index=0)
NEXT = event("step.start", index=1, step={"type": "model_output"})
PRELUDE = CREATED + UPDATE + START
END = event("interaction.completed", interaction={"id": "v1_x", "status": "completed"})
LONG = text("a text of thirty-two characters, which comes again")


def asked(url: str = URL, **body: Any) -> Request:
    document = {"model": "m", "input": "Hi", "stream": True, "background": True, **body}
    return Request("POST", url, HEADERS, json.dumps(document).encode())


def spoken(*behind: bytes, **body: Any) -> Playbook:
    """A turn of which a text with an id was handed on, and what came behind it."""
    first = PRELUDE + text("Hel", "e_3")
    play = Playbook(request=asked(**body)) >> answers() >> brings(first) << speaks(first)
    for piece in behind:
        play >> brings(piece) << Give(piece)
    return play


def taken_up(play: Playbook, behind: str = "e_3") -> Playbook:
    """The stream is cut, and taken up behind an event."""
    play >> is_lost(Failure.RESET)
    *_, sent = play.rest()
    assert isinstance(sent, Send)
    assert sent.request is not None
    assert (sent.request.method, sent.request.body) == ("GET", b"")
    assert sent.request.url == f"{URL}/v1_x?stream=true&last_event_id={behind}"
    assert sent.request.headers == ((b"x-goog-api-key", b"AIzaKey"), (b"accept", b"text/event-stream"))
    return play >> answers()


def cut_for(why: str) -> Any:
    return fails(StreamCut, why)


class TestBehindAnEventWithAnId:
    def test_what_comes_is_handed_on(self) -> None:
        play = taken_up(spoken())
        play >> brings(text("lo", "e_4") + STOP) << Give(text("lo", "e_4") + STOP)
        play >> brings(END) << Give(END) >> ends() << EndTurn()
        assert [one.after for one in play.report.resumes] == ["e_3"]
        assert (play.report.replays, play.report.possibly_billed) == (0, 0)

    def test_in_the_middle_of_an_event(self) -> None:
        play = spoken() >> brings(text("lo", "e_4")[:40])
        taken_up(play) >> brings(text("lo", "e_4") + END) << Give(text("lo", "e_4") + END) >> ends() << EndTurn()

    def test_as_often_as_it_makes_progress(self) -> None:
        play = spoken()
        for number in range(3, 30):
            taken_up(play, f"e_{number}")
            play >> brings(text("x", f"e_{number + 1}")) << Give(text("x", f"e_{number + 1}"))
        assert len(play.report.resumes) == 27

    @pytest.mark.parametrize("preface", [CREATED + UPDATE, UPDATE, COMMENT + CREATED])
    def test_what_every_stream_begins_with_is_not_handed_on_again(self, preface: bytes) -> None:
        left = COMMENT if preface.startswith(COMMENT) else b""
        play = taken_up(spoken()) >> brings(preface + text("lo", "e_4"))
        play << Give(left + text("lo", "e_4"))

    def test_the_first_event_comes_only_once_even_with_an_id(self) -> None:
        named = event("interaction.created", "e_0", interaction={"id": "v1_x", "status": "in_progress"})
        play = taken_up(spoken()) >> brings(named + text("lo", "e_4")) << Give(text("lo", "e_4"))
        taken_up(play, "e_4")

    @pytest.mark.parametrize("behind", [(), (STOP, NEXT)])
    def test_events_that_had_come_are_not_handed_on_again(self, behind: tuple[bytes, ...]) -> None:
        play = taken_up(spoken(*behind)) >> brings(text("Hel", "e_3") + b"".join(behind) + text("lo", "e_4"))
        play << Give(text("lo", "e_4"))

    def test_nor_others_with_their_ids(self) -> None:
        taken_up(spoken()) >> brings(text("Hal", "e_3")) << cut_for("event e_3 came again, and was another")

    def test_ids_of_long_ago_are_forgotten(self) -> None:
        bookmark = InteractionsBookmark()
        events = parse(PRELUDE + b"".join(text("a", f"e_{number}") for number in range(MAX_IDS + 1)))
        for one in events:
            bookmark.read(one)
        for number, has_come_before in ((MAX_IDS, True), (1, True), (0, False)):
            bookmark.take_up()
            [again] = parse(text("a", f"e_{number}"))
            bookmark.read(again)
            assert bookmark.has_come_before == has_come_before

    def test_an_update_in_the_middle_is_handed_on(self) -> None:
        play = taken_up(spoken()) >> brings(text("lo", "e_4") + UPDATE) << Give(text("lo", "e_4") + UPDATE)
        play >> brings(END) << Give(END)


class TestEventsWithoutIds:
    @pytest.mark.parametrize("behind", [STOP, STOP + NEXT, STOP + NEXT + text("Hi"), LONG, LONG + text("!") + STOP])
    @pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
    def test_that_come_again_are_dropped(self, behind: bytes, line_end: bytes) -> None:
        again = (COMMENT + behind + text("lo", "e_9")).replace(b"\n", line_end)
        new = (COMMENT + text("lo", "e_9")).replace(b"\n", line_end)
        taken_up(spoken(behind)) >> brings(again) << Give(new)

    def test_one_by_one(self) -> None:
        play = taken_up(spoken(STOP, NEXT))
        play >> brings(STOP) >> brings(NEXT[:20]) >> brings(NEXT[20:] + text("Hi")) << Give(text("Hi"))

    def test_are_dropped_whatever_id_and_counts_they_have_now(self) -> None:
        again = event("step.stop", "e_4", index=0, metadata={"total_usage": {"total_tokens": 3}})
        play = taken_up(spoken(STOP)) >> brings(again + NEXT) << Give(NEXT)
        taken_up(play, "e_4") >> brings(NEXT + END) << Give(END)

    def test_of_which_one_has_an_id_now_leave_those_behind_it(self) -> None:
        play = taken_up(spoken(STOP, NEXT, text("Hi"))) >> brings(
            STOP + event("step.start", "e_5", index=1, step={"type": "model_output"})
        )
        play >> is_lost(Failure.RESET) << cut_for("too little had come behind the last event with an id")

    def test_that_are_cut_again_while_they_come_again(self) -> None:
        play = taken_up(spoken(STOP, NEXT)) >> brings(STOP)
        taken_up(play) >> brings(STOP + NEXT + END) << Give(END)

    def test_that_come_behind_a_stream_that_was_taken_up_come_again_too(self) -> None:
        play = taken_up(spoken(STOP)) >> brings(STOP + NEXT) << Give(NEXT)
        taken_up(play) >> brings(STOP + NEXT + END) << Give(END)

    @pytest.mark.parametrize("other", [NEXT, text("lo", "e_4"), END, LONG])
    def test_that_are_others_than_before_are_a_cut(self, other: bytes) -> None:
        play = taken_up(spoken(STOP)) >> brings(other)
        play << cut_for("other events came behind the last one with an id than before")

    @pytest.mark.parametrize("little", [text("Hi"), text("Hi") + text("Hi"), text("x" * 31)])
    def test_that_could_come_by_chance_are_never_taken_up(self, little: bytes) -> None:
        play = spoken(little) >> is_lost(Failure.RESET)
        play << cut_for("not resumed: too little had come behind the last event with an id to know it again")

    @pytest.mark.parametrize(
        ("behind", "other", "why"),
        [
            (STOP, event("step.start", index=2, step={"type": "thought"}), "step 0 is followed by step 2"),
            (STOP, START, "step 0 is followed by step 0"),
            (STOP, event("step.delta", "e_9", index=1, delta={"text": "x"}), "step 1 goes on, which has not begun"),
        ],
    )
    def test_without_a_step_that_is_missing(self, behind: bytes, other: bytes, why: str) -> None:
        taken_up(spoken(behind)) >> brings(behind + other) << cut_for(why)
        spoken(behind) >> brings(other) << Give(other) >> is_lost(Failure.RESET) << cut_for(f"not resumed: {why}")

    def test_until_another_has_one(self) -> None:
        play = spoken(text("Hi"), text("lo", "e_5"))
        taken_up(play, "e_5") >> brings(END) << Give(END)

    def test_without_any_id_nothing_is_taken_up(self) -> None:
        first = PRELUDE + LONG
        play = Playbook(request=asked()) >> answers() >> brings(first) << speaks(first)
        play >> is_lost(Failure.RESET) << cut_for("not resumed: no event with an id had come")

    def test_too_much_is_not_kept(self) -> None:
        bookmark = InteractionsBookmark()
        for piece in (CREATED, START, text("a", "e_1"), text("x" * 2**20), text("y")):
            [read] = parse(piece)
            bookmark.read(read)
        assert bookmark.obstacle == "too much had come behind the last event with an id"


class TestTheServersOwnError:
    BARE = (
        b'[{\n  "error": {\n    "code": 503,\n    "message": "Unavailable.",\n    "status": "UNAVAILABLE"\n  }\n}\n]\n'
    )

    @pytest.mark.parametrize("tail", [b"", b"\n", b"\n" + text("never")])
    def test_outside_of_events_cuts_the_stream_and_is_not_handed_on(self, tail: bytes) -> None:
        play = spoken() >> brings(text("lo", "e_4") + self.BARE + tail) << Give(text("lo", "e_4"))
        if tail in (b"", b"\n"):
            play = play >> ends() if not tail else play
        *_, sent = play.rest()
        assert isinstance(sent, Send)
        assert sent.request is not None
        assert sent.request.url.endswith("last_event_id=e_4")
        play >> answers() >> brings(END) << Give(END) >> ends() << EndTurn()

    def test_is_told_where_it_cannot_be_taken_up(self) -> None:
        spoken(text("Hi")) >> brings(self.BARE + b"\n") << cut_for("the server broke it off: Unavailable.")

    def test_of_an_interaction_that_cannot_be_resumed_is_handed_on(self) -> None:
        play = spoken(background=False) >> brings(self.BARE + b"\n") << Give(self.BARE + b"\n")
        play >> ends() << EndTurn()

    def test_that_does_not_pass_is_the_interactions(self) -> None:
        bare = self.BARE.replace(b"503", b"400").replace(b"UNAVAILABLE", b"INVALID_ARGUMENT")
        spoken() >> brings(bare + b"\n") << Give(bare + b"\n") >> ends() << EndTurn()

    def test_as_an_event_is_the_interactions(self) -> None:
        error = event("error", error={"code": "gateway_timeout", "message": "Late."})
        spoken() >> brings(error) << Give(error) >> ends() << EndTurn()


class TestWhichAreResumed:
    @pytest.mark.parametrize("body", [{"background": False}, {"store": False}])
    def test_not_without_a_run_in_the_background(self, body: dict[str, Any]) -> None:
        play = spoken(**body) >> is_lost(Failure.RESET) << cut_for("the answer is not whole")
        assert play.report.resumes == ()

    def test_the_query_of_the_url_stays(self) -> None:
        first = PRELUDE.replace(b"v1_x", b"v1/x") + text("Hel", "e 3")
        play = Playbook(request=asked(f"{URL}?key=k")) >> answers() >> brings(first) << speaks(first)
        play >> is_lost(Failure.RESET)
        *_, sent = play.rest()
        assert isinstance(sent, Send)
        assert sent.request is not None
        assert sent.request.url == f"{URL}/v1%2Fx?key=k&stream=true&last_event_id=e+3"


class TestMadeToGoOn:
    """By ``Policy.background``, although the caller did not ask for it."""

    @staticmethod
    def begun(**body: Any) -> Playbook:
        document = {"model": "m", "input": "Hi", "stream": True, **body}
        request = Request("POST", URL, HEADERS, json.dumps(document).encode())
        play = Playbook(request=request, background=True)
        [sent] = [action for action in play.rest() if isinstance(action, Send)]
        assert sent.request is not None
        assert json.loads(sent.request.body) == {**document, "background": True}
        first = PRELUDE + text("Hel", "e_3")
        return play >> answers() >> brings(first) << speaks(first)

    def test_it_is_taken_up(self) -> None:
        taken_up(self.begun()) >> brings(END) << Give(END) >> ends() << EndTurn()

    @pytest.mark.parametrize(("body", "deletes"), [({}, False), ({"store": False}, True)])
    def test_it_is_cancelled_when_the_caller_leaves(self, body: dict[str, Any], deletes: bool) -> None:
        play = self.begun(**body) >> is_cancelled() << EndTurn()
        partings = [(one.kind, one.request.method, one.request.url) for one in play.turn.partings]
        cancel, delete = ("cancel", "POST", f"{URL}/v1_x/cancel"), ("delete", "DELETE", f"{URL}/v1_x")
        assert partings == [cancel, delete][: 1 + deletes]
