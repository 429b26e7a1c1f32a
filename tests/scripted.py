"""A base that says given texts: its next token follows from the position alone.

Where a text begins is a fixed position, so a prompt is made as long as it has to be with dots in
the user's message. All that such a base does is real: only its weights were computed, not trained.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from live import Live

_SMALL = 0.1
#: The first text begins here, the others each so many tokens later.
_FIRST, _STEP = 800, 128


class Script:
    """Texts by their names, and the base that says them.

    Args:
        tokenizer: of the base; its end ends every text.
        texts: name -> text.
    """

    def __init__(self, tokenizer: Any, texts: Mapping[str, str]) -> None:
        self._tokenizer = tokenizer
        self.texts = texts
        self._starts = {name: _FIRST + _STEP * i for i, name in enumerate(texts)}

    def save(self, folder: Path) -> Path:
        """Write the base and return its folder."""
        ids: dict[int, int] = {}
        for name, text in self.texts.items():
            said = self._tokenizer(text, add_special_tokens=False)["input_ids"]
            said = [*said, self._tokenizer.eos_token_id]
            assert len(said) < _STEP
            ids |= {self._starts[name] - 1 + i: token for i, token in enumerate(said)}
        _model(len(self._tokenizer), ids, self._tokenizer.eos_token_id).save_pretrained(folder)
        self._tokenizer.save_pretrained(folder)
        return folder

    def body(self, live: Live, name: str, **more: Any) -> dict[str, Any]:
        """Return the body of a chat that a text answers, told to be as long as it has to be."""
        messages = more.pop("messages", [{"role": "user", "content": "?"}])
        body = {"model": "tiny", "messages": messages, "temperature": 0, **more}
        probe = {k: v for k, v in body.items() if k not in ("stream", "stream_options")}
        asked = live.http.post("/v1/chat/completions", json={**probe, "max_tokens": 1})
        assert asked.status_code == 200, asked.text
        missing = self._starts[name] - asked.json()["usage"]["prompt_tokens"]
        assert missing >= 0
        *rest, last = messages
        body["messages"] = [*rest, {**last, "content": last["content"] + "." * missing}]
        return body


def _model(vocabulary: int, ids: Mapping[int, int], end: int) -> GPT2LMHeadModel:
    """Return a model whose likeliest token at each of some positions is the given one."""
    width = len(ids) + -len(ids) % 16  # each position has a direction of its own
    config = GPT2Config(
        vocab_size=vocabulary,
        n_embd=width,
        n_layer=1,
        n_head=4,
        n_positions=max(ids) + _STEP,
        tie_word_embeddings=False,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
    )
    model = GPT2LMHeadModel(config)
    generator = torch.Generator().manual_seed(0)
    marks = torch.randn(len(ids), width, generator=generator)
    marks = torch.nn.functional.layer_norm(marks, (width,))
    wanted = torch.zeros(len(ids), vocabulary)
    wanted[torch.arange(len(ids)), torch.tensor(list(ids.values()))] = 10.0
    with torch.no_grad():
        for parameter in model.transformer.h.parameters():
            parameter.mul_(_SMALL)  # attention and the rest change nothing of what is likeliest
        model.transformer.wte.weight.mul_(_SMALL)
        model.transformer.wpe.weight.normal_(generator=generator)
        model.transformer.wpe.weight[torch.tensor(list(ids))] = marks
        model.lm_head.weight.copy_((torch.linalg.pinv(marks) @ wanted).T)
    return model
