"""The playground of bases that do not chat: it offers what the base is for."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import tiny_encoders as te
from browser import Watched
from live import Live

pytestmark = pytest.mark.slow
Serve = Callable[..., Live]
Open = Callable[..., Watched]


def score_of(region: Any) -> list[str]:
    return [text for text in region.locator(".number").all_text_contents() if text]


def test_a_classifier_shows_the_labels_of_each_line(
    serve: Serve, open_console: Open, tmp_path: Path
) -> None:
    live = serve(base=te.save(tmp_path / "base", "bert"))
    page = open_console(live.url).go()
    page.get_by_label("Texts to label, one a line").fill("What a day\n\nWhat a night")
    page.get_by_role("button", name="Classify").click()
    answer = page.get_by_role("region", name="Answer of tiny")
    answer.get_by_role("heading", name="What a night").wait_for()
    body = {"model": "tiny", "input": ["What a day", "What a night"]}
    data = live.http.post("/v1/classify", json=body).json()["data"]
    expected = sorted((one["score"] for one in data[0]["scores"]), reverse=True)
    shown = [float(text) for text in score_of(answer)]
    assert len(shown) == sum(len(one["scores"]) for one in data)
    assert shown[: len(expected)] == pytest.approx(expected, rel=5e-3)


def test_an_embedder_shows_how_near_texts_are(
    serve: Serve, open_console: Open, tmp_path: Path
) -> None:
    live = serve(base=te.save(tmp_path / "base", "bert", is_embedder=True))
    page = open_console(live.url).go()
    page.get_by_label("Texts to embed, one a line").fill("a\na\nsomething else")
    page.get_by_role("button", name="Embed").click()
    cells = page.get_by_role("region", name="Cosines").get_by_role("cell")
    cells.nth(3).wait_for()
    shown = [float(text) for text in cells.all_text_contents() if text]
    assert shown[0] == shown[1] == pytest.approx(1.0)
    assert shown[2] < 0.999


def test_an_image_classifier_takes_pictures(
    serve: Serve, open_console: Open, tmp_path: Path
) -> None:
    live = serve(base=te.save(tmp_path / "base", "vit"))
    Image.new("RGB", (40, 30), "teal").save(tmp_path / "one.png")
    page = open_console(live.url).go()
    page.get_by_label("Pictures").set_input_files([tmp_path / "one.png"])
    page.get_by_role("img", name="one.png").wait_for()
    page.get_by_role("button", name="Classify").click()
    page.get_by_role("heading", name="one.png").wait_for()


def test_a_base_without_a_chat_template_completes_texts(
    serve: Serve, open_console: Open, base_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(base_folder("llama"), tmp_path / "base")
    (folder / "chat_template.jinja").unlink()
    page = open_console(serve(base=folder).url).go()
    page.get_by_text("This base has no chat template: it completes texts.").wait_for()
    assert page.get_by_role("button", name="Chat").count() == 0
    assert page.get_by_label("Text to go on from").is_visible()
