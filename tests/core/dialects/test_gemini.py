"""Gemini's dialect, beyond what is recorded of it (test_recordings.py)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.corpus import Recording, recordings
from core.dialects.replaying import CUTS, Cutter, attempted
from core.playbook import Playbook, again, answers, brings, ends, speaks
from unbroken.core.actions import EndTurn
from unbroken.core.answer import Answer
from unbroken.core.dialect import Call, Generation, Signal
from unbroken.core.dialects.gemini import GEMINI
from unbroken.core.dialects.gemini.decode import GeminiDecoder
from unbroken.core.dialects.gemini.rule import GeminiReader
from unbroken.core.events import (
    Failed,
    Finish,
    Reasoning,
    Signature,
    Text,
    ToolCallArguments,
    ToolCallStart,
    Usage,
    UsageReport,
)
from unbroken.core.failures import Failure
from unbroken.core.http import Request
from unbroken.core.sse import Event, encode
from unbroken.errors import MalformedEvent

URL = "https://api.example.com/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse"
STREAMS = recordings("gemini")


def event(**fields: Any) -> Event:
    return Event(json.dumps(fields).encode())


def candidate(*parts: Any, finish: str | None = None, index: int = 0, **fields: Any) -> Event:
    content = {"role": "model", "parts": list(parts)}
    return event(candidates=[{"content": content, "finishReason": finish, "index": index, **fields}])


def recognised(body: dict[str, Any], url: str = URL) -> Call:
    call = GEMINI.recognise(Request("POST", url, body=json.dumps(body).encode()))
    assert call is not None
    return call


def called(recording: Recording) -> Call:
    return recording.call(GEMINI, recording.facts.get("url", URL))


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
def test_an_error_outside_of_events_is_handed_on_as_an_error(cut: Cutter) -> None:
    recording = next(recording for recording in STREAMS if recording.name == "google-error-outside-of-events")
    attempt, given = attempted(called(recording), cut(recording))
    assert (attempt.failure, attempt.noted) == (None, Failure.TRANSIENT_ERROR)
    assert given == recording.body


# Recognising


class TestRecognising:
    @pytest.mark.parametrize(
        "path",
        [
            "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse",
            "/v1beta/models/gemini-2.5-flash:streamGenerateContent?key=secret&alt=sse&x",
            "/v1beta/models/gemini-2.5-flash%3AstreamGenerateContent?%24alt=sse",
            "/v1beta/tunedModels/mine-123:streamGenerateContent?alt=sse",
            "/v1/projects/p/locations/l/publishers/google/models/gemini-3-pro:streamGenerateContent?alt=sse",
            "/v1/publishers/google/models/gemini-3-pro:streamGenerateContent?alt=sse",
            "/v1/projects/p/locations/l/endpoints/123:streamGenerateContent?alt=sse",
            "/proxy/v1beta/models/google/gemini-2.5-flash:streamGenerateContent/?alt=sse",
        ],
    )
    def test_a_stream_of_events(self, path: str) -> None:
        call = recognised({}, "https://host" + path)
        assert (call.dialect, call.streaming, call.generation.choices, call.generation.acts) == (GEMINI, True, 1, False)

    @pytest.mark.parametrize("query", ["", "?key=secret", "?alt=sse"])
    def test_a_whole_answer(self, query: str) -> None:
        call = recognised({}, f"https://host/v1beta/models/gemini-2.5-flash:generateContent{query}")
        assert (call.dialect, call.streaming) == (GEMINI, False)

    @pytest.mark.parametrize(
        "path",
        [
            "/v1beta/models/gemini-2.5-flash:streamGenerateContent",
            "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=json",
            "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=",
            "/v1beta/models/gemini-2.5-flash:streamGenerateContent?salt=sse",
            "/v1beta/models/gemini-2.5-flash:countTokens?alt=sse",
            "/v1beta/models/gemini-2.5-flash:batchGenerateContent?alt=sse",
            "/v1beta/models/gemini-embedding-001:embedContent",
            "/v1beta/models/gemini-2.5-flash?alt=sse",
            "/v1internal:streamGenerateContent?alt=sse",
            "/v1beta/interactions?alt=sse",
        ],
    )
    def test_nothing_else(self, path: str) -> None:
        assert GEMINI.recognise(Request("POST", "https://host" + path, body=b"{}")) is None

    @pytest.mark.parametrize(
        ("method", "body"),
        [("GET", b"{}"), ("POST", b""), ("POST", b"[]"), ("POST", b"no"), ("POST", b"\xff"), ("POST", b"[" * 100_000)],
    )
    def test_no_other_request(self, method: str, body: bytes) -> None:
        assert GEMINI.recognise(Request(method, URL, body=body)) is None

    @pytest.mark.parametrize(
        ("body", "choices"),
        [
            ({"generationConfig": {"candidateCount": 3}}, 3),
            ({"generation_config": {"candidate_count": 2}}, 2),
            ({"generationConfig": {"candidateCount": 0}}, 1),
            ({"generationConfig": {"candidateCount": -1}}, 1),
            ({"generationConfig": {"candidateCount": "2"}}, 1),
            ({"generationConfig": None}, 1),
            ({"generationConfig": []}, 1),
        ],
        ids=str,
    )
    def test_how_many_candidates_are_asked_for(self, body: dict[str, Any], choices: int) -> None:
        assert recognised(body).generation.choices == choices

    @pytest.mark.parametrize(
        "tools",
        [
            [{"codeExecution": {}}],
            [{"code_execution": {}}],
            [{"googleSearch": {}}, {"codeExecution": {}}],
            [{"googleSearch": {}, "codeExecution": {}}],
            [{"mcpServers": [{"name": "m"}]}],
        ],
        ids=str,
    )
    def test_what_acts_on_the_world(self, tools: Any) -> None:
        assert recognised({"tools": tools}).generation.acts

    @pytest.mark.parametrize(
        "tools",
        [
            [{"googleSearch": {}}],
            [{"googleSearchRetrieval": {}}, {"urlContext": {}}, {"googleMaps": {}}, {"fileSearch": {}}],
            [{"functionDeclarations": [{"name": "codeExecution"}]}],
            [{"computerUse": {"environment": "ENVIRONMENT_BROWSER"}}],
            [{"codeExecution": None}],
            {"codeExecution": {}},
            None,
        ],
        ids=str,
    )
    def test_what_does_not(self, tools: Any) -> None:
        assert not recognised({"tools": tools}).generation.acts


# What an event means, case by case


class TestMeanings:
    @pytest.mark.parametrize(
        "silent",
        [
            Event(b""),
            Event(b" "),
            event(),
            event(candidates=[]),
            event(candidates=None),
            event(usageMetadata={"promptTokenCount": 3}, modelVersion="m", responseId="r", createTime="t"),
            event(promptFeedback={"safetyRatings": [{"category": "HARM", "probability": "LOW"}]}),
            event(promptFeedback={"blockReason": "BLOCK_REASON_UNSPECIFIED"}),
            event(promptFeedback={"blockReason": "BLOCKED_REASON_UNSPECIFIED"}),
            candidate(),
            candidate({"text": ""}),
            candidate({"text": "", "thought": True}, {"thought": True}),
            candidate({"text": "", "thoughtSignature": ""}),
            candidate({"functionCall": {}}),
            candidate(finish="FINISH_REASON_UNSPECIFIED"),
            candidate(finish=""),
            candidate(safetyRatings=[{"category": "HARM"}], groundingMetadata={}, citationMetadata=None, tokenCount=3),
            event(candidates=[{"content": {"role": "model"}}]),
            event(candidates=[{"index": 0}]),
        ],
        ids=lambda silent: silent.text,
    )
    def test_silent(self, silent: Event) -> None:
        assert GeminiReader(Generation(streaming=True)).read(silent) == Signal.SILENT

    @pytest.mark.parametrize(
        "output",
        [
            candidate({"text": "Hi"}),
            candidate({"text": " "}),
            candidate({"text": "Hm", "thought": True}),
            candidate({"text": "", "thoughtSignature": "s"}),
            candidate({"functionCall": {"name": "f", "args": {}}}),
            candidate({"functionCall": {"name": "f", "willContinue": True}}),
            candidate({"executableCode": {"code": "1"}}),
            candidate({"codeExecutionResult": {"outcome": "OUTCOME_OK"}}),
            candidate({"inlineData": {"mimeType": "image/png", "data": "aaaa"}}),
            candidate({"fileData": {"fileUri": "files/a"}}),
            candidate({"toolCall": {"id": "t"}}),
            candidate({"later": "x"}),
            candidate("text"),
            candidate(groundingMetadata={"webSearchQueries": ["x"]}),
            candidate(citationMetadata={"citationSources": [{"uri": "x"}]}),
            candidate(urlContextMetadata={"urlMetadata": [{"retrievedUrl": "x"}]}),
            candidate(logprobsResult={"chosenCandidates": [{"token": "x"}]}),
            candidate(later="x"),
            event(candidates=[{"content": "text"}]),
            event(candidates=[{"content": {"parts": "text"}}]),
            event(candidates=["text"]),
            event(candidates="text"),
            event(later={"a": 1}),
            Event(b"[]"),
            Event(b"7"),
        ],
        ids=lambda output: output.text,
    )
    def test_output(self, output: Event) -> None:
        assert GeminiReader(Generation(streaming=True)).read(output) in (Signal.REASONING, Signal.OUTPUT)

    @pytest.mark.parametrize(
        "reason",
        [
            "STOP",
            "MAX_TOKENS",
            "SAFETY",
            "RECITATION",
            "LANGUAGE",
            "OTHER",
            "BLOCKLIST",
            "PROHIBITED_CONTENT",
            "SPII",
            "MALFORMED_FUNCTION_CALL",
            "UNEXPECTED_TOOL_CALL",
            "TOO_MANY_TOOL_CALLS",
            "MISSING_THOUGHT_SIGNATURE",
            "MALFORMED_RESPONSE",
            "IMAGE_SAFETY",
            "NO_IMAGE",
            "CONTINUATION",
            "MODEL_ARMOR",
            "LATER",
        ],
    )
    def test_any_finish_reason_settles(self, reason: str) -> None:
        reader = GeminiReader(Generation(streaming=True))
        assert reader.read(candidate(finish=reason, finishMessage="so")) == Signal.SETTLES
        assert reader.finish_reason == reason
        assert GeminiDecoder().decode(candidate(finish=reason)) == [Finish(reason)]

    def test_every_candidate_must_finish(self) -> None:
        reader = GeminiReader(Generation(streaming=True, choices=2))
        assert reader.read(candidate({"text": "a"}, finish="STOP")) == Signal.OUTPUT | Signal.FINISHES
        assert reader.read(candidate(finish="STOP")) == Signal.FINISHES
        assert reader.read(candidate({"text": "b"}, finish="STOP", index=1)) == Signal.OUTPUT | Signal.SETTLES

    def test_output_behind_a_finish_takes_it_back(self) -> None:
        reader = GeminiReader(Generation(streaming=True))
        reader.read(candidate({"text": "a"}, finish="STOP"))
        assert reader.read(candidate({"text": "b"})) == Signal.OUTPUT | Signal.REOPENS
        assert reader.read(candidate({"text": "c"}, finish="STOP")) == Signal.OUTPUT | Signal.SETTLES
        assert reader.read(candidate(groundingMetadata={"webSearchQueries": ["x"]})) == Signal.OUTPUT

    def test_a_reason_of_a_gateway_that_reports_a_failure_is_an_error(self) -> None:
        failing = candidate(finish="ABORTED")
        assert GeminiReader(Generation(streaming=True)).read(failing) == Signal.TRANSIENT_ERROR
        [failed] = GeminiDecoder().decode(failing)
        assert isinstance(failed, Failed)

    def test_a_blocked_prompt_settles_however_many_were_asked_for(self) -> None:
        blocked = event(promptFeedback={"blockReason": "OTHER"})
        assert GeminiReader(Generation(streaming=True, choices=2)).read(blocked) == Signal.SETTLES
        assert GeminiDecoder().decode(blocked) == [Finish("OTHER")]

    @pytest.mark.parametrize(
        "data", [b"{", b"pong", b"{'a': 1}", b"[" * 100_000], ids=["cut", "word", "quotes", "deep"]
    )
    def test_malformed(self, data: bytes) -> None:
        with pytest.raises(MalformedEvent, match="not JSON"):
            GeminiReader(Generation(streaming=True)).read(Event(data))
        with pytest.raises(MalformedEvent, match="not JSON"):
            GeminiDecoder().decode(Event(data))

    def test_invalid_utf8_inside_json_is_not_malformed(self) -> None:
        broken = Event(b'{"candidates":[{"content":{"parts":[{"text":"Z\xc3rich"}]}}]}')
        assert GeminiReader(Generation(streaming=True)).read(broken) == Signal.OUTPUT
        assert GeminiDecoder().decode(broken) == [Text("Z\ufffdrich")]

    def test_a_key_that_the_model_wrote_is_no_error(self) -> None:
        call = candidate({"functionCall": {"name": "log", "args": {"error": "x", "finishReason": "STOP"}}})
        assert GEMINI.notable.search(encode(call.text)), "it costs a parse: arguments are no string here"
        assert GeminiReader(Generation(streaming=True)).read(call) == Signal.OUTPUT


class TestErrors:
    """In the stream, and as the body of an error status."""

    @pytest.mark.parametrize(
        ("error", "transient"),
        [
            ({"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "later"}, True),
            ({"code": 500, "status": "INTERNAL"}, True),
            ({"code": 503, "status": "UNAVAILABLE"}, True),
            ({"code": 504, "status": "DEADLINE_EXCEEDED"}, True),
            ({"status": "RESOURCE_EXHAUSTED"}, True),
            ({"status": "DEADLINE_EXCEEDED"}, True),
            ({"code": 400, "status": "INVALID_ARGUMENT"}, False),
            ({"code": 403, "status": "PERMISSION_DENIED"}, False),
            ({"code": 404, "status": "NOT_FOUND"}, False),
            ({"code": 499, "status": "CANCELLED"}, False),
            ({"code": 429, "details": [{"violations": [{"quotaId": "GenerateRequestsPerDay"}]}]}, False),
            ({"code": 429, "message": "Your prepayment credits are depleted."}, False),
            ({"code": 429, "details": "none"}, True),
            ("no such model", False),
            (True, False),
        ],
        ids=str,
    )
    def test_in_the_stream(self, error: Any, transient: bool) -> None:
        sent = event(error=error)
        assert GeminiReader(Generation(streaming=True)).read(sent) == (
            Signal.TRANSIENT_ERROR if transient else Signal.PERMANENT_ERROR
        )
        [failed] = GeminiDecoder().decode(sent)
        assert isinstance(failed, Failed)
        assert failed.transient is transient
        assert failed.message
        assert GEMINI.notable.search(encode(sent.text))

    @pytest.mark.parametrize("error", [None, "", {}, False], ids=str)
    def test_none_at_all(self, error: Any) -> None:
        sent = event(candidates=[{"content": {"parts": [{"text": "Hi"}]}}], error=error)
        assert GeminiReader(Generation(streaming=True)).read(sent) == Signal.OUTPUT
        assert GeminiDecoder().decode(sent) == [Text("Hi")]

    def test_what_came_with_an_error_is_not_lost(self) -> None:
        sent = event(candidates=[{"content": {"parts": [{"text": "last words"}]}}], error={"code": 503})
        assert GeminiReader(Generation(streaming=True)).read(sent) == Signal.TRANSIENT_ERROR
        [said, failed] = GeminiDecoder().decode(sent)
        assert said == Text("last words")
        assert isinstance(failed, Failed)

    @pytest.mark.parametrize(
        ("status", "body", "transient"),
        [
            (429, b"", True),
            (503, b"<html>", True),
            (500, b"\xff\xfe", True),
            (502, b"[" * 100_000, True),
            (429, b"[]", True),
            (400, b'{"error": {"status": "UNAVAILABLE"}}', False),
            (404, b'{"error": "not found"}', False),
        ],
    )
    def test_refusals(self, status: int, body: bytes, transient: bool) -> None:
        refusal = GEMINI.read_error(status, body)
        assert refusal.transient is transient
        assert refusal.message

    def test_a_key_is_never_quoted(self) -> None:
        for key in ("api_key:AIzaSy-and_more", "AIzaSy-and_more"):
            error = {"error": {"code": 403, "message": f"Consumer '{key}' has been suspended"}}
            assert "AIza" not in GEMINI.read_error(403, json.dumps(error).encode()).message
            [failed] = GeminiDecoder().decode(event(**error))
            assert isinstance(failed, Failed)
            assert "AIza" not in failed.message


# Typed events and messages, where the corpus has none


class TestParts:
    def test_each_candidate_has_its_own(self) -> None:
        call = {"functionCall": {"name": "f", "args": {"x": 1}}}
        decoder = GeminiDecoder()
        assert decoder.decode(candidate(call, {"text": "Hm", "thought": True, "thoughtSignature": "s"}, index=1)) == [
            ToolCallStart(0, "", "f", 1),
            ToolCallArguments(0, '{"x":1}', 1),
            Reasoning("Hm", 1),
            Signature("s", 1),
        ]
        answer = Answer(GEMINI, decoder)
        assert answer.messages == []
        assert decoder.decode(candidate(call, call)) == [
            ToolCallStart(0, "", "f"),
            ToolCallArguments(0, '{"x":1}'),
            ToolCallStart(1, "", "f"),
            ToolCallArguments(1, '{"x":1}'),
        ]
        assert answer.messages == []  # the calls are not complete
        answer.add(Finish("STOP"))
        assert answer.messages == [{"role": "model", "parts": [call, call]}]

    def test_thoughts_are_not_merged_with_words(self) -> None:
        decoder = GeminiDecoder()
        thought = {"text": "a", "thought": True}
        decoder.decode(candidate(thought, thought, {"text": "b", "thought": False}, {"text": "c"}, thought))
        [message] = Answer(GEMINI, decoder).messages
        assert message["parts"] == [{"text": "aa", "thought": True}, {"text": "bc"}, thought]

    def test_a_part_with_nothing_in_it_is_not_sent_back(self) -> None:
        decoder = GeminiDecoder()
        decoder.decode(candidate({"text": ""}, {"thoughtSignature": "", "text": ""}, {"thought": True}, {}))
        assert decoder.decode(candidate({"functionCall": {}})) == []
        assert Answer(GEMINI, decoder).messages == []

    def test_a_value_that_comes_twice_is_replaced(self) -> None:
        pieces = [{"jsonPath": "$.l[0]", "stringValue": value} for value in ("a", "b")]
        call = {"functionCall": {"name": "f", "args": {"x": 1}, "partialArgs": pieces}}
        arguments = ToolCallArguments(0, '{"x":1,"l":["b"]}')
        assert GeminiDecoder().decode(candidate(call)) == [ToolCallStart(0, "", "f"), arguments]

    def test_a_call_that_is_still_coming_is_not_sent_back(self) -> None:
        decoder = GeminiDecoder()
        begun = {"functionCall": {"name": "f", "willContinue": True}}
        more = {"functionCall": {"partialArgs": [{"jsonPath": "$.x", "numberValue": 1}], "willContinue": True}}
        assert decoder.decode(candidate(begun, more)) == [ToolCallStart(0, "", "f")]
        assert Answer(GEMINI, decoder).messages == []
        assert decoder.decode(candidate({"functionCall": {"name": "g"}})) == [
            ToolCallStart(1, "", "g"),
            ToolCallArguments(1, "{}"),
        ]

    @pytest.mark.parametrize(
        "path", ["", "x", "$", "$.", "$[0]", "$.x[", "$.x[-1]", "$.x[1]", "$.x.y", "$..x", "$.*", "$.l.a", "$.l[5]"]
    )
    def test_a_path_that_leads_nowhere(self, path: str) -> None:
        pieces = [{"jsonPath": "$.x", "numberValue": 1}, {"jsonPath": "$.l[0]", "numberValue": 1}]
        call = {"functionCall": {"name": "f", "partialArgs": [*pieces, {"jsonPath": path, "numberValue": 1}]}}
        with pytest.raises(MalformedEvent, match="path"):
            GeminiDecoder().decode(candidate(call))

    def test_a_call_that_goes_on_without_having_begun(self) -> None:
        piece = {"functionCall": {"partialArgs": [{"jsonPath": "$.x", "numberValue": 1}]}}
        with pytest.raises(MalformedEvent, match="not begun"):
            GeminiDecoder().decode(candidate(piece))

    @pytest.mark.parametrize(
        ("counts", "usage"),
        [
            ({"promptTokenCount": 3}, Usage(input_tokens=3)),
            (
                {"promptTokenCount": 3, "thoughtsTokenCount": 5},
                Usage(input_tokens=3, output_tokens=5, reasoning_tokens=5),
            ),
            ({"candidatesTokenCount": 2, "thoughtsTokenCount": 5}, Usage(output_tokens=7, reasoning_tokens=5)),
            (
                {"promptTokenCount": 3, "toolUsePromptTokenCount": 4, "cachedContentTokenCount": 2},
                Usage(input_tokens=7, cached_tokens=2),
            ),
        ],
    )
    def test_counts(self, counts: dict[str, int], usage: Usage) -> None:
        assert GeminiDecoder().decode(event(usageMetadata=counts)) == [UsageReport(usage)]

    @pytest.mark.parametrize("counts", [{}, {"trafficType": "ON_DEMAND"}, None, [], {"promptTokenCount": "3"}])
    def test_counts_that_say_nothing(self, counts: Any) -> None:
        assert GeminiDecoder().decode(event(usageMetadata=counts)) == []


class TestWholeAnswers:
    def test_an_answer(self) -> None:
        body = {
            "candidates": [{"content": {"role": "model", "parts": [{"text": "Hi"}]}, "finishReason": "STOP"}],
            "usageMetadata": {"promptTokenCount": 1, "candidatesTokenCount": 2},
        }
        decoder = GeminiDecoder()
        assert decoder.decode_whole(json.dumps(body).encode()) == [
            Text("Hi"),
            Finish("STOP"),
            UsageReport(Usage(input_tokens=1, output_tokens=2)),
        ]
        assert Answer(GEMINI, decoder).messages == [{"role": "model", "parts": [{"text": "Hi"}]}]

    def test_an_error_with_status_200(self) -> None:
        [failed] = GeminiDecoder().decode_whole(b'{"error": {"code": 503, "message": "busy", "status": "UNAVAILABLE"}}')
        assert failed == Failed("busy", "UNAVAILABLE", transient=True)

    @pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'"text"', b"\xff"])
    def test_no_answer(self, body: bytes) -> None:
        assert not GeminiDecoder().decode_whole(body)


# Anything at all

WORDS = st.sampled_from(
    [
        "candidates",
        "content",
        "parts",
        "text",
        "thought",
        "thoughtSignature",
        "functionCall",
        "name",
        "args",
        "index",
        "partialArgs",
        "jsonPath",
        "$.a",
        "$.a[0]",
        "$.b.c",
        "stringValue",
        "numberValue",
        "willContinue",
        "STOP",
        "finishReason",
        "promptFeedback",
        "blockReason",
        "SAFETY",
        "usageMetadata",
        "promptTokenCount",
        "error",
        "code",
        "status",
        "message",
        "details",
        "violations",
        "quotaId",
        "groundingMetadata",
        "inlineData",
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS | st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.dictionaries(WORDS, JSON, max_size=4)
PIECES = st.lists(st.fixed_dictionaries({"jsonPath": WORDS, "stringValue": JSON, "willContinue": JSON}), max_size=3)
CALLS = st.fixed_dictionaries({"functionCall": st.fixed_dictionaries({"name": WORDS, "partialArgs": PIECES})})
PARTS = st.lists(FIELDS | CALLS, max_size=3)
CANDIDATES = st.lists(
    st.builds(lambda parts, rest: {**rest, "content": {"parts": parts}}, PARTS, FIELDS) | FIELDS, max_size=2
)
ANSWERS = st.builds(lambda candidates, rest: {**rest, "candidates": candidates}, CANDIDATES, FIELDS)
EVENTS = st.builds(
    Event,
    (JSON | ANSWERS).map(lambda value: json.dumps(value).encode()) | st.binary(max_size=20),
    st.sampled_from(["message", "error"]),
)


@given(st.lists(EVENTS, max_size=4), st.integers(1, 2))
def test_nothing_that_a_server_may_send_breaks_the_reader_or_the_decoder(events: list[Event], choices: int) -> None:
    reader, decoder = GeminiReader(Generation(streaming=True, choices=choices)), GeminiDecoder()
    for sent in events:
        try:
            signal = reader.read(sent)
        except MalformedEvent:
            with pytest.raises(MalformedEvent):
                decoder.decode(sent)
            continue
        if signal & (Signal.SETTLES | Signal.ENDS | Signal.ERROR):
            name = "" if sent.type == "message" else sent.type
            assert GEMINI.notable.search(encode(sent.text, event=name))
        try:
            decoded = decoder.decode(sent)
        except MalformedEvent:  # arguments of a function call that fit nowhere
            continue
        assert any(isinstance(item, Failed) for item in decoded) is bool(signal & Signal.ERROR)
    json.dumps(Answer(GEMINI, decoder).messages)


@pytest.mark.parametrize("hold", ["prelude", "reasoning"])
def test_output_in_a_last_event_without_its_blank_line_is_not_handed_on_and_can_be_replayed(hold: str) -> None:
    request = Request("POST", URL, body=b'{"contents": [{"role": "user", "parts": [{"text": "?"}]}]}')
    said = encode(candidate({"text": "Hi"}).text)
    play = Playbook(request=request, hold=hold) >> answers() >> brings(said.removesuffix(b"\n\n")) >> ends()
    play << again("replay", delay=0)
    whole = said + encode(candidate(finish="STOP").text)
    play >> answers() >> brings(whole) << speaks(whole) >> ends() << EndTurn()
