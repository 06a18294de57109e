"""``unbroken run``, whole: what is shown, where, and with which exit code."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cli.programs import Cli, Ended, Program, run, untimed
from ports import free_port
from unbroken.lab import Background, Continuation, CuttingProxy, Fault, ScriptedAnswer, Upstream
from wire.servers import RawServer

TOKEN = ScriptedAnswer(text="TOKEN-42", reasoning=["let me think"])
FOOTER = "  · 10 tok · in 7 (0 cached / 7 new) · out 3"
QUOTA = {"message": "You exceeded your current quota", "type": "insufficient_quota", "code": "insufficient_quota"}


def status(code: int, **settings: Any) -> Fault:
    return Fault("status", "before_headers", status=code, **settings)


def test_a_first_stream_that_is_reset_is_replayed(env: dict[str, str]) -> None:
    with Upstream(faults=[Fault("rst", "before_headers")], answer=TOKEN) as upstream:
        ended = run("run", "--base-url", upstream.url, "Reply with the recovery token", env=env)
        assert len(upstream.requests) == 2
        assert upstream.requests[0].body == upstream.requests[1].body
    assert (ended.code, ended.out) == (0, "TOKEN-42\n")
    assert untimed(ended.err).splitlines() == [
        "↻ cut after 0.0 s, before any output (connection reset) · replaying, attempt 2 of 4",
        f"{FOOTER} · 1 attempt lost",
    ]


def test_a_turn_without_a_cut_has_the_plain_footer(cli: Cli) -> None:
    with Upstream(answer=TOKEN) as upstream:
        ended = cli("run", "--base-url", upstream.url, "hi")
    assert ended == Ended(0, "TOKEN-42\n", f"{FOOTER}\n")


def test_reasoning_tokens_are_told_where_they_are_known(cli: Cli) -> None:
    details = {"prompt_tokens_details": {"cached_tokens": 4}, "completion_tokens_details": {"reasoning_tokens": 2}}
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10, **details}
    with Upstream(answer=ScriptedAnswer(text="x", usage=usage)) as upstream:
        ended = cli("run", "--base-url", upstream.url, "hi")
    assert ended.err == "  · 10 tok · in 7 (4 cached / 3 new) · out 3 (2 reasoning)\n"


def test_quiet_leaves_only_the_answer(cli: Cli) -> None:
    with Upstream(faults=[Fault("rst", "before_headers")], answer=TOKEN) as upstream:
        assert cli("run", "--base-url", upstream.url, "-q", "hi") == Ended(0, "TOKEN-42\n", "")


def test_quiet_leaves_errors(cli: Cli) -> None:
    with Upstream(faults=[status(401)]) as upstream:
        assert cli("run", "--base-url", upstream.url, "-q", "hi") == Ended(
            3, "", "unbroken: HTTP 401: The lab broke this on purpose.\n"
        )


def test_verbose_lists_the_attempts(cli: Cli) -> None:
    with Upstream(faults=[Fault("rst", "after_role")], answer=TOKEN) as upstream:
        ended = cli("run", "--base-url", upstream.url, "-v", "hi")
    *_, first, second = ended.err.splitlines()
    assert first.startswith("  · attempt 1: reset in prelude after 0.")
    assert second.startswith("  · attempt 2: answered in complete after 0.")
    assert "HTTP 200 over HTTP/1.1; billed: yes" in second


def test_verbose_tells_what_was_held(cli: Cli) -> None:
    with Upstream(faults=[Fault("rst", "after_token")], answer=TOKEN) as upstream:
        ended = cli("run", "--base-url", upstream.url, "-v", "--hold", "answer", "hi")
    *_, first, _ = ended.err.splitlines()
    assert first.startswith("  · attempt 1: reset in output, all held, after 0.")
    assert first.endswith("billed: yes")


def test_reasoning_is_shown_when_asked_for(cli: Cli) -> None:
    with Upstream(answer=TOKEN) as upstream:
        ended = cli("run", "--base-url", upstream.url, "--show-reasoning", "hi")
    assert ended == Ended(0, "TOKEN-42\n", f"let me think\n\n{FOOTER}\n")


# Exit codes


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (status(401), "HTTP 401"),
        (status(400), "HTTP 400"),
        (status(404), "HTTP 404"),
        (status(429, error=QUOTA), "HTTP 429: You exceeded your current quota"),
        (
            status(200, headers={"content-type": "text/html"}, body=b"<html>"),
            "HTTP 200 with text/html instead of an answer",
        ),
        (
            status(200, headers={"content-type": "text/html"}, body=b"<html>"),
            "or it is the page of a captive portal: open a page in a browser and log in to the network",
        ),
        (status(511), "HTTP 511: a captive portal answers instead of the server: open a page in a browser"),
        (status(302, headers={"location": "/v2"}), "redirected to /v2; redirects are not followed: use that as"),
        (status(302, headers={"location": "http://else.where/"}), "that is another host, such as a captive portal's ("),
        (status(302, headers={"location": "http://me:pw@else.where/v1?key=1"}), "redirected to http://else.where/v1;"),
        (status(200, body=b'{"error": {"message": "no credit"}}'), "no credit"),
        (status(200, body=b'{"models": []}'), "HTTP 200 with application/json instead of an answer"),
    ],
)
def test_what_the_provider_refuses_is_3(fault: Fault, said: str, cli: Cli) -> None:
    with Upstream(faults=[fault]) as upstream:
        ended = cli("run", "--base-url", upstream.url, "hi")
        assert len(upstream.requests) == 1
    assert (ended.code, ended.out) == (3, "")
    assert ended.err.startswith("unbroken: ")
    assert said in ended.err
    assert "pw" not in ended.err


@pytest.mark.parametrize(
    ("faults", "args", "out", "said"),
    [
        ([Fault("rst", "after_token")], [], "Hello\n", "the answer is not whole: connection reset"),
        ([Fault("clean_end", "after_token")], [], "Hello\n", "the answer is not whole"),
        ([Fault("rst", "after_role")] * 2, ["--replays", "1"], "", "1 replay used up; 2 attempts in all"),
        ([Fault("rst", "after_role")], ["--replays", "0"], "", "no replays allowed"),
        ([Fault("stall", "after_role")], ["--first-output", "0.3"], "", "no output within 0.3 s"),
        ([Fault("malformed", "after_role")], [], "", "the stream is broken"),
        ([Fault("malformed", "after_token")], [], "Hello\n", "the stream is broken"),
        ([Fault("error_event", "after_token")], [], "Hello\n", "The lab broke this on purpose."),
    ],
)
def test_a_stream_that_is_lost_is_4(faults: list[Fault], args: list[str], out: str, said: str, cli: Cli) -> None:
    with Upstream(faults=faults) as upstream:
        ended = cli("run", "--base-url", upstream.url, "hi", *args)
        assert len(upstream.requests) == len(faults)
    assert (ended.code, ended.out) == (4, out)
    assert said in ended.err.splitlines()[-1]


def test_a_refused_connection_is_5_at_the_end_of_the_budget(cli: Cli) -> None:
    url = f"http://127.0.0.1:{free_port()}/v1"
    ended = cli("run", "--base-url", url, "--give-up-after", "0.6", "hi")
    assert (ended.code, ended.out) == (5, "")
    first, *_, last, next_step = ended.err.splitlines()
    assert untimed(first).startswith("↻ failed after 0.0 s (connection refused) · retrying in 0.")
    assert "connection refused (gave up after 0.6 s" in last
    assert next_step == f"  {url}: is the server running, and the URL right?"


def test_a_proxy_that_is_not_there_is_5(cli: Cli) -> None:
    proxy = f"socks5h://127.0.0.1:{free_port()}"
    ended = cli("run", "--provider", "ollama", "--model", "m", "--proxy", proxy, "--give-up-after", "0", "hi")
    assert ended.code == 5
    told, hint = ended.err.splitlines()[-2:]
    assert told.startswith(f"unbroken: cannot connect to the proxy at {proxy} (--proxy): connection refused")
    assert hint == f"  {proxy} (--proxy): is the proxy running? --no-proxy in its place goes without it"


REFUSED = b"HTTP/1.1 403 Forbidden\r\n\r\n"
WRONG = "speaks another protocol: it answered with"
SCHEMES = "is its scheme right (http, https, socks5, socks5h)? --no-proxy goes without it"


@pytest.mark.parametrize(
    ("scheme", "answer", "said", "hint"),
    [
        ("http", REFUSED, "refuses to connect to model.test:443: 403 Forbidden", "the proxy's rules do not allow this"),
        ("http", b"SSH-2.0-OpenSSH_9.2\r\n", f"{WRONG} an SSH server's greeting", SCHEMES),
        ("http", b"<html>hello</html>", f"{WRONG} an HTML page", SCHEMES),
        ("socks5h", REFUSED, f"{WRONG} HTTP: write http://ADDRESS", SCHEMES),
        ("https", REFUSED, f"{WRONG} HTTP: write http://ADDRESS", SCHEMES),
        ("http", b"HTTP/1.1 302 Found\r\nLocation: http://hotspot.test/\r\n\r\n", "answers as a captive portal does:",
         "open a page in a browser and log in to the network; --no-proxy goes without it"),
    ],
)  # fmt: skip
def test_a_proxy_that_can_never_work_is_named_at_once(
    scheme: str, answer: bytes, said: str, hint: str, cli: Cli
) -> None:
    def script(sock: socket.socket) -> None:
        sock.recv(65536)
        sock.sendall(answer)

    with RawServer(script) as server:
        url = f"{scheme}://127.0.0.1:{server.port}"
        secret = url.replace("//", "//me:s3cret@")
        ended = cli("run", "--base-url", "https://model.test/v1", "hi", HTTPS_PROXY=secret)
        assert server.connections == 1
    assert ended.code == 5
    told, step = ended.err.splitlines()
    assert told.startswith(f"unbroken: the proxy at {url} (HTTPS_PROXY) ")
    assert said.replace("ADDRESS", f"127.0.0.1:{server.port}") in told
    assert step.startswith(f"  {url} (HTTPS_PROXY): {hint}")
    assert "write http://" not in step


def test_a_proxy_that_cannot_reach_the_server_is_told_from_one_that_is_not_there(cli: Cli) -> None:
    with CuttingProxy(refuse=502) as proxy:
        ended = cli("run", "--base-url", "https://model.test/v1", "--proxy", proxy.url, "--give-up-after", "0", "hi")
    told, step = ended.err.splitlines()[-2:]
    assert f"the proxy at {proxy.url} (--proxy) cannot reach model.test:443: 502 Bad Gateway" in told
    assert step.startswith(f"  {proxy.url} (--proxy): the proxy runs; its log says why")


def test_a_status_that_may_be_the_proxys_is_told_as_such(cli: Cli) -> None:
    with CuttingProxy(refuse=403) as proxy:
        ended = cli("run", "--base-url", "http://127.0.0.1:9/v1", "--proxy", proxy.url, "hi")
    assert ended.err.splitlines()[-1].startswith(f"  {proxy.url} (--proxy): the answer may be the proxy's own;")


def test_without_a_proxy_there_is_no_advice_about_one(cli: Cli) -> None:
    with RawServer() as server:  # accepts, and says nothing
        url = f"https://127.0.0.1:{server.port}/v1"
        ended = cli("run", "--base-url", url, "--connect", "0.3", "--give-up-after", "0", "hi")
    assert ended.err.splitlines()[-1] == f"  {url}: is the URL right? --connect SECONDS waits longer"
    assert "proxy" not in ended.err


def test_the_next_path_is_taken_and_told(cli: Cli) -> None:
    missing = f"http://127.0.0.1:{free_port()}"
    with Upstream() as upstream:
        ended = cli("run", "--base-url", upstream.url, "--proxy", missing, "--proxy", "direct", "-v", "hi")
    assert ended.code == 0
    first = untimed(ended.err.splitlines()[0])
    assert first.startswith("↻ failed after 0.0 s (proxy unreachable) · retrying, attempt 2 of ")
    assert first.endswith(" · going by direct from now on")
    assert f" by {missing}; billed: no" in ended.err


@pytest.mark.parametrize("code", [503, 429, 529])
def test_a_provider_that_stays_busy_is_5(code: int, cli: Cli) -> None:
    with Upstream(faults=[status(code)] * 9) as upstream:
        ended = cli("run", "--base-url", upstream.url, "--give-up-after", "0.7", "hi")
        assert len(upstream.requests) > 1
    assert (ended.code, ended.out) == (5, "")
    assert f"↻ refused after 0.0 s (HTTP {code}) · retrying in 0." in untimed(ended.err)
    assert ended.err.splitlines()[-1] == f"unbroken: HTTP {code}: The lab broke this on purpose."


# JSON


def test_json_is_one_object(cli: Cli) -> None:
    calls = [("call_1", "look_up", ['{"city": ', '"Oslo"}'])]
    answer = ScriptedAnswer(text="TOKEN-42", reasoning=["hm"], tool_calls=calls, finish_reason="tool_calls")
    with Upstream(faults=[Fault("rst", "after_role")], answer=answer) as upstream:
        ended = cli("run", "--base-url", upstream.url, "--format", "json", "hi")
    said = json.loads(ended.out)
    assert ended.code == 0
    assert list(said) == ["text", "reasoning", "tool_calls", "finish_reason", "usage", "attempts"]
    assert (said["text"], said["reasoning"], said["finish_reason"]) == ("TOKEN-42", "hm", "tool_calls")
    assert said["tool_calls"] == [{"id": "call_1", "name": "look_up", "arguments": {"city": "Oslo"}}]
    assert said["usage"] == {"in": 7, "cached": None, "new": 7, "out": 3, "reasoning": None, "total": 10}
    assert [attempt["failure"] for attempt in said["attempts"]] == ["reset", None]


def test_json_is_asked_again_wherever_it_was_cut(env: dict[str, str]) -> None:
    with Upstream(faults=[Fault("rst", "after_token")], answer=TOKEN) as upstream:
        ended = run("run", "--base-url", upstream.url, "--format", "json", "hi", env=env)
    assert ended.code == 0
    assert json.loads(ended.out)["text"] == "TOKEN-42"
    assert untimed(ended.err).splitlines() == [
        "↻ cut after 0.0 s of output, all held (connection reset) · replaying, attempt 2 of 4",
        f"{FOOTER} · 1 attempt lost",
    ]


def test_text_is_held_if_that_is_wanted(cli: Cli) -> None:
    with Upstream(faults=[Fault("rst", "after_token")], answer=TOKEN) as upstream:
        ended = cli("run", "--base-url", upstream.url, "--hold", "answer", "hi")
    assert (ended.code, ended.out) == (0, "TOKEN-42\n")


@pytest.mark.parametrize("given", [["--replays", "0"], ["--hold", "prelude"]], ids=" ".join)
def test_json_tells_a_failure_and_what_had_come_but_no_half_tool_call(given: list[str], cli: Cli) -> None:
    calls = [("call_1", "look_up", ['{"city": "Oslo"}'])]
    answer = ScriptedAnswer(text="", reasoning=["hm"], tool_calls=calls, finish_reason="tool_calls")
    with Upstream(faults=[Fault("rst", "after_token")], answer=answer) as upstream:
        ended = cli("run", "--base-url", upstream.url, "--format", "json", *given, "hi")
    said = json.loads(ended.out)
    assert ended.code == 4
    assert (said["reasoning"], said["tool_calls"], said["finish_reason"]) == ("hm", [], None)
    assert said["error"].keys() == {"code", "phase", "retryable", "message"}
    assert (said["error"]["code"], said["error"]["phase"], said["error"]["retryable"]) == ("stream_cut", "output", True)
    assert said["error"]["message"] in ended.err


def test_json_tells_a_failure_before_any_request(cli: Cli) -> None:
    url = f"http://127.0.0.1:{free_port()}/v1"
    ended = cli("run", "--base-url", url, "--give-up-after", "0", "--format", "json", "hi")
    said = json.loads(ended.out)
    assert ended.code == 5
    assert (said["text"], said["usage"]["total"], len(said["attempts"])) == ("", None, 1)
    assert (said["error"]["code"], said["error"]["phase"]) == ("unreachable", "connect")


@pytest.mark.parametrize("form", ["json", "jsonl"])
def test_a_usage_error_prints_no_json(form: str, cli: Cli) -> None:
    ended = cli("run", "--format", form, "--provider", "nope", "hi")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("unbroken: unknown provider 'nope'; known are deepseek, ")


def test_jsonl_tells_events_as_they_come_and_the_end(cli: Cli) -> None:
    with Upstream(faults=[Fault("rst", "after_role")], answer=TOKEN) as upstream:
        ended = cli("run", "--base-url", upstream.url, "--format", "jsonl", "hi")
    lines = [json.loads(line) for line in ended.out.splitlines()]
    assert [line["type"] for line in lines] == ["replay", "reasoning", "text", "finish", "usage", "end"]
    assert lines[0]["lost"]["failure"] == "reset"
    assert lines[2]["text"] == "TOKEN-42"
    assert lines[-1]["usage"]["total"] == 10
    assert len(lines[-1]["attempts"]) == 2


def test_jsonl_ends_with_the_failure(cli: Cli) -> None:
    with Upstream(faults=[Fault("rst", "after_token")], answer=TOKEN) as upstream:
        ended = cli("run", "--base-url", upstream.url, "--format", "jsonl", "hi")
    last = json.loads(ended.out.splitlines()[-1])
    assert ended.code == 4
    assert (last["type"], last["code"], last["phase"], last["finish_reason"]) == (
        "failed",
        "stream_cut",
        "output",
        None,
    )


def test_jsonl_events_are_not_held_back(env: dict[str, str]) -> None:
    with Upstream(faults=[Fault("stall", "after_token")]) as upstream:
        with Program("run", "--base-url", upstream.url, "--format", "jsonl", "hi", env=env) as program:
            assert program.out.wait_for("\n") == '{"type":"text","text":"Hello","choice":0}\n'
        assert upstream.wait_for(lambda: upstream.requests[0].gone, timeout=10)


# Answers of other kinds


def test_a_whole_completion_is_an_answer_with_a_notice(cli: Cli) -> None:
    body = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "whole"}, "finish_reason": "stop"}]}
    with Upstream(faults=[status(200, body=json.dumps(body).encode())]) as upstream:
        ended = cli("run", "--base-url", upstream.url, "hi")
    notice = "  · the server did not stream: the answer came in one piece"
    assert ended == Ended(0, "whole\n", f"{notice}\n  · no token count\n")


def test_an_empty_answer_is_told_to_be_one(cli: Cli) -> None:
    with Upstream(answer=ScriptedAnswer(text="")) as upstream:
        ended = cli("run", "--base-url", upstream.url, "hi")
    assert ended == Ended(0, "", f"  · the answer is empty (finish reason: stop)\n{FOOTER}\n")


def test_an_answer_that_the_limit_of_tokens_ended_is_told_to_be_one(cli: Cli) -> None:
    with Upstream(answer=ScriptedAnswer(text="half an", finish_reason="length")) as upstream:
        ended = cli("run", "--base-url", upstream.url, "hi")
    assert ended == Ended(0, "half an\n", f"  · the answer stops at the limit of tokens\n{FOOTER}\n")


@pytest.mark.parametrize(
    ("reason", "remark"),
    [
        ("safety", "the provider's content filter stopped the answer"),
        ("pause_turn", "the answer was stopped for another reason, or its tool call is malformed"),
        ("weary", "the finish reason 'weary' is not one that is known"),
        ("we\x1b[2Jary", "the finish reason 'we\ufffd[2Jary' is not one that is known"),
    ],
)
def test_an_unusual_finish_reason_is_told(reason: str, remark: str, cli: Cli) -> None:
    with Upstream(answer=ScriptedAnswer(text="half an", finish_reason=reason)) as upstream:
        ended = cli("run", "--base-url", upstream.url, "hi")
    assert (ended.code, ended.out) == (0, "half an\n")
    assert f"  · {remark}" in ended.err


@pytest.mark.parametrize(
    ("kind", "at", "remark"),
    [
        ("rst", "after_usage", "after the end of the answer the stream failed: reset"),
        ("stall", "after_usage", "the server said how the answer ended, and then did not end the stream"),
    ],
)
def test_what_failed_after_the_end_is_told(kind: Any, at: Any, remark: str, cli: Cli) -> None:
    with Upstream(faults=[Fault(kind, at)], answer=ScriptedAnswer(text="whole")) as upstream:
        ended = cli("run", "--base-url", upstream.url, "hi")
    assert (ended.code, ended.out) == (0, "whole\n")
    assert f"  · {remark}" in ended.err


def test_a_tool_call_that_is_not_complete_is_no_empty_answer(cli: Cli) -> None:
    calls = [("call_1", "look_up", ['{"city": '])]
    with Upstream(answer=ScriptedAnswer(text="", tool_calls=calls, finish_reason="length")) as upstream:
        ended = cli("run", "--base-url", upstream.url, "hi")
    assert "the tool call look_up is not complete" in ended.err
    assert "empty" not in ended.err


@pytest.mark.parametrize("given", [["--accept-done"], []])
def test_a_server_that_never_says_how_an_answer_ended(given: list[str], cli: Cli) -> None:
    body = b'data: {"choices": [{"index": 0, "delta": {"content": "whole"}}]}\n\ndata: [DONE]\n\n'
    fault = Fault("status", "before_headers", status=200, headers={"content-type": "text/event-stream"}, body=body)
    with Upstream(faults=[fault] * 9) as upstream:
        ended = cli("run", "--base-url", upstream.url, *given, "hi")
    assert ended.out == "whole\n"
    assert ended.code == (0 if given else 4)
    assert ("--accept-done" in ended.err) is not bool(given)


def test_tool_calls_are_named_but_not_run(cli: Cli) -> None:
    calls = [("call_1", "look_up", ['{"city": ', '"Oslo"}'])]
    with Upstream(answer=ScriptedAnswer(text="", tool_calls=calls, finish_reason="tool_calls")) as upstream:
        ended = cli("run", "--base-url", upstream.url, "hi")
    assert '  · tool call look_up({"city": "Oslo"}), not run' in ended.err
    assert "empty" not in ended.err


@pytest.mark.parametrize("form", ["text", "json", "jsonl"])
def test_an_event_of_10_mib_is_an_event(form: str, cli: Cli) -> None:
    text = "x" * (10 * 1024 * 1024)
    with Upstream(answer=ScriptedAnswer(text=[text])) as upstream:
        ended = cli("run", "--base-url", upstream.url, "--format", form, "hi")
    assert ended.code == 0
    if form == "text":
        assert ended.out == f"{text}\n"
    else:
        assert json.loads(ended.out.splitlines()[0])["text"] == text


# Advice


def test_cuts_at_the_same_silence_bring_advice_once(cli: Cli) -> None:
    with Upstream(answer=ScriptedAnswer(think=60)) as upstream, CuttingProxy(idle=1.2) as proxy:
        ended = cli("run", "--base-url", upstream.url, "--proxy", proxy.url, "--replays", "3", "hi")
        assert len(upstream.requests) == 4
    assert ended.code == 4
    assert ended.err.count("something on the way cuts idle connections after about 1.") == 1
    notices = [line for line in ended.err.splitlines() if line.startswith("↻")]
    assert [line.partition("attempt ")[2] for line in notices] == ["2 of 4", "3 of 4", "4 of 4"]
    assert notices[0].startswith("↻ cut after 1.")


# The program


def test_the_body_says_what_was_asked(cli: Cli) -> None:
    with Upstream() as upstream:
        cli("run", "--base-url", upstream.url, "--model", "m", "--system", "Be brief.", "hi")
        asked = json.loads(upstream.requests[0].body)
        assert upstream.requests[0].header("authorization") is None
    assert asked["model"] == "m"
    assert asked["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]


def test_an_installed_script_would_do_the_same(env: dict[str, str], tmp_path: Path) -> None:
    script = [sys.executable, "-c", "from unbroken.cli import main; main()", "--version"]
    ran = subprocess.run(script, env=env, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ran.stdout == "unbroken 0.1.0\n"


def test_half_a_surrogate_pair_is_no_crash(cli: Cli) -> None:
    with Upstream(answer=ScriptedAnswer(text=["a", "\ud83d", "\ude00"])) as upstream:
        ended = cli("run", "--base-url", upstream.url, "hi")
    assert ended.out.startswith("a")
    assert "Traceback" not in ended.err


TIDE = ScriptedAnswer(text="The tide goes out, and comes in.")
CUT = Fault("clean_end", "after_characters", offset=18)


def test_an_answer_that_was_continued_is_one_answer_and_the_footer_says_where(cli: Cli) -> None:
    with Upstream(faults=[CUT], answer=TIDE, continuation=Continuation("assistant")) as upstream:
        options = ("--after-output", "continue", "--continuation", "assistant")
        ended = cli("run", "--base-url", upstream.url, *options, "hi")
    assert (ended.code, ended.out) == (0, "The tide goes out, and comes in.\n")
    assert untimed(ended.err).splitlines() == [
        "↻ cut after 0.0 s, after output (the stream ended without saying how the answer ended)"
        " · continuing at character 18, attempt 2 of 4",
        f"{FOOTER} · 1 attempt lost · continued at character 18",
    ]


def test_an_answer_that_was_continued_as_json_lines(cli: Cli) -> None:
    with Upstream(faults=[CUT], answer=TIDE, continuation=Continuation("prefix")) as upstream:
        environment = {"UNBROKEN_AFTER_OUTPUT": "continue", "UNBROKEN_CONTINUATION": "prefix"}
        ended = cli("run", "--base-url", upstream.url, "--format", "jsonl", "hi", **environment)
    lines = [json.loads(line) for line in ended.out.splitlines()]
    assert "".join(line["text"] for line in lines if line["type"] == "text") == "The tide goes out, and comes in."
    [told] = [line for line in lines if line["type"] == "continue"]
    assert told["character"] == 18
    assert lines[-1]["seams"] == [{"attempt": 2, "character": 18, "output_before": 4, "counted": "pieces"}]


RESUMED = Fault("clean_end", "after_events", offset=6)
RESPONSES = ("--dialect", "openai-responses", "--background")


def test_a_stream_that_was_taken_up_is_one_answer_and_the_footer_says_where(cli: Cli) -> None:
    with Upstream(faults=[RESUMED], answer=TIDE, background=Background()) as upstream:
        ended = cli("run", "--base-url", upstream.url, *RESPONSES, "hi")
    assert (ended.code, ended.out) == (0, "The tide goes out, and comes in.\n")
    assert untimed(ended.err).splitlines() == [
        "↻ cut after 0.0 s, after output (the stream ended without saying how the answer ended)"
        " · resuming after event 5, attempt 2 of 11",
        f"{FOOTER} · resumed after event 5",
    ]


def test_a_stream_that_was_taken_up_as_json_lines(cli: Cli) -> None:
    with Upstream(faults=[RESUMED], answer=TIDE, background=Background()) as upstream:
        options = ("--base-url", upstream.url, *RESPONSES, "--format", "jsonl")
        ended = cli("run", *options, "hi")
    lines = [json.loads(line) for line in ended.out.splitlines()]
    assert "".join(line["text"] for line in lines if line["type"] == "text") == "The tide goes out, and comes in."
    [told] = [line for line in lines if line["type"] == "resume"]
    assert told["after"] == "5"
    assert lines[-1]["resumes"] == [{"attempt": 2, "after": "5"}]
    assert lines[-1]["background"] == {"added": True, "why_not": "", "cancelled": None, "deleted": None}


def test_a_server_that_does_not_let_responses_go_on_is_told(cli: Cli) -> None:
    with Upstream(answer=TIDE, background=Background(refuses="background")) as upstream:
        ended = cli("run", "--base-url", upstream.url, *RESPONSES, "hi")
    assert (ended.code, ended.out) == (0, "The tide goes out, and comes in.\n")
    assert "HTTP 400: the server does not let responses go on (background)" in ended.err
    assert "not resumable: the server refuses it (HTTP 400)" in ended.err


@pytest.mark.parametrize("shown", ["text", "jsonl"])
def test_no_answer_begins_again_where_it_cannot_be_taken_back(cli: Cli, shown: str) -> None:
    with Upstream(answer=TIDE) as upstream:
        ended = cli("run", "--base-url", upstream.url, "--format", shown, "--after-output", "restart", "hi")
        assert upstream.requests == []
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == (
        "unbroken: --after-output restart is for a terminal, and stdout is none: what was written there cannot be taken"
        " back. With --hold answer a cut answer is replayed before any of it is written\n"
    )


@pytest.mark.parametrize("held", [("--hold", "answer"), ("--format", "json")])
def test_an_answer_that_is_held_needs_not_begin_again(cli: Cli, held: tuple[str, str]) -> None:
    with Upstream(faults=[CUT], answer=TIDE) as upstream:
        ended = cli("run", "--base-url", upstream.url, *held, "hi", UNBROKEN_AFTER_OUTPUT="restart")
        assert len(upstream.requests) == 2
    assert ended.code == 0
    assert ended.out.count("The tide") == 1


def test_a_cut_that_could_have_been_continued_names_the_switch(cli: Cli) -> None:
    with Upstream(faults=[CUT], answer=TIDE, continuation=Continuation("assistant")) as upstream:
        ended = cli("run", "--base-url", upstream.url, "--after-output", "continue", "hi")
    assert (ended.code, ended.out) == (4, "The tide goes out,\n")
    assert "--continuation STYLE" in ended.err
