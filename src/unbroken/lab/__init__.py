"""The server side of the laboratory: breaks connections on purpose, over real sockets.

* `Upstream`: a scripted LLM server (OpenAI's chat, responses and legacy completions, Anthropic, Gemini, Interactions;
  HTTP/1.1 and HTTP/2, with or without TLS) that breaks where a `Fault` says, and records its requests and what it sent.
* `Scenario`: a script of faults, as Python or as a TOML file; `catalogue()` has those that come with the lab.
* `judge`: the verdict on a client, from what was seen of it in a scenario.
* `CuttingProxy`: an HTTP and SOCKS5 proxy that cuts idle connections.
* `FaultProxy`: a reverse proxy that puts faults before a real upstream.

All run on a thread and an event loop of their own, so that synchronous and asynchronous tests and the command line
use them alike::

    with Upstream(faults=[Fault("rst", "after_role")]) as upstream:
        ...  # talk to upstream.url
        assert upstream.wait_for(lambda: len(upstream.requests) == 2, timeout=1)
"""

from unbroken.lab.answer import ScriptedAnswer
from unbroken.lab.background import Background
from unbroken.lab.continuing import Continuation
from unbroken.lab.fault import KINDS, POINTS, Fault, Kind, Point, parse_fault
from unbroken.lab.fault_proxy import FaultProxy, PassedRequest
from unbroken.lab.proxy import CuttingProxy
from unbroken.lab.record import RecordedRequest
from unbroken.lab.scenario import Scenario, catalogue, find_scenario, load_scenario, parse_scenario
from unbroken.lab.scenario_server import run_scenario
from unbroken.lab.tunnel import Tunnel
from unbroken.lab.upstream import Upstream
from unbroken.lab.verdict import Baseline, ClientRun, ClientVerdict, baseline, judge

__all__ = [
    "KINDS",
    "POINTS",
    "Background",
    "Baseline",
    "ClientRun",
    "ClientVerdict",
    "Continuation",
    "CuttingProxy",
    "Fault",
    "FaultProxy",
    "Kind",
    "PassedRequest",
    "Point",
    "RecordedRequest",
    "Scenario",
    "ScriptedAnswer",
    "Tunnel",
    "Upstream",
    "baseline",
    "catalogue",
    "find_scenario",
    "judge",
    "load_scenario",
    "parse_fault",
    "parse_scenario",
    "run_scenario",
]
