"""A server for the benchmark, in a process of its own: streams of ready-made chunks, as fast as asked.

    GET or POST /burst/<events>/v1/chat/completions     as fast as they are taken
    GET or POST /paced/<events>/v1/chat/completions     one event a wake-up, 1 ms apart
    GET or POST /idle/<events>/v1/chat/completions      headers and a role, then nothing until the client leaves

Prints its port.
"""

from __future__ import annotations

import asyncio
import contextlib

TOKEN = (
    b'data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1700000000,"model":"bench",'
    b'"system_fingerprint":"fp_0123456789","choices":[{"index":0,"delta":{"content":" token"},"logprobs":null,'
    b'"finish_reason":null}],"usage":null,"padding":"........................................................"}\n\n'
)
ROLE = TOKEN.replace(b'{"content":" token"}', b'{"role":"assistant","content":""}')
END = (
    TOKEN.replace(b'"finish_reason":null', b'"finish_reason":"stop"').replace(b'" token"', b'""') + b"data: [DONE]\n\n"
)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            _, mode, events = head.split(b" ", 2)[1].split(b"/")[:3]
            for line in head.lower().split(b"\r\n"):
                if line.startswith(b"content-length:"):
                    await reader.readexactly(int(line.partition(b":")[2]))
            writer.write(HEAD + chunk(ROLE))
            await stream(mode, int(events), writer)
            if mode == b"idle":
                await reader.read()
                return
            writer.write(chunk(END) + b"0\r\n\r\n")
            await writer.drain()
    writer.close()


async def stream(mode: bytes, events: int, writer: asyncio.StreamWriter) -> None:
    if mode == b"burst":
        for _ in range(events // 50):
            writer.write(chunk(TOKEN) * 50)
            await writer.drain()
    elif mode == b"paced":
        for _ in range(events):
            writer.write(chunk(TOKEN))
            await asyncio.sleep(0.001)


async def main() -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
