"""A program that runs one turn and prints what came of it: it is stopped and continued meanwhile."""

import json
import ssl
import sys
from typing import Any

import anyio
import trio

from unbroken.core.dialects import recognise
from unbroken.core.http import Request
from unbroken.core.policy import Policy
from unbroken.drivers.asynchronous import AsyncDriver
from unbroken.drivers.synchronous import Driver
from unbroken.wire import clock
from unbroken.wire.async_http import AsyncHttpWire
from unbroken.wire.http import HttpWire

side, url, ca_file = sys.argv[1:]
clock.LATE = 0.3  # no test has time for more
policy = Policy(idle_timeout=1.5, give_up_after=1.5, unreachable_for=1.5, ping_interval=0.2, ping_timeout=1.0)
request = Request("POST", f"{url}/chat/completions", (), json.dumps({"messages": [], "stream": True}).encode())
call: Any = recognise(request)
verify = ssl.create_default_context(cafile=ca_file)


def tell(report: Any, size: int) -> None:
    print(json.dumps({"size": size, "failures": [attempt.failure for attempt in report.attempts]}))  # noqa: T201


async def run() -> None:
    async with AsyncDriver(AsyncHttpWire(proxy="", verify=verify), request, call, policy) as driver:
        await driver.open()
        size = sum([len(chunk) async for chunk in driver])
        tell(driver.report, size)


if side == "blocking":
    with Driver(HttpWire(proxy="", verify=verify), request, call, policy) as driver:
        driver.open()
        size = sum(len(chunk) for chunk in driver)
        tell(driver.report, size)
elif side == "trio":
    trio.run(run)
else:
    anyio.run(run)
