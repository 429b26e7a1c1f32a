"""An image classifier for each customer, on one Vision Transformer: other labels, other pictures.

Shows: adapters (CLoRA) trained over REST from zips of pictures, each with a head and labels of its
       own, and one server that answers for both customers.
Run:   .venv/bin/python examples/image_classifiers.py [PORT]    (starts a server of its own)
"""

import base64
import io
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

from overtone_client import Client

SIDE, PORT = 16, (sys.argv[1:] or ["8123"])[0]
Y, X = np.mgrid[:SIDE, :SIDE]
#: Customer -> label -> the bright places of a picture, and their colour.
CUSTOMERS = {
    "fruit": {"tomato": (X > 0, (220, 40, 40)), "lime": (X > 0, (60, 200, 60))},
    "cloth": {"plain": (X > 0, (200,) * 3), "striped": (X % 8 < 4, (200,) * 3)},
}


def picture(places: np.ndarray, colour: tuple, seed: int) -> bytes:
    """Draw a noisy picture, as PNG."""
    noise = np.random.default_rng(seed).normal(0, 30, (SIDE, SIDE, 3))
    pixels = (np.where(places[..., None], colour, 20) + noise).clip(0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(made := io.BytesIO(), "PNG")
    return made.getvalue()


def train(client: Client, customer: str, folder: Path) -> None:
    """Train a customer's classifier on forty pictures of each label, in folders of their names."""
    with zipfile.ZipFile(folder / "pictures.zip", "w") as file:
        for label, drawn in CUSTOMERS[customer].items():
            for seed in range(40):
                file.writestr(f"{label}/{seed}.png", picture(*drawn, seed))
    pictures = client.training.upload(folder / "pictures.zip")
    words = {"method": "clora", "task": "image_classification", "hyperparameters": {"n_epochs": 10}}
    job = client.training.create("base", pictures.id, name=customer, **words).wait()
    print(f"{job.fine_tuned_model}: held out, {job.metrics['accuracy']:.0%} are right")


def ask(client: Client, customer: str) -> None:
    """Say what a customer's classifier sees in new pictures."""
    for label, drawn in CUSTOMERS[customer].items():
        shown = base64.b64encode(picture(*drawn, seed=999)).decode()
        found = client.classify(customer, f"data:image/png;base64,{shown}").labels[0]
        print(f"  a new picture of {label}: {found.label} ({found.score:.2f})")


def main(folder: Path) -> None:
    """Make a base, serve it with a worker beside it, train for both customers, ask for both."""
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = ViTConfig(image_size=SIDE, patch_size=4, **sizes)  # random; yours has learned a lot
    ViTForImageClassification(config).save_pretrained(folder / "base")
    ViTImageProcessorPil(size={"height": SIDE, "width": SIDE}).save_pretrained(folder / "base")
    flags = ["--base", folder / "base", "--data", folder / "data", "--port", PORT, "--with-worker"]
    command = [Path(sys.executable).with_name("overtone"), "serve", *flags]
    with subprocess.Popen(command) as server, Client(f"http://127.0.0.1:{PORT}") as client:
        try:
            client.wait_until_ready()
            for customer in CUSTOMERS:
                train(client, customer, folder)
                ask(client, customer)
        finally:
            server.terminate()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(Path(folder))
