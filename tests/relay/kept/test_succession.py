"""Turns whose relay has died: taken over by the relay at which their client asks once more."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest

from relay.conftest import stack
from relay.kept.clients import BODY, OTHER_KEY, RETRY, TEXT, Client, is_whole, text_in, unchunked
from relay.kept.processes import PATIENT, Replicas
from relay.redis_server import RedisServer
from relay.serving import Caller, Received, Served, settings_to
from unbroken.core.policy import Policy
from unbroken.lab import Background, Continuation, Fault, ScriptedAnswer, Upstream
from unbroken.relay.kept import keeper
from unbroken.relay.kept.keeper import Keeper
from unbroken.relay.kept.succession import succeed
from unbroken.relay.settings import UpstreamSettings
from unbroken.relay.store.redis_scripts import PREFIX
from waiting import poll

__all__ = ["stack"]

SLOW = ScriptedAnswer(text=TEXT, gap=0.02)
STOPS = Fault("stall", "after_characters", offset=60, seconds=600)
"""The first answer stops here, so that no machine is too slow to be in the middle of it."""
THINKS = Fault("stall", "after_headers", seconds=600)
"""The first answer does not begin."""
UNDER_KEY = (("idempotency-key", "k1"),)
RESPONSES = "/v1/responses"
TOKEN = "relay-token-0123456789"
ASKED = {"model": "lab", "input": "Hi", "stream": True}
RESUME = Policy(background=True, backoff_initial=0.01)
CONTINUE = Policy(after_output="continue", backoff_initial=0.01)


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that is busy the store may take longer than a request waits for it otherwise."""
    for name in ("ASK_WITHIN", "SUCCESSOR_WITHIN"):
        monkeypatch.setattr(f"unbroken.relay.kept.keeper.{name}", PATIENT)


class PatientClient(Client):
    """Asks one relay, on a machine that is busy."""

    def connect(self) -> Caller:
        caller = super().connect()
        caller.sock.settimeout(PATIENT)
        return caller


class Pair:
    """Two relays with one store, of which one dies.

    Attributes:
        lab: their upstream.
        first: asks the one that dies.
        second: asks the other one.
    """

    def __init__(
        self,
        stack: ExitStack,
        redis: RedisServer,
        answer: ScriptedAnswer = SLOW,
        policy: Policy | None = None,
        heartbeat: float = 15.0,
        grace: float = 0.0,
        key: str = "",
        faults: Sequence[Fault] = (STOPS,),
        **lab: Any,
    ) -> None:
        self.redis = redis
        self.lab = stack.enter_context(Upstream(answer=answer, faults=list(faults), **lab))
        upstream = UpstreamSettings("lab", self.lab.url, continuation="assistant", key=key or None)
        given = {"keep": 30.0, "store": redis.url, "policy": policy or Policy(), "grace": grace, "heartbeat": heartbeat}
        given |= {"inject_key": True, "token": TOKEN} if key else {}
        self.first, self.second = (
            PatientClient(stack, stack.enter_context(Served(settings_to({"lab": upstream}, **given)))) for _ in range(2)
        )

    def begin(self, *fields: tuple[str, str], until: bytes = b"word8", **given: Any) -> Received:
        """Ask the first relay, which is silent to the store from then on; return what its client has."""
        caller = self.first.begin(*fields, **given)
        head = caller.head()
        head.body = unchunked(caller.until(until))
        self.die(head)
        return head

    def die(self, head: Received | None = None) -> None:
        """Have the first relay write nothing more, as if it were dead; what its client has is in the store."""
        if head:
            poll(lambda: self._stored() >= len(head.body), PATIENT)

        async def stop() -> None:
            for task in self.first.served.relay._keeper._store._queue._tasks:
                task.cancel()

        self.first.served.run(stop)

    def end_lease(self) -> None:
        """Have the lease run out."""
        for name in self.redis.known():
            if name.startswith(f"{PREFIX}lease:"):
                self.redis.ask("DEL", name)

    def _stored(self) -> int:
        names = [name for name in self.redis.known() if name.startswith(f"{PREFIX}turn:")]
        return max((int(self.redis.ask("HGET", name, "at").split(b"\r\n")[1]) for name in names), default=0)

    @property
    def asked_upstream(self) -> int:
        return len(self.lab.requests_for("generation"))


