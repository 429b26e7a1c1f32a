"""The playground in a real browser: what is asked, streamed, stopped, shown and copied."""

from typing import Any

import pytest

from browser import Watched
from program import Program
from waiting import until

pytestmark = pytest.mark.slow


def ask(page: Any, prompt: str, tokens: int = 8) -> None:
    page.get_by_role("button", name="Completion").click()
    page.get_by_label("Text to go on from").fill(prompt)
    if not page.get_by_label("Max tokens").is_visible():
        page.get_by_text("Sampling:").click()
    page.get_by_label("Max tokens").fill(str(tokens))
    page.get_by_role("button", name="Ask").click()


def add(page: Any, *names: str) -> None:
    for name in names:
        page.get_by_label("Add an adapter").fill(name)
        page.keyboard.press("Enter")


def answer_of(page: Any, model: str) -> Any:
    return page.get_by_role("region", name=f"Answer of {model}")


def test_the_base_and_adapters_answer_side_by_side_as_alone(
    demo: Program, console: Watched
) -> None:
    page = console.go("playground?models=tiny,shouting")
    add(page, "legalese")
    ask(page, "The list")
    page.get_by_text("All answers are there").wait_for(state="attached")
    for model in ("tiny", "shouting", "legalese"):
        body = {"model": model, "prompt": "The list", "max_tokens": 8, "temperature": 0}
        alone = demo.http.post("/v1/completions", json=body).json()
        shown = answer_of(page, model)
        assert shown.locator(".text").text_content() == alone["choices"][0]["text"]
        by = alone["overtone"]
        if by["digest"]:
            assert by["digest"].removeprefix("sha256:")[:12] in shown.text_content()
            assert f"version {by['version']}" in shown.text_content()
        first, rate, tokens = shown.locator("dd").all_text_contents()
        assert (first.endswith("s"), rate != "–", tokens) == (True, True, "8")


def test_a_chat_is_answered_with_its_system_message(demo: Program, console: Watched) -> None:
    page = console.go("playground?models=tiny,shouting")
    page.get_by_label("System message").fill("Be short")
    page.get_by_label("Message", exact=True).fill("Hello")
    page.keyboard.press("Control+Enter")
    messages = [
        {"role": "system", "content": "Be short"},
        {"role": "user", "content": "Hello"},
    ]
    page.get_by_text("All answers are there").wait_for(state="attached")
    body = {"model": "shouting", "messages": messages, "max_tokens": 64, "temperature": 0}
    alone = demo.http.post("/v1/chat/completions", json=body).json()
    text = answer_of(page, "shouting").locator(".text").text_content()
    assert text == alone["choices"][0]["message"]["content"]


def test_a_long_answer_can_be_stopped_and_the_server_stops(demo: Program, console: Watched) -> None:
    page = console.go("playground?models=tiny")
    ask(page, "The", 400)
    text = answer_of(page, "tiny").locator(".text")
    until(lambda: len(text.text_content()) > 20)
    page.get_by_role("button", name="Stop").click()
    page.get_by_text("stopped", exact=True).first.wait_for()
    assert page.get_by_role("button", name="Ask").is_enabled()
    until(lambda: demo.http.get("/metrics/adapters").json()["running"] == 0)


def test_one_unknown_model_is_said_and_markup_in_names_and_texts_is_text(console: Watched) -> None:
    page = console.go("playground?models=tiny")
    evil = "<img src=x onerror=alert(1)>"
    add(page, evil)
    ask(page, evil)
    page.get_by_role("alert").wait_for()
    assert "<img src=x" in page.get_by_role("alert").text_content()
    assert page.locator("main img").count() == 0


def test_suggestions_are_chosen_by_keyboard_and_taken_out_again(console: Watched) -> None:
    page = console.go("playground?models=tiny")
    field = page.get_by_label("Add an adapter")
    field.focus()
    page.get_by_role("option", name="legalese").wait_for()
    page.keyboard.type("sho")
    page.get_by_role("option", name="legalese").wait_for(state="hidden")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Take shouting out").wait_for()
    page.get_by_role("button", name="Take tiny out").click()
    page.get_by_role("button", name="Add the base").click()
    tags = page.get_by_role("list", name="Models that are asked")
    assert tags.get_by_role("listitem").count() == 2
    add(page, "shouting@1", "legalese", "legalese@1")
    assert page.get_by_label("Add an adapter").is_disabled()  # five are asked at most


def test_the_code_that_is_shown_does_the_same(demo: Program, console: Watched) -> None:
    page = console.go("playground?models=tiny")
    add(page, "shouting")
    ask(page, "The 'list'")
    page.get_by_text("All answers are there").wait_for(state="attached")
    page.get_by_text("The same as code").click()
    curl = page.get_by_label("Request as curl").text_content()
    page.get_by_role("button", name="Python").click()
    python = page.get_by_label("Request as Python").text_content()
    expected = answer_of(page, "shouting").locator(".text").text_content()
    assert expected in run(["bash", "-c", curl + " -s"])
    assert expected.strip() in run(["python", "-c", python])


def run(command: list[str]) -> str:
    import json
    import subprocess

    shown = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    try:
        return " ".join(one["answer"]["choices"][0]["text"] for one in json.loads(shown)["data"])
    except ValueError:
        return shown


def test_without_any_choice_the_first_adapters_are_asked_beside_the_base(console: Watched) -> None:
    page = console.go()
    tags = page.get_by_role("list", name="Models that are asked").get_by_role("listitem")
    tags.nth(2).wait_for()
    assert tags.count() == 3
    assert tags.first.text_content().startswith("tiny (the base)")
