"""Our own clients go on at the byte at which their way to the relay was cut."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from cli.programs import environment, run
from client.asking import ASKINGS, Asking
from relay.kept.clients import KEY, TEXT, Client, Relays
from unbroken.core.policy import Policy
from unbroken.errors import StreamCut
from unbroken.lab.answer import ScriptedAnswer
from unbroken.lab.fault import Fault
from unbroken.lab.proxy import CuttingProxy
from waiting import poll

ANSWER = "".join(TEXT)
SLOW = ScriptedAnswer(text=TEXT, gap=0.01)
QUICK = Policy(backoff_initial=0.01, backoff_max=0.05, unreachable_for=0.2)


@pytest.fixture(params=ASKINGS)
def asking(request: pytest.FixtureRequest) -> Asking:
    """Either client, and either kind of event loop."""
    return ASKINGS[request.param]


def way_to(client: Client, stack: ExitStack, **rules: Any) -> str:
    """The URL of a way to the relay that is cut."""
    way = stack.enter_context(CuttingProxy(target=("127.0.0.1", client.served.port), **rules))
    return f"http://127.0.0.1:{way.port}"


def through(url: str, **more: Any) -> dict[str, Any]:
    """A client's arguments."""
    return {"base_url": f"{url}/lab/v1", "api_key": KEY, "policy": QUICK, **more}


@pytest.mark.parametrize("how", ["rst", "fin"])
@pytest.mark.parametrize("cut_after", [1200, 2222])
def test_a_turn_goes_on_behind_the_last_byte(
    relays: Relays, stack: ExitStack, asking: Asking, how: Any, cut_after: int
) -> None:
    url = way_to(relays.serve(SLOW), stack, cut_after=cut_after, cuts=3, how=how)
    said = asking(relays.lab, client=through(url))
    assert said.error is None
    assert said.answer.text == ANSWER
    assert relays.asked_upstream == 1
    assert len(said.report.resumes) == 3
    assert said.report.replays == said.report.retries == 0
    assert [attempt.billed for attempt in said.report.attempts[1:]] == ["no", "no", "no"]


def test_a_way_that_is_cut_before_the_headers_costs_nothing_either(
    in_memory: Relays, stack: ExitStack, asking: Asking
) -> None:
    client = in_memory.serve(ScriptedAnswer(text=TEXT, think=0.5, think_at="before_headers"))
    url = way_to(client, stack, idle=0.2, cuts=1)
    said = asking(in_memory.lab, client=through(url, relay=url))
    assert said.answer.text == ANSWER
    assert said.report.losses == ("reset@headers",)
    assert in_memory.asked_upstream == 1


def test_a_relay_is_named_and_the_provider_behind_it(in_memory: Relays, stack: ExitStack, asking: Asking) -> None:
    client = in_memory.serve(SLOW)
    relay = stack.enter_context(_named(in_memory, "deepseek"))
    url = way_to(Client(stack, relay), stack, cut_after=2000, cuts=2)
    said = asking(in_memory.lab, client={"provider": "deepseek", "relay": f"{url}/", "base_url": None})
    assert said.answer.text == ANSWER
    assert in_memory.lab.requests[0].header("x-unbroken-key") is None
    assert len(said.report.resumes) == 2
    assert client.served.entries == []


def _named(relays: Relays, name: str) -> Any:
    from relay.serving import Served, settings_to

    return Served(settings_to({name: relays.lab.url}, keep=20.0))


def test_without_a_relay_that_keeps_a_cut_is_a_cut(in_memory: Relays, stack: ExitStack, asking: Asking) -> None:
    url = way_to(in_memory.serve(SLOW, keep=0.0), stack, cut_after=2000, cuts=1)
    said = asking(in_memory.lab, client=through(url, relay=url))
    assert isinstance(said.error, StreamCut)
    assert said.report.resumes == ()
    assert ANSWER.startswith(said.answer.text)


def test_a_turn_that_was_cut_at_the_relay_ends_as_a_cut(relays: Relays, stack: ExitStack, asking: Asking) -> None:
    lost = Policy(retries=0, replays=0)
    client = relays.serve(SLOW, [Fault("rst", "after_characters", offset=120)], policy=lost)
    said = asking(relays.lab, client=through(way_to(client, stack, cut_after=1500, cuts=1)))
    assert said.error is not None
    assert said.answer.text == ANSWER[:120]


def test_a_turn_that_is_kept_no_more_is_a_cut_that_says_so(in_memory: Relays, stack: ExitStack, asking: Asking) -> None:
    client = in_memory.serve(SLOW, max_kept=6000)
    said = asking(in_memory.lab, client=through(way_to(client, stack, cut_after=6000, cuts=1)))
    assert isinstance(said.error, StreamCut)
    assert ANSWER.startswith(said.answer.text)


def test_every_byte_of_run_is_there_once(relays: Relays, stack: ExitStack, tmp_path: Path) -> None:
    url = way_to(relays.serve(SLOW), stack, cut_after=1800, cuts=3)
    ended = run(
        *("run", "--base-url", f"{url}/lab/v1", "--api-key-env", "MY_KEY", "--no-proxy", "Hello"),
        env=environment(tmp_path, MY_KEY=KEY),
    )
    assert (ended.code, ended.out) == (0, f"{ANSWER}\n")
    assert ended.err.count("resuming after byte ") == 3
    assert relays.asked_upstream == 1
    poll(lambda: relays.asked_upstream == 1)