def said(answer: Received) -> str:
    return text_in(answer.body)


@pytest.mark.parametrize("mark", [UNDER_KEY, RETRY])
def test_one_that_has_spoken_is_resumed_where_the_policy_says_so(
    stack: ExitStack, redis: RedisServer, mark: Any
) -> None:
    pair = Pair(stack, redis, policy=RESUME, background=Background())
    before = pair.begin(*(mark if mark is UNDER_KEY else ()), path=RESPONSES, body=ASKED)
    pair.end_lease()
    answer = pair.second.ask(*mark, path=RESPONSES, body=ASKED)
    assert answer.whole
    assert answer.body.startswith(before.body)
    assert b"response.completed" in answer.body
    (resumed,) = pair.lab.requests_for("resume")
    assert answer.body == pair.lab.requests[0].sent[: len(answer.body) - len(resumed.sent)] + resumed.sent
    assert pair.asked_upstream == 1
    entry = pair.second.served.entry()
    assert (entry["outcome"], entry["attempts"], len(entry["resumes"])) == ("answered", 2, 1)
    assert answer.value("x-unbroken-turn") != before.value("x-unbroken-turn")
    again = pair.second.collect(answer.value("x-unbroken-turn"))
    assert again.body == answer.body
    gone = pair.second.collect(before.value("x-unbroken-turn"), len(before.body))
    assert (gone.whole, pair.second.served.entry()["outcome"]) == (False, "cut")


@pytest.mark.parametrize("mark", [UNDER_KEY, RETRY])
def test_one_that_has_spoken_is_continued_where_the_policy_says_so(
    stack: ExitStack, redis: RedisServer, mark: Any
) -> None:
    pair = Pair(stack, redis, policy=CONTINUE, continuation=Continuation("assistant"))
    before = pair.begin(*(mark if mark is UNDER_KEY else ()))
    pair.end_lease()
    answer = pair.second.ask(*mark)
    assert is_whole(answer)
    assert answer.body.startswith(before.body)
    assert pair.asked_upstream == 2
    assert b'"assistant"' in pair.lab.requests[1].body
    assert len(pair.second.served.entry()["seams"]) == 1


@pytest.mark.parametrize("mark", [UNDER_KEY, RETRY])
def test_by_the_usual_policy_it_is_asked_for_anew(stack: ExitStack, redis: RedisServer, mark: Any) -> None:
    pair = Pair(stack, redis)
    before = pair.begin(*(mark if mark is UNDER_KEY else ()))
    pair.end_lease()
    assert is_whole(pair.second.ask(*mark))
    assert pair.asked_upstream == 2
    assert b'"assistant"' not in pair.lab.requests[1].body
    gone = pair.second.collect(before.value("x-unbroken-turn"))
    assert not gone.whole


@pytest.mark.parametrize("manner", ["refuses", "begins_anew"])
def test_one_that_cannot_be_continued_is_never_a_doubled_answer(
    stack: ExitStack, redis: RedisServer, manner: Any
) -> None:
    later = Fault(
        "stall", "after_characters", offset=130, seconds=600
    )  # what is repeated must be long enough to be seen
    pair = Pair(stack, redis, policy=CONTINUE, continuation=Continuation("assistant", manner), faults=[later])
    pair.begin(*UNDER_KEY, until=b"word18")
    pair.end_lease()
    assert is_whole(pair.second.ask(*UNDER_KEY))
    assert pair.asked_upstream == 3
    assert [pair.second.served.entry(number)["outcome"] for number in (0, 1)] == ["cut", "answered"]
    assert pair.second.served.relay.recorder.live == {}


