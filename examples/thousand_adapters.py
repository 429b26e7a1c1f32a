"""A thousand adapters in one server, asked as often as names are in life: a few of them mostly.

Shows: adapters of 2 kB published from memory, a Zipf load, and a live chart in the terminal.
Run:   ./run demo                                    (in another terminal)
       .venv/bin/python examples/thousand_adapters.py [--adapters 1000] [--seconds 20]
"""

import argparse
import asyncio
import os
import time
from collections import Counter
from contextlib import suppress

import numpy as np
import plotille
from rich.live import Live
from rich.text import Text

from overtone_client import AsyncClient

URL = os.environ.get("OVERTONE_URL", "http://127.0.0.1:8000")
NUM_CALLERS, NUM_LAYERS, SIZE = 16, 4, 64  # the demo's base has four layers
CONFIG = {"peft_type": "FOURIERFT", "task_type": "CAUSAL_LM", "base_model_name_or_path": "demo"}
CONFIG |= {"n_frequency": SIZE, "random_loc_seed": 777, "target_modules": ["q_proj", "v_proj"]}
NAME = "base_model.model.model.layers.{}.self_attn.{}_proj.fourierft_spectrum"


async def publish(client: AsyncClient, caller: int, num_adapters: int) -> None:
    """Upload a caller's share of the adapters, each of random coefficients."""
    for number in range(caller, num_adapters, NUM_CALLERS):
        drawn = np.random.default_rng(number)
        names = (NAME.format(layer, of) for layer in range(NUM_LAYERS) for of in "qv")
        tensors = {name: drawn.normal(size=SIZE).astype(np.float32) for name in names}
        await client.upload_peft(tensors, f"customer-{number:04}", config=CONFIG)


async def ask(client: AsyncClient, caller: int, shares: np.ndarray, answers: list) -> None:
    """Ask one adapter after the other, the n-th 1/n as often as the first."""
    drawn = np.random.default_rng(caller)
    while True:
        name = f"customer-{drawn.choice(len(shares), p=shares):04}"
        await client.complete(name, "The", max_tokens=8, ignore_eos=True)
        answers.append((time.monotonic(), name))


def chart(answers: list, began: float) -> Text:
    """Draw the answers of each second so far, but for the one that goes on."""
    per_second = Counter(int(moment - began) for moment, _ in answers)
    seconds = range(max(2, int(time.monotonic() - began)))
    figure = plotille.Figure()
    figure.width, figure.height, figure.x_label, figure.y_label = 50, 8, "second", "answers/s"
    figure.origin = False
    figure.register_label_formatter(float, lambda x, chars, *_, **__: f"{x:.0f}".ljust(chars))
    figure.set_y_limits(0, 1 + max(per_second.values(), default=0))
    figure.plot(seconds, [per_second[second] for second in seconds])
    return Text.from_ansi(figure.show())


async def main(num_adapters: int, seconds: float) -> None:
    """Publish, load, and say what was answered."""
    shares = 1 / np.arange(1, num_adapters + 1)
    async with AsyncClient(URL) as client:
        await asyncio.gather(*(publish(client, n, num_adapters) for n in range(NUM_CALLERS)))
        print(f"{num_adapters} adapters are published")
        answers, began = [], time.monotonic()
        callers = (ask(client, n, shares / shares.sum(), answers) for n in range(NUM_CALLERS))
        shown = Live(get_renderable=lambda: chart(answers, began), refresh_per_second=2)
        with shown, suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*callers), seconds)
    asked = Counter(name for _, name in answers)
    print(f"\n{len(answers)} answers of {len(asked)} adapters in {seconds:g} s; the most asked:")
    print(", ".join(f"{name} {count}" for name, count in asked.most_common(5)))


if __name__ == "__main__":
    options = argparse.ArgumentParser()
    options.add_argument("--adapters", dest="num_adapters", type=int, default=1000)
    options.add_argument("--seconds", type=float, default=20)
    asyncio.run(main(**vars(options.parse_args())))
