"""The playground in a real browser: what is asked, streamed, stopped, shown and copied."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from browser import PHONE, Watched
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


def say(page: Any, text: str) -> None:
    """Send a chat's next message and wait for all answers."""
    field = page.get_by_role("form", name="Ask").get_by_role("textbox")
    field.fill(text)
    page.keyboard.press("Control+Enter")
    number = page.get_by_role("article").count()
    page.get_by_role("article", name=f"Message {number}").get_by_text(text).wait_for()
    page.get_by_text("All answers are there").wait_for(state="attached")


def shown_of(page: Any, model: str, number: int | None = None) -> str:
    name = f"Answer of {model}" + (f" to message {number}" if number else "")
    region = page.get_by_role("region", name=name, exact=True)
    return str(region.locator(".text").text_content())


def chat_of(demo: Program, model: str, messages: list[dict[str, str]]) -> str:
    body = {"model": model, "messages": messages, "max_tokens": 64, "temperature": 0}
    answer = demo.http.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["message"]["content"])


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def test_a_chat_goes_on_and_each_side_has_its_own_history(demo: Program, console: Watched) -> None:
    page = console.go("playground?models=tiny,shouting")
    asked: list[tuple[str, Any]] = []
    page.on(
        "request",
        lambda one: one.method == "POST" and asked.append((one.url, one.post_data_json)),
    )
    say(page, "Hello")
    first = {model: shown_of(page, model) for model in ("tiny", "shouting")}
    assert first["tiny"] != first["shouting"]
    assert [url.rpartition("/v1/")[2] for url, _ in asked] == ["compare"]
    assert page.evaluate("document.activeElement.tagName") == "TEXTAREA"
    assert page.get_by_label("Next message").input_value() == ""

    say(page, "And then?")
    for model, answer in first.items():
        own = [user("Hello"), {"role": "assistant", "content": answer}, user("And then?")]
        assert shown_of(page, model, 1) == answer
        assert shown_of(page, model) == chat_of(demo, model, own)
        assert own in [body["messages"] for _, body in asked[1:]]
    assert [url.rpartition("/v1/")[2] for url, _ in asked[1:]] == ["chat/completions"] * 2


def test_a_turn_is_taken_back_answered_again_and_the_chat_begun_anew(console: Watched) -> None:
    page = console.go("playground?models=tiny,shouting")
    say(page, "Hello")
    say(page, "And then?")
    second = shown_of(page, "shouting")
    page.get_by_role("button", name="Answer again").click()
    page.get_by_role("button", name="Answer again").and_(page.locator(":enabled")).wait_for()
    assert shown_of(page, "shouting") == second
    assert page.get_by_role("article").count() == 2
    page.get_by_role("button", name="Take back").click()
    assert page.get_by_label("Next message").input_value() == "And then?"
    assert page.evaluate("document.activeElement.tagName") == "TEXTAREA"
    assert page.get_by_role("article").count() == 1
    say(page, "And then?")
    assert shown_of(page, "shouting") == second
    page.get_by_role("button", name="New chat").click()
    assert page.get_by_role("article").count() == 0
    assert page.get_by_role("status").filter(has_text="A new chat").count() == 1
    assert page.evaluate("document.activeElement.tagName") == "TEXTAREA"


def test_a_chat_is_there_again_after_another_page_and_a_reload(
    demo: Program, console: Watched
) -> None:
    page = console.go("playground?models=tiny,shouting")
    page.get_by_label("System message").fill("Be short")
    say(page, "Hello")
    first = shown_of(page, "shouting")
    page.get_by_label("Next message").fill("not sent yet")
    page.get_by_role("link", name="Adapters").click()
    page.get_by_role("heading", name="Adapters").wait_for()
    page.go_back()
    page.get_by_role("article", name="Message 1").wait_for()
    page.reload()
    page.get_by_role("article", name="Message 1").wait_for()
    assert shown_of(page, "shouting") == first
    assert page.get_by_label("Next message").input_value() == "not sent yet"
    say(page, "And then?")
    history = [{"role": "system", "content": "Be short"}, user("Hello")]
    history += [{"role": "assistant", "content": first}, user("And then?")]
    assert shown_of(page, "shouting") == chat_of(demo, "shouting", history)
    console.go("playground?models=tiny")
    page.get_by_label("Message", exact=True).wait_for()
    assert page.get_by_role("article").count() == 0  # of other models


