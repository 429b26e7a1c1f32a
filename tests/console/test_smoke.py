"""The console in a real browser, quickly: it loads, shows the base, and answers a prompt."""

from collections.abc import Callable

from browser import Watched
from live import Live


def test_a_prompt_is_answered_side_by_side_as_the_api_answers_it(
    live: Live, open_console: Callable[..., Watched]
) -> None:
    page = open_console(live.url).go("playground?models=tiny")
    expected = live.complete("tiny", "Once upon", max_tokens=6).json()["choices"][0]["text"]
    if live.http.get("/v1/models").json()["data"][0]["overtone"]["chats"]:
        page.get_by_role("button", name="Completion").click()
    page.get_by_label("Text to go on from").fill("Once upon")
    page.get_by_text("Sampling:").click()
    page.get_by_label("Max tokens").fill("6")
    page.get_by_role("button", name="Ask").click()
    answer = page.get_by_role("region", name="Answer of tiny")
    answer.get_by_text("cut at max tokens").wait_for()
    assert answer.locator(".text").text_content() == expected
