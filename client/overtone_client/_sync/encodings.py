# Made of _async/encodings.py by `./run reference`: change that file.
"""What is asked of an encoder, and of the base's tokenizer."""

from collections.abc import Sequence

from .. import _encoding_calls as calls
from .. import _requests as requests
from .. import _responses as responses
from ..encoding_types import Classification, Embeddings, Inputs, Tokens
from ..types import Messages, Reranking, Scores, Texts
from .sender import Sender


class EncodingCalls:
    """The client's methods that ask for labels, vectors, scores or tokens."""

    _sender: Sender

    def classify(
        self, model: str, inputs: Inputs, *, truncate: bool | None = None
    ) -> Classification:
        """Say which label each text or image has.

        Args:
            model: the base's name, or `NAME`, `NAME@3`, `NAME@prod`, `NAME@sha256:…`.
            inputs: a text, several, token ids, several lists of them; images as data URLs.
            truncate: cut a text that is too long instead of refusing it.
        """
        answer = self._sender.send(calls.classify(model, inputs, truncate))
        return calls.parse_classification(answer)

    def embed(
        self,
        model: str,
        inputs: Inputs,
        *,
        prompt_name: str | None = None,
        truncate: bool | None = None,
    ) -> Embeddings:
        """Return one vector per text.

        Args:
            model: as in `classify`.
            inputs: as in `classify`.
            prompt_name: one of the prompts that a sentence-transformers base comes with.
            truncate: cut a text that is too long instead of refusing it.
        """
        params = {"prompt_name": prompt_name, "truncate": truncate}
        answer = self._sender.send(calls.embed(model, inputs, params))
        return calls.parse_embeddings(answer)

    def rerank(
        self,
        model: str,
        query: str,
        documents: Sequence[str],
        *,
        top_n: int | None = None,
        truncate: bool | None = None,
    ) -> Reranking:
        """Order documents by how well they answer a query, as a cross-encoder scores them.

        Args:
            model: as in `classify`.
            query: what is asked.
            documents: the texts.
            top_n: only so many of the best; None: all.
            truncate: cut a text that is too long instead of refusing it.
        """
        params = {"top_n": top_n, "truncate": truncate}
        answer = self._sender.send(requests.rerank(model, query, documents, params))
        return responses.parse_reranking(answer)

    def score(
        self, model: str, text_1: Texts, text_2: Texts, *, truncate: bool | None = None
    ) -> Scores:
        """Score pairs of texts: one `text_1` with every `text_2`, or each with its own."""
        call = requests.score(model, text_1, text_2, {"truncate": truncate})
        return responses.parse_scores(self._sender.send(call))

    def tokenize(
        self,
        prompt: str | None = None,
        *,
        messages: Messages | None = None,
        model: str | None = None,
        add_special_tokens: bool | None = None,
    ) -> Tokens:
        """The tokens of a prompt or of a conversation, as an answer to it would see them.

        Args:
            prompt: a text.
            messages: a chat instead of a prompt.
            model: a base or an adapter, which all have the same tokens; None: the base.
            add_special_tokens: those that a prompt gets, such as one of its beginning.
        """
        params = {"model": model, "add_special_tokens": add_special_tokens}
        call = calls.tokenize(prompt, messages, params)
        return calls.parse_tokens(self._sender.send(call))

    def detokenize(self, ids: Sequence[int], *, model: str | None = None) -> str:
        """The text that tokens say; special tokens are a part of it."""
        return calls.parse_text(self._sender.send(calls.detokenize(ids, model)))
