"""Stop strings in text character by character."""

from hypothesis import given, settings
from hypothesis import strategies as st

from server.generation.stops import StopSearch

letters = st.sampled_from("ab")
stop_strings = st.lists(st.text(letters, min_size=1, max_size=6), min_size=1, max_size=4)


@settings(max_examples=500, deadline=None)
@given(text=st.text(letters, max_size=40), stops=stop_strings)
def test_the_first_end_of_a_stop_string_is_found_and_the_longest_that_ends_there(
    text: str, stops: list[str]
) -> None:
    search = StopSearch(stops)
    for length in range(1, len(text) + 1):
        ended = [stop for stop in stops if text[:length].endswith(stop)]
        found = search.take(text[length - 1])
        assert found == max(ended, key=len, default=None)
        if found:
            return


@settings(max_examples=500, deadline=None)
@given(text=st.text(letters, max_size=40), stops=stop_strings)
def test_it_knows_how_much_of_a_stop_string_has_begun(text: str, stops: list[str]) -> None:
    search = StopSearch(stops)
    for length in range(1, len(text) + 1):
        if search.take(text[length - 1]):
            return
        begun = [
            count
            for stop in stops
            for count in range(len(stop))
            if text[:length].endswith(stop[:count])
        ]
        assert search.num_begun == max(begun)


def test_without_stop_strings_nothing_is_held() -> None:
    search = StopSearch(())
    assert search.take("a") is None
    assert search.num_begun == 0