def test_an_answer_that_was_left_is_there_as_far_as_it_came(console: Watched) -> None:
    page = console.go("playground?models=tiny")
    ask(page, "The", 400)
    text = answer_of(page, "tiny").locator(".text")
    until(lambda: len(text.text_content()) > 20)
    page.get_by_role("link", name="Adapters").click()
    page.get_by_role("heading", name="Adapters").wait_for()
    page.go_back()
    assert len(text.text_content()) > 20
    assert "stopped" in answer_of(page, "tiny").text_content()
    assert page.get_by_role("button", name="Ask").is_enabled()


def test_a_chats_code_has_all_messages_of_the_chosen_side(console: Watched) -> None:
    page = console.go("playground?models=tiny,shouting")
    say(page, "Hello")
    say(page, "It's 'that'")
    page.get_by_text("The same as code").click()
    assert page.get_by_label("Request to").input_value() == "tiny"
    page.get_by_label("Request to").select_option("shouting")
    curl = page.get_by_label("Request as curl").text_content()
    assert curl.count('"role"') == 3
    page.get_by_role("button", name="Python").click()
    python = page.get_by_label("Request as Python").text_content()
    expected = shown_of(page, "shouting")
    answer = json.loads(output(["bash", "-c", curl + " -s"]))
    assert answer["choices"][0]["message"]["content"] == expected
    assert expected.strip() in output([sys.executable, "-c", python])
    page.get_by_label("Next message").fill("what is written counts")
    assert "what is written counts" in page.get_by_label("Request as Python").text_content()


def test_a_side_that_fails_fails_alone_and_its_message_is_not_in_its_history(
    demo: Program, console: Watched
) -> None:
    folder = Path(__file__).parents[2] / "trainer" / "demo" / "adapters" / "shouting"
    names = ("adapter_model.safetensors", "adapter_config.json")
    files = {name: (folder / name).read_bytes() for name in names}
    assert demo.upload("brief", files).status_code == 201
    page = console.go("playground?models=tiny,brief")
    say(page, "Hello")
    assert demo.http.delete("/v1/adapters/brief").status_code == 200
    say(page, "And then?")
    assert "brief" in answer_of(page, "brief").get_by_role("alert").text_content()
    assert shown_of(page, "tiny")
    assert demo.upload("brief", files).status_code == 201
    page.get_by_text("The same as code").click()
    page.get_by_label("Next message").fill("Once more")
    page.get_by_label("Request to").select_option("brief")
    curl = page.get_by_label("Request as curl").text_content()
    assert "And then?" not in curl
    assert curl.count('"role"') == 3
    page.get_by_label("Request to").select_option("tiny")
    assert page.get_by_label("Request as curl").text_content().count('"role"') == 5
    assert demo.http.delete("/v1/adapters/brief").status_code == 200


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_chat_is_accessible_and_fits_a_phone(
    demo: Program, open_console: Callable[..., Watched], scheme: str
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    place = {"color_scheme": scheme, "viewport": PHONE, "has_touch": True}
    page = open_console(demo.url, **place).go("playground?models=tiny,shouting")
    say(page, "Hello " + "W" * 80)
    say(page, "And then?")
    found = axe.run(page).response["violations"]
    assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found] == []
    assert page.evaluate("() => document.documentElement.scrollWidth") <= PHONE["width"]
    newest = page.get_by_role("article", name="Message 2").bounding_box()
    assert 0 <= newest["y"] < PHONE["height"] / 2  # it is scrolled to


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
    assert expected.strip() in run([sys.executable, "-c", python])


def output(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


def run(command: list[str]) -> str:
    shown = output(command)
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
