"""Counts follow a growing text, and read each of its tokens once."""

from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from server.scheduling.token_counts import TokenCounts


class Text(list[int]):
    """A list that counts how many of its items were read."""

    reads = 0

    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        self.reads += len(found) if isinstance(index, slice) else 1
        return found


PIECES = st.lists(st.lists(st.integers(0, 99)))


@given(pieces=PIECES, start=st.integers(0, 9), prompt=st.integers(0, 20))
def test_they_are_those_of_the_text_as_far_as_it_goes(
    pieces: list[list[int]], start: int, prompt: int
) -> None:
    counts, text = TokenCounts(start, start + prompt), Text()
    for piece in pieces:
        text += piece
        for _ in range(2):
            counts.follow(text)
        found = dict(zip(counts.tokens.tolist(), counts.counts.tolist(), strict=True))
        answer = Counter(text[start + prompt :])
        assert found == {token: answer[token] for token in text[start:]}


def test_a_token_is_read_once_however_often_they_are_asked_for() -> None:
    counts, text = TokenCounts(0, 3), Text()
    for token in range(500):
        text.append(token % 7)
        counts.follow(text)
    assert text.reads == 500
