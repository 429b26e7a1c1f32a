"""Counts follow a growing text, and read each of its tokens once."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from server.scheduling.token_counts import TokenCounts


class Text(list[int]):
    """A list that counts how many of its items were read."""

    reads = 0

    def __getitem__(self, index: int) -> int:  # type: ignore[override]
        self.reads += 1
        return super().__getitem__(index)


@given(pieces=st.lists(st.lists(st.integers(0, 99))), start=st.integers(0, 20))
def test_they_are_those_of_the_text_from_the_start_on(pieces: list[list[int]], start: int) -> None:
    counts, text = TokenCounts(start), Text()
    for piece in pieces:
        text += piece
        for _ in range(2):
            counts.follow(text)
        found = dict(zip(counts.tokens.tolist(), counts.counts.tolist(), strict=True))
        assert found == Counter(text[start:])


def test_a_token_is_read_once_however_often_they_are_asked_for() -> None:
    counts, text = TokenCounts(), Text()
    for token in range(500):
        text.append(token % 7)
        counts.follow(text)
    assert text.reads == 500