@pytest.mark.parametrize("streaming", [True, False])
def test_one_that_has_not_spoken_is_replayed(stack: ExitStack, redis: RedisServer, streaming: bool) -> None:
    pair = Pair(stack, redis, SLOW, faults=[THINKS])
    body = {**BODY, "stream": streaming}
    caller = pair.first.begin(*UNDER_KEY, body=body)
    poll(lambda: pair.asked_upstream == 1, PATIENT)
    poll(lambda: any(name.startswith(f"{PREFIX}lease:") for name in redis.known()), PATIENT)
    pair.die()
    pair.end_lease()
    answer = pair.second.ask(*UNDER_KEY, body=body)
    assert (answer.status, answer.whole) == (200, True)
    assert is_whole(answer) or answer.json["choices"][0]["message"]["content"] == "".join(TEXT)
    assert pair.asked_upstream == 2
    caller.close()


class TestWhoeverIsThereAlreadyWhenTheLeaseRunsOut:
    def test_gets_the_rest_in_the_same_stream(self, stack: ExitStack, redis: RedisServer) -> None:
        pair = Pair(stack, redis, policy=CONTINUE, continuation=Continuation("assistant"))
        before = pair.begin(*UNDER_KEY)
        caller = pair.second.begin(*UNDER_KEY)
        answer = caller.head()
        pair.end_lease()
        caller._read_chunks(answer)
        assert is_whole(answer)
        assert answer.body.startswith(before.body)
        assert pair.asked_upstream == 2

    def test_with_ids_too(self, stack: ExitStack, redis: RedisServer) -> None:
        wants = ("x-unbroken-resumable", "true")
        pair = Pair(stack, redis, policy=CONTINUE, continuation=Continuation("assistant"))
        pair.begin(*UNDER_KEY)
        caller = pair.second.begin(*UNDER_KEY, wants)
        answer = caller.head()
        pair.end_lease()
        caller._read_chunks(answer)
        assert is_whole(answer)
        ids = [int(line[4:]) for line in answer.body.splitlines() if line.startswith(b"id: ")]
        assert ids == sorted(set(ids))
        assert len(ids) > len(TEXT)

    def test_gets_a_visible_cut_by_the_usual_policy(self, stack: ExitStack, redis: RedisServer) -> None:
        pair = Pair(stack, redis)
        pair.begin(*UNDER_KEY)
        caller = pair.second.begin(*UNDER_KEY)
        caller.until(b"word3")
        pair.end_lease()
        assert not caller.rest().endswith(b"0\r\n\r\n")
        assert pair.second.served.entry()["outcome"] == "cut"
        assert pair.asked_upstream == 1

    @pytest.mark.parametrize("heartbeats", [False, True])
    def test_gets_an_answer_if_nothing_had_come(self, stack: ExitStack, redis: RedisServer, heartbeats: bool) -> None:
        pair = Pair(stack, redis, SLOW, faults=[THINKS], heartbeat=0.1 if heartbeats else 15.0)
        caller = pair.first.begin(*UNDER_KEY)
        if heartbeats:
            head = caller.head()
            head.body = unchunked(caller.until(b": unbroken\n\n"))
            pair.die(head)
        else:
            poll(lambda: any(name.startswith(f"{PREFIX}lease:") for name in redis.known()), PATIENT)
            pair.die()
        second = pair.second.begin(*UNDER_KEY)
        if heartbeats:
            answer = second.head()
            second.until(b": unbroken")
        pair.end_lease()
        if heartbeats:
            answer.body = second.until(b"[DONE]")
            assert b"word29" in answer.body
            assert second.until(b"0\r\n\r\n")
        else:
            assert is_whole(second.answer())
        assert pair.asked_upstream == 2
        caller.close()


