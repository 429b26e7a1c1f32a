"""Continuous improvement: what is served changes only when it is measured to be better.

Shows: a first version with an alias, a better one that takes the alias over, a worse one that the
       gate holds back, and the way back, all under one name that callers use: recipes@prod.
Run:   ./run demo                                    (in another terminal)
       .venv/bin/python examples/continuous_improvement.py
"""

import os
import tempfile
from pathlib import Path

from overtone_client import Client, Job

URL = os.environ.get("OVERTONE_URL", "http://127.0.0.1:8000")
NAME, ALIAS = "recipes", "prod"
LINES = (Path(__file__).parent.parent / "trainer" / "demo" / "recipes.jsonl").read_text()
LEARNED, HELD_OUT = LINES.splitlines()[:-12], LINES.splitlines()[-12:]


def uploaded(client: Client, lines: list[str]) -> str:
    """Upload lines to learn, and return the file's id."""
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        file.write("\n".join(lines))
        file.flush()
        return client.training.upload(file.name).id


def learn(client: Client, lines: list[str], held_out: str, epochs: int, gate: str) -> Job:
    """Train a version; the alias moves to it if it is better than what the gate names."""
    job = client.training.create(
        client.models(limit=1)[0].id,
        uploaded(client, lines),
        name=NAME,
        method="waveletft",
        validation_file=held_out,  # the same for all, or losses could not be compared
        hyperparameters={"n_epochs": epochs, "batch_size": 6},
        seed=1,
        alias=ALIAS,
        publish_if={"metric": "eval_loss", "better_than": gate},
    ).wait()
    serves = client.show(NAME).aliases[ALIAS]
    loss = job.metrics["eval_loss"]
    print(f"{job.fine_tuned_model}: held-out loss {loss:.3f}; {NAME}@{ALIAS} is version {serves}")
    return job


def say(client: Client) -> None:
    """Ask under the name that callers use."""
    answer = client.complete(f"{NAME}@{ALIAS}", "Take two cups", max_tokens=12, temperature=0)
    print(f"  {NAME}@{ALIAS} (version {answer.answered_by.version}) says{answer.text!r}")


def main() -> None:
    """Train three times, and go back once."""
    with Client(URL) as client:
        held_out = uploaded(client, HELD_OUT)
        print("a first version, from a third of the lines:")
        first = learn(client, LEARNED[::3], held_out, 1, "base")
        say(client)
        print("more lines, more epochs: better, so callers get it:")
        learn(client, LEARNED, held_out, 4, f"alias:{ALIAS}")
        say(client)
        print("two lines alone: worse, so the alias stays where it is:")
        learn(client, LEARNED[:2], held_out, 1, f"alias:{ALIAS}")
        say(client)
        print("back to the first, if the alias was not moved meanwhile:")
        version = int(first.fine_tuned_model.rpartition("@")[2])
        now = client.show(NAME).aliases[ALIAS]
        client.alias(NAME, ALIAS, version, if_match=now)
        say(client)


if __name__ == "__main__":
    main()
