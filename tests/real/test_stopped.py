"""A process that is really stopped, for longer than a path may be silent, and goes on."""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from unbroken.lab import ScriptedAnswer, Upstream
from waiting import wait_until_asleep

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name == "nt", reason="needs SIGSTOP")]

PROGRAM = Path(__file__).with_name("stopped.py")


@pytest.mark.parametrize("http2", [False, True], ids=["HTTP/1.1", "HTTP/2"])
@pytest.mark.parametrize("side", ["blocking", "asyncio", "trio"])
def test_the_time_counts_for_no_limit(
    side: str, http2: bool, authority: Any, server_tls: ssl.SSLContext, tmp_path: Path
) -> None:
    ca_file = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(ca_file)
    answer = ScriptedAnswer(think=3.2, think_at="before_headers")
    with Upstream(answer=answer, ssl_context=server_tls, http2=http2) as upstream:
        command = [sys.executable, str(PROGRAM), side, upstream.url, str(ca_file)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
            assert upstream.wait_for(lambda: upstream.requests, timeout=20)
            wait_until_asleep(program.pid)  # it waits for the answer
            program.send_signal(signal.SIGSTOP)
            time.sleep(2.5)  # the time in which it does not run
            program.send_signal(signal.SIGCONT)
            told, _ = program.communicate(timeout=30)
        assert json.loads(told) == {"size": len(upstream.requests[0].sent), "failures": [None]}
        assert len(upstream.requests) == 1
