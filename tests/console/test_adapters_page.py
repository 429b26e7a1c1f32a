"""The adapters' pages in a real browser: list, upload, aliases, versions, pictures, deletion."""

from pathlib import Path
from typing import Any

import pytest

from browser import Watched
from program import Program

from .conftest import DEMO, files_of

pytestmark = pytest.mark.slow

FOLDER = DEMO / "adapters" / "shouting"
FILES = [FOLDER / "adapter_model.safetensors", FOLDER / "adapter_config.json"]


def row(page: Any, name: str) -> Any:
    return page.get_by_role("row").filter(has=page.get_by_role("link", name=name, exact=True))


def upload(page: Any, name: str, files: list[Path]) -> None:
    page.get_by_label("Drop the two files, or their folder").set_input_files(files)
    form = page.get_by_role("form", name="Upload an adapter")
    form.get_by_label("Name").fill(name)
    form.get_by_role("button", name="Upload").click()


def test_adapters_are_listed_searched_and_filtered(console: Watched) -> None:
    page = console.go("adapters")
    row(page, "shouting").wait_for()
    assert "fourierft" in row(page, "shouting").text_content()
    page.get_by_label("Search").fill("leg")
    row(page, "shouting").wait_for(state="detached")
    row(page, "legalese").wait_for()
    page.get_by_label("Method").select_option("dora")
    page.get_by_text("No adapter's name begins so with this method.").wait_for()


def test_an_adapter_is_uploaded_and_what_is_wrong_is_said(
    demo: Program, console: Watched, tmp_path: Path
) -> None:
    page = console.go("adapters")
    upload(page, "from-page", FILES)
    page.get_by_text("is there as version 1").wait_for()
    row(page, "from-page").wait_for()
    assert demo.tokens("from-page") == demo.tokens("shouting")
    broken = tmp_path / "adapter_model.safetensors"
    broken.write_bytes(b"nonsense")
    upload(page, "broken", [broken, FILES[1]])
    page.get_by_role("alert").get_by_text("That did not work").wait_for()
    other = tmp_path / "notes.txt"
    other.write_text("")
    page.get_by_label("Drop the two files, or their folder").set_input_files([other])
    page.get_by_text("notes.txt is neither adapter_model.safetensors nor").wait_for()


def test_files_are_dropped(console: Watched) -> None:
    page = console.go("adapters")
    data = page.evaluate_handle(
        "() => { const all = new DataTransfer();"
        "all.items.add(new File(['{}'], 'adapter_config.json')); return all; }"
    )
    page.dispatch_event(".drop", "drop", {"dataTransfer": data})
    page.get_by_text("adapter_config.json (2 B)").wait_for()


def test_an_alias_is_moved_and_one_that_was_moved_meanwhile_is_not(
    demo: Program, console: Watched
) -> None:
    for name in ("legalese", "shouting"):
        assert demo.upload("moved", files_of(name)).status_code == 201
    page = console.go("adapters/moved")
    own = page.get_by_role("region", name="Aliases")

    def move(version: str, verb: str) -> None:
        own.get_by_label("Alias").fill("prod")
        own.get_by_label("Version").select_option(version)
        own.get_by_role("button", name=verb, exact=True).click()

    move("1", "Set")
    own.get_by_text("→ version 1").wait_for()
    assert demo.tokens("moved@prod") == demo.tokens("legalese")
    demo.http.put("/v1/adapters/moved/aliases/prod", json={"version": 2})
    move("1", "Move")
    page.get_by_text("was moved by another request after you looked").wait_for()
    own.get_by_text("→ version 2").wait_for()
    assert demo.tokens("moved@prod") == demo.tokens("shouting")
    move("1", "Move")
    own.get_by_text("→ version 1").wait_for()


def test_the_latest_version_is_rolled_back_and_versions_are_deleted(
    demo: Program, console: Watched
) -> None:
    for name in ("legalese", "shouting"):
        assert demo.upload("old", files_of(name)).status_code == 201
    page = console.go("adapters/old")
    page.get_by_role("button", name="Roll back").click()
    page.get_by_role("row", name="Version 1").get_by_text("latest").wait_for()
    assert demo.tokens("old") == demo.tokens("legalese")
    page.get_by_role("button", name="Delete version 2").click()
    page.get_by_role("dialog").get_by_role("button", name="Keep it").click()
    page.get_by_role("button", name="Delete version 2").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    page.get_by_role("row", name="Version 2").wait_for(state="detached")
    page.get_by_role("button", name="Delete", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    page.get_by_role("heading", name="Upload an adapter").wait_for()
    assert demo.http.get("/v1/adapters/old").status_code == 404


def test_a_layers_change_is_drawn_beside_its_spectrum_and_a_loras_size(console: Watched) -> None:
    page = console.go("adapters/shouting")
    own = page.get_by_role("region", name="Layers")
    own.get_by_label("Layer", exact=True).select_option("model.layers.1.mlp.up_proj")
    own.get_by_role("img", name="Spectrum of the change of model.layers.1.mlp.up_proj").wait_for()
    pixels = page.evaluate(
        "() => [...document.querySelectorAll('canvas')].map((one) => new Set("
        "one.getContext('2d').getImageData(0, 0, one.width, one.height).data).size)"
    )
    assert len(pixels) == 2
    assert all(number > 20 for number in pixels)
    assert own.get_by_text("A LoRA, r = 8, same layers").is_visible()


def test_an_adapter_is_loaded_pinned_and_let_go(demo: Program, console: Watched) -> None:
    page = console.go("adapters/legalese")
    page.get_by_role("button", name="Load now").click()
    page.get_by_text("its coefficients lie beside").or_(
        page.get_by_text("weights of its own")
    ).first.wait_for()
    page.get_by_role("button", name="Keep in memory").click()
    page.get_by_role("button", name="Let it be evicted").click()
    page.get_by_role("link", name="Try it").click()
    page.get_by_role("button", name="Take legalese out").wait_for()
