"""Small tokenizers of every family that causal LMs have, trained here on a few words."""

import json
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

BOS, EOS, UNK, PAD = "<bos>", "<eos>", "<unk>", "<pad>"
#: Of chat templates: a turn's begin and end.
START, TURN = "<start>", "<turn>"
SPECIALS = [UNK, PAD, BOS, EOS, START, TURN]
_TEXT = (
    "key value question answer system user assistant model begin end of the a an is are was "
    "two three ten hello world tokens blanks words small large red green blue"
)
WORDS = _TEXT.split()
_LINES = [
    *(" ".join(WORDS[i:] + WORDS[:i]) for i in range(len(WORDS))),
    *(f"key{i}=v{i}, {i} + {i} = {2 * i}. Don't (ever) [stop]: {i}? {i}!\n" for i in range(60)),
    *(chr(code) for code in range(32, 127)),
]
_BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def _trained(made: Tokenizer, trainer: Any) -> Tokenizer:
    made.train_from_iterator(_LINES, trainer)
    return made


def _byte_level(prefix: bool = False) -> Tokenizer:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return _trained(
        made,
        trainers.BpeTrainer(
            vocab_size=500, special_tokens=SPECIALS, initial_alphabet=alphabet, show_progress=False
        ),
    )


def _unigram(scheme: str, splits: bool = False) -> Tokenizer:
    """Return SentencePiece's, as T5 and XLM-R (`splits`) have it."""
    made = Tokenizer(models.Unigram())
    space = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    split = pre_tokenizers.WhitespaceSplit()
    made.pre_tokenizer = pre_tokenizers.Sequence([split, space]) if splits else space
    made.decoder = decoders.Metaspace(prepend_scheme=scheme)
    return _trained(
        made,
        trainers.UnigramTrainer(
            vocab_size=350, special_tokens=SPECIALS, unk_token=UNK, show_progress=False
        ),
    )


def _byte_fallback(is_old: bool) -> Tokenizer:
    """Return Llama-2's, with the blank before a text from the normalizer (old) or Metaspace."""
    made = Tokenizer(models.BPE(unk_token=UNK, fuse_unk=True, byte_fallback=True))
    if is_old:
        made.normalizer = normalizers.Sequence(
            [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
        )
    else:
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    steps = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    made.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)])
    return _with_bytes(made)


def _gemma() -> Tokenizer:
    """Return Gemma's: blanks are characters of their own, nothing stands before a text."""
    made = Tokenizer(models.BPE(unk_token=UNK, fuse_unk=True, byte_fallback=True))
    made.normalizer = normalizers.Replace(" ", "\u2581")
    made.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    made.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return _with_bytes(made)


def _with_bytes(made: Tokenizer) -> Tokenizer:
    """Train with a token for every byte; as trained they are special, as used they are not."""
    trainer = trainers.BpeTrainer(
        vocab_size=800, special_tokens=[*SPECIALS, *_BYTES], max_token_length=6, show_progress=False
    )
    form = json.loads(_trained(made, trainer).to_str())
    form["added_tokens"] = form["added_tokens"][: len(SPECIALS)]
    return Tokenizer.from_str(json.dumps(form))


def _wordpiece(lowers: bool = False) -> Tokenizer:
    made = Tokenizer(models.WordPiece(unk_token=UNK))
    made.normalizer = normalizers.BertNormalizer(lowercase=lowers, strip_accents=False)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    return _trained(
        made,
        trainers.WordPieceTrainer(vocab_size=500, special_tokens=SPECIALS, show_progress=False),
    )


def _with_ends(made: Tokenizer, single: str) -> Tokenizer:
    """Return a tokenizer that puts special tokens around a text."""
    ids = [(token, made.token_to_id(token)) for token in (BOS, EOS)]
    made.post_processor = processors.TemplateProcessing(single=single, special_tokens=ids)
    return made


def _stripping() -> Tokenizer:
    """Return ALBERT's and mBART's way: blanks at a text's ends go, several become one."""
    made = _unigram("always")
    made.normalizer = normalizers.Sequence(
        [normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    return made


KINDS: Mapping[str, Callable[[], Tokenizer]] = {
    "byte-level": _byte_level,
    "byte-level, blank before": lambda: _byte_level(prefix=True),
    "byte-level, bos": lambda: _with_ends(_byte_level(), f"{BOS} $A"),
    "byte-level, bos and eos": lambda: _with_ends(_byte_level(), f"{BOS} $A {EOS}"),
    "unigram, always": lambda: _unigram("always"),
    "unigram, first": lambda: _unigram("first"),
    "unigram, never": lambda: _unigram("never"),
    "unigram, split at blanks": lambda: _unigram("always", splits=True),
    "unigram, bos": lambda: _with_ends(_unigram("always"), f"{BOS} $A"),
    "unigram, stripping": _stripping,
    "byte fallback, old": lambda: _with_ends(_byte_fallback(is_old=True), f"{BOS} $A"),
    "byte fallback": lambda: _with_ends(_byte_fallback(is_old=False), f"{BOS} $A"),
    "gemma": lambda: _with_ends(_gemma(), f"{BOS} $A"),
    "wordpiece": _wordpiece,
    "wordpiece, bos and eos": lambda: _with_ends(_wordpiece(), f"{BOS} $A {EOS}"),
    "wordpiece, lower case": lambda: _wordpiece(lowers=True),
}

#: Chat templates of every shape that training meets.
TEMPLATES: Mapping[str, str] = {
    "turn end is no eos": (  # Gemma, Phi-3
        "{{ bos_token }}{% for m in messages %}<start>{{ m.role }}\n{{ m.content | trim }}<turn>\n"
        "{% endfor %}{% if add_generation_prompt %}<start>assistant\n{% endif %}"
    ),
    "turn end is eos": (  # Zephyr
        "{% for m in messages %}{{ m.role }}:\n{{ m.content }}{{ eos_token }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant:\n{% endif %}"
    ),
    "only answers end": (  # Llama-2; there is no prompt for an answer, and a blank before it
        "{% for m in messages %}{% if m.role == 'assistant' %} {{ m.content }} {{ eos_token }}"
        "{% else %}[ {{ m.content }} ]{% endif %}{% endfor %}"
    ),
    "turns end in text": (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant:{% endif %}"
    ),
    "special tokens right before the answer": (
        "{% for m in messages %}<start>{{ m.content }}<turn>{% endfor %}"
        "{% if add_generation_prompt %}<start><start><start><start><start><start><start><start>"
        "{% endif %}"
    ),
    "earlier answers are shortened": (  # as reasoning models do with their thoughts
        "{% for m in messages %}<start>{{ m.role }} "
        "{{ m.content if m.role != 'assistant' or loop.last else m.content[:1] }}<turn>{% endfor %}"
        "{% if add_generation_prompt %}<start>assistant {% endif %}"
    ),
    "the last turn is not ended": (
        "{% for m in messages %}<start>{{ m.role }}\n{{ m.content }}{% if not loop.last %}<turn>\n"
        "{% endif %}{% endfor %}{% if add_generation_prompt %}<turn>\n<start>assistant\n{% endif %}"
    ),
}


@cache
def tokenizer(kind: str, template: str | None = None) -> PreTrainedTokenizerFast:
    """Return the tokenizer of a kind with a chat template; do not change it."""
    made = PreTrainedTokenizerFast(
        tokenizer_object=KINDS[kind](),
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNK,
        pad_token=PAD,
        additional_special_tokens=[START, TURN],
    )
    made.chat_template = template
    return made
