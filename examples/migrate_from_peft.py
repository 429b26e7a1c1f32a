"""From PEFT to a server, in ten lines: what a model with its adapter said, the server says, too.

Shows: a PeftModel published from memory, and the same answer from the server.
Run:   ./run demo                                    (in another terminal)
       .venv/bin/python examples/migrate_from_peft.py
"""

import os
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from overtone_client import Client

URL = os.environ.get("OVERTONE_URL", "http://127.0.0.1:8000")
BASE = Path(__file__).parent.parent / "trainer" / "demo" / "base"
PROMPT = "The list of names"


def main() -> None:
    """Ask PEFT, publish, ask the server."""
    torch.manual_seed(0)
    # What you have: a base, an adapter on it (here a random one, for yours), and generate().
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    model = AutoModelForCausalLM.from_pretrained(BASE)
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    model = get_peft_model(model, config).eval()
    ids = tokenizer(PROMPT, return_tensors="pt")
    made = model.generate(**ids, max_new_tokens=24, do_sample=False)
    by_peft = tokenizer.decode(made[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)

    # What you change: one upload, and the name of the adapter in the request.
    with Client(URL) as client:
        adapter = client.upload_peft(model, "migrated")
        answer = client.complete("migrated", PROMPT, max_tokens=24, temperature=0)

    print(f"PEFT:     {by_peft!r}")
    print(f"Overtone: {answer.text!r}")
    print(f"{adapter.name}@{adapter.version}, {adapter.size_bytes} bytes")
    print("the same" if answer.text == by_peft else "they differ")


if __name__ == "__main__":
    main()
