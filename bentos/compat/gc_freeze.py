"""Takes what is loaded at start-up out of the garbage collector's sight.

Walking the objects of BentoML and its libraries made the slowest hundredth of requests take 300 ms, not 40.
"""

from __future__ import annotations

import gc
from collections.abc import Callable

from starlette.applications import Starlette

from bentos.asgi import Message, Send
from bentos.compat.assumptions import require

STARTED = "lifespan.startup.complete"


def check_assumptions() -> None:
    """Return if the application that BentoML makes, one of Starlette's, says when its start is complete.

    Raises
    ------
    BrokenAssumptionError
        If it does not: nothing would be frozen, and the runners would not see their last requests through.
    """
    said: list[str] = []

    async def receive() -> Message:
        return {"type": "lifespan.shutdown" if said else "lifespan.startup"}

    async def send(message: Message) -> None:
        said.append(message["type"])

    life = Starlette()({"type": "lifespan"}, receive, send)
    try:
        life.send(None)  # it waits for nothing but the two functions above, so no loop is needed
    except StopIteration:
        pass
    finally:
        life.close()
    require("starlette", f"its life cycle says `{STARTED}` first", said[:1] == [STARTED])


def freeze_after_startup(send: Send, then: Callable[[], None] = lambda: None) -> Send:
    """Return a `send` that calls ``gc.freeze``, then `then`, once the lifespan start-up is complete."""

    async def wrapped(message: Message) -> None:
        if message["type"] == STARTED:
            gc.collect()
            gc.freeze()
            then()
        await send(message)

    return wrapped
