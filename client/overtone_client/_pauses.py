"""Waiting, for both clients."""

import time


def pause(seconds: float) -> None:
    """Let the calling thread wait."""
    time.sleep(seconds)


async def async_pause(seconds: float) -> None:
    """Let the calling task wait, in any event loop that httpx2 runs in."""
    import anyio  # takes a while, and most programs never wait

    await anyio.sleep(seconds)