def test_it_is_taken_over_once(stack: ExitStack, redis: RedisServer) -> None:
    pair = Pair(stack, redis, policy=CONTINUE, continuation=Continuation("assistant"))
    pair.begin()
    pair.end_lease()
    with ThreadPoolExecutor(10) as threads:
        answers = list(threads.map(lambda _: pair.second.ask(*RETRY), range(10)))
    assert all(map(is_whole, answers))
    assert len({answer.value("x-unbroken-turn") for answer in answers}) == 10
    continued = [request for request in pair.lab.requests if b'"assistant"' in request.body]
    assert (len(continued), pair.asked_upstream) == (1, 11)


def test_all_of_one_key_get_the_one_that_goes_on(stack: ExitStack, redis: RedisServer) -> None:
    pair = Pair(stack, redis, policy=CONTINUE, continuation=Continuation("assistant"))
    before = pair.begin(*UNDER_KEY)
    early = [pair.second.begin(*UNDER_KEY) for _ in range(3)]
    for caller in early:
        caller.until(b"word3")
    pair.end_lease()
    with ThreadPoolExecutor(5) as threads:
        answers = list(threads.map(lambda _: pair.second.ask(*UNDER_KEY), range(5)))
    assert all(map(is_whole, answers))
    assert len({answer.body for answer in answers}) == 1
    assert answers[0].body.startswith(before.body)
    for caller in early:
        rest = caller.until(b"\r\n0\r\n\r\n")
        assert b"word29" in rest
        assert rest.count(b"word7") == 1
    assert pair.asked_upstream == 2


