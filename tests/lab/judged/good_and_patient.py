"""Shows nothing before the answer is whole; asks again where that is of use, waits as it is told, and gives up."""

import sys
import time

from chat import LOST, ask, events, finish_of, show, text_of

TRIES = 4
LONGEST = 20.0


def answer() -> str:
    """Return the whole answer."""
    response = ask()
    if response.status != 200:
        wait = float(response.headers.get("retry-after") or 0.1)
        if 400 <= response.status < 500 and (response.status != 429 or b"quota" in response.read() or wait > LONGEST):
            sys.exit(f"HTTP {response.status}")
        time.sleep(wait)
        raise ConnectionError(f"HTTP {response.status}")
    text = ""
    for event in events(response):
        text += text_of(event)
        if finish := finish_of(event):
            if finish in ("length", "content_filter"):
                sys.exit(f"the answer was ended: {finish}")
            if finish == "stop":
                return text
            raise ConnectionError(finish)
        if "error" in event:
            raise ConnectionError("the server reports an error")
    raise ConnectionError("the answer ended too early")


for attempt in range(TRIES):
    try:
        show(answer())
        sys.exit(0)
    except (*LOST, ValueError) as error:
        sys.stderr.write(f"attempt {attempt + 1}: {error!r}\n")
        time.sleep(0.1 * 2**attempt)
sys.exit("no answer")