def test_whoever_asks_between_the_end_of_the_old_turn_and_the_new_one_waits_for_that(
    stack: ExitStack, redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = Pair(stack, redis, policy=CONTINUE, continuation=Continuation("assistant"))
    pair.begin(*UNDER_KEY)
    pair.end_lease()
    ended, others_wait, waiting = threading.Event(), threading.Event(), threading.Semaphore(0)
    find_successor = Keeper._find_successor

    async def late(*args: Any) -> Any:
        ended.set()
        await anyio.to_thread.run_sync(others_wait.wait, PATIENT)
        return await succeed(*args)

    def counted(self: Keeper, *args: Any) -> Any:
        waiting.release()
        return find_successor(self, *args)

    monkeypatch.setattr(keeper, "succeed", late)
    monkeypatch.setattr(Keeper, "_find_successor", counted)
    with ThreadPoolExecutor(4) as threads:
        first = threads.submit(pair.second.ask, *UNDER_KEY)
        assert ended.wait(PATIENT)
        others = [threads.submit(pair.second.ask, *UNDER_KEY) for _ in range(3)]
        assert all(waiting.acquire(timeout=PATIENT) for _ in others)
        others_wait.set()
        answers = [asked.result() for asked in (first, *others)]
    assert all(map(is_whole, answers))
    assert len({answer.body for answer in answers}) == 1
    assert pair.asked_upstream == 2


def test_a_retry_of_another_turns_client_goes_upstream_while_its_relay_lives(
    stack: ExitStack, redis: RedisServer
) -> None:
    pair = Pair(stack, redis, faults=[Fault("pause", "after_characters", offset=60, seconds=1)])
    caller = pair.first.begin()
    caller.until(b"word3")
    assert is_whole(pair.second.ask(*RETRY))
    assert b"word29" in caller.until(b"[DONE]")
    assert pair.asked_upstream == 2


def test_by_position_it_ends_as_a_cut(stack: ExitStack, redis: RedisServer) -> None:
    pair = Pair(stack, redis, policy=CONTINUE, continuation=Continuation("assistant"))
    before = pair.begin(*UNDER_KEY)
    pair.end_lease()
    for ahead in (0, 5):
        answer = pair.second.collect(before.value("x-unbroken-turn"), len(before.body) + ahead)
        assert (answer.status, answer.whole) in ((200, False), (416, True))
    assert is_whole(pair.second.ask(*UNDER_KEY))
    assert pair.asked_upstream == 2
    assert b'"assistant"' not in pair.lab.requests[1].body


def test_another_credential_takes_nothing_over(stack: ExitStack, redis: RedisServer) -> None:
    pair = Pair(stack, redis, policy=CONTINUE, continuation=Continuation("assistant"))
    before = pair.begin(*UNDER_KEY)
    pair.end_lease()
    for mark in (UNDER_KEY, RETRY):
        other = pair.second.ask(*mark, key=OTHER_KEY)
        assert is_whole(other)
        assert b'"assistant"' not in pair.lab.requests[-1].body
    answer = pair.second.ask(*UNDER_KEY)
    assert is_whole(answer)
    assert answer.body.startswith(before.body)
    assert b'"assistant"' in pair.lab.requests[-1].body


def test_the_key_of_the_configuration_serves_too(stack: ExitStack, redis: RedisServer) -> None:
    configured = "sk-configured-0123456789"
    pair = Pair(stack, redis, policy=RESUME, background=Background(), key=configured)
    pair.begin(*UNDER_KEY, key=TOKEN, path=RESPONSES, body=ASKED)
    pair.end_lease()
    answer = pair.second.ask(*UNDER_KEY, key=TOKEN, path=RESPONSES, body=ASKED)
    assert answer.whole
    assert b"response.completed" in answer.body
    (resumed,) = pair.lab.requests_for("resume")
    assert dict(resumed.headers)["authorization"] == f"Bearer {configured}"


class TestARelayThatIsKilled:
    @pytest.mark.slow
    @pytest.mark.parametrize("mark", [UNDER_KEY, RETRY])
    def test_its_turn_is_resumed_by_another(self, stack: ExitStack, tmp_path: Path, mark: Any) -> None:
        replicas = Replicas(stack, tmp_path, SLOW, faults=[STOPS], background=Background())
        first, second = (replicas.start("--background") for _ in range(2))
        caller = replicas.begin(first, *(mark if mark is UNDER_KEY else ()), path=RESPONSES, body=ASKED)
        turn = caller.head().value("x-unbroken-turn")
        before = unchunked(caller.until(b"word3"))
        replicas.has_stored(turn, len(before))
        first.kill()
        if mark is RETRY:
            replicas.lease_is_over(turn)
        answer = replicas.ask(second, *mark, path=RESPONSES, body=ASKED)
        assert answer.whole
        assert b"response.completed" in answer.body
        assert answer.body.startswith(before)
        assert len(replicas.lab.requests_for("resume")) == 1
        assert replicas.asked_upstream == 1

    @pytest.mark.slow
    def test_its_turn_is_continued_by_another(self, stack: ExitStack, tmp_path: Path) -> None:
        replicas = Replicas(stack, tmp_path, SLOW, faults=[STOPS], continuation=Continuation("assistant"))
        first, second = (replicas.start("--after-output", "continue", "--continuation", "assistant") for _ in range(2))
        caller = replicas.begin(first, *UNDER_KEY)
        turn = caller.head().value("x-unbroken-turn")
        replicas.has_stored(turn, len(unchunked(caller.until(b"word3"))))
        first.kill()
        assert is_whole(replicas.ask(second, *UNDER_KEY))
        assert replicas.asked_upstream == 2

    @pytest.mark.slow
    def test_what_had_not_spoken_is_replayed_by_another(self, stack: ExitStack, tmp_path: Path) -> None:
        replicas = Replicas(stack, tmp_path, SLOW, faults=[THINKS])
        first, second = replicas.start(), replicas.start()
        replicas.begin(first, *UNDER_KEY)
        poll(lambda: replicas.asked_upstream == 1, PATIENT)
        poll(lambda: any(name.startswith(f"{PREFIX}lease:") for name in replicas.redis.known()), PATIENT)
        first.kill()
        assert is_whole(replicas.ask(second, *UNDER_KEY))
        assert replicas.asked_upstream == 2
