"""Training in a real browser: a file is checked, jobs run, are drawn, held, ended and tried."""

import re
from pathlib import Path
from typing import Any

import pytest

from browser import Watched
from program import Program

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

GOOD = '{"prompt": "Say it", "completion": " ALOUD"}\n' * 40
LONG_MS = 240_000


def drop(page: Any, folder: Path, name: str, content: str) -> None:
    file = folder / name
    file.write_text(content)
    page.get_by_label("Drop a training file").set_input_files([file])


def job_of(demo: Program, name: str, **hyper: int) -> str:
    """File a job by the API, since the page has no field for every hyper-parameter."""
    files = {"file": ("good.jsonl", GOOD.encode())}
    file = demo.http.post("/v1/files", data={"purpose": "fine-tune"}, files=files).json()["id"]
    body = {
        "model": "tiny",
        "training_file": file,
        "method": {"type": "supervised", "supervised": {"hyperparameters": hyper}},
        "adapter": {"name": name},
    }
    answer = demo.http.post("/v1/fine_tuning/jobs", json=body)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


def start(page: Any, folder: Path, name: str, epochs: int) -> None:
    drop(page, folder, "good.jsonl", GOOD)
    page.get_by_text("40 examples").wait_for()
    page.get_by_label("Adapter's name").fill(name)
    page.get_by_label("Epochs").fill(str(epochs))
    page.get_by_role("button", name="Start training").click()
    row(page, name).wait_for()


def row(page: Any, name: str) -> Any:
    return page.get_by_role("row").filter(has=page.get_by_role("link", name=name, exact=True))


def test_a_faulty_file_is_not_sent_and_its_lines_are_named(
    demo: Program, console: Watched, tmp_path: Path
) -> None:
    before = len(demo.http.get("/v1/files").json()["data"])
    page = console.go("training")
    drop(page, tmp_path, "bad.jsonl", '{"text": "a"}\n{"text": 3}\n\nnonsense\n')
    alert = page.get_by_role("alert")
    alert.wait_for()
    assert alert.get_by_role("listitem").all_text_contents()[0] == "line 2 has no text as `text`"
    assert alert.get_by_role("listitem").all_text_contents()[1].startswith("line 4 is not JSON")
    assert page.get_by_role("button", name="Start training").is_disabled()
    assert len(demo.http.get("/v1/files").json()["data"]) == before


def test_what_only_the_server_sees_is_said_with_its_lines_and_not_kept(
    demo: Program, console: Watched, tmp_path: Path
) -> None:
    page = console.go("training")
    drop(page, tmp_path, "odd.jsonl", '{"text": "a"}\n{"text": "b", "weight": 1}\n')
    page.get_by_text("The server has checked it, and did not keep it").wait_for()
    assert page.get_by_role("alert").get_by_text("line 2").is_visible()
    names = [one["filename"] for one in demo.http.get("/v1/files").json()["data"]]
    assert "odd.jsonl" not in names


def test_an_adapter_is_trained_drawn_and_tried(
    demo: Program, console: Watched, tmp_path: Path
) -> None:
    page = console.go("training")
    page.get_by_label("Method").select_option("loca")
    page.get_by_text("Preset: n_frequency = 1000").wait_for()
    page.get_by_label("Method").select_option("fourierft")
    start(page, tmp_path, "loud", 3)
    page.get_by_role("img", name="Loss by step: loud: training").wait_for(timeout=LONG_MS)
    row(page, "loud").get_by_text("succeeded").wait_for(timeout=LONG_MS)
    row(page, "loud").get_by_role("link", name="loud", exact=True).click()
    page.get_by_role("region", name="Result").get_by_text("better than the base").wait_for()
    page.get_by_role("region", name="Job").get_by_role("link", name="Try loud@1").click()
    page.get_by_role("button", name="Take loud@1 out").wait_for()
    assert demo.http.get("/v1/adapters/loud").status_code == 200


def test_a_job_is_paused_resumed_and_cancelled(console: Watched, tmp_path: Path) -> None:
    page = console.go("training")
    start(page, tmp_path, "long", 500)
    own = row(page, "long")
    own.get_by_text("running").wait_for(timeout=LONG_MS)
    own.get_by_text(" left").wait_for(timeout=LONG_MS)
    own.get_by_role("button", name="Pause long").click()
    own.get_by_text("paused").wait_for(timeout=LONG_MS)
    own.get_by_role("button", name="Resume long").click()
    own.get_by_text("running").wait_for(timeout=LONG_MS)
    own.get_by_role("link", name="long", exact=True).click()
    page.get_by_role("region", name="Checkpoints").get_by_text("step ").first.wait_for()
    page.get_by_role("button", name="Cancel long").click()
    page.get_by_role("region", name="Job").get_by_text("cancelled").wait_for(timeout=LONG_MS)


def test_a_jobs_checkpoints_show_what_the_adapter_answered_there(
    demo: Program, console: Watched
) -> None:
    id_ = job_of(demo, "sampled", n_epochs=400, checkpoint_every_steps=60)
    page = console.go(f"training/{id_}")
    region = page.get_by_role("region", name="Checkpoints")
    told = region.get_by_text("Prompts of the part of the training file")
    told.first.wait_for(timeout=LONG_MS)  # the newest's; more may be there by now
    newest = region.locator("details").first
    assert newest.get_by_role("definition").nth(0).text_content() == "Say it"
    assert newest.get_by_role("definition").nth(1).text_content() == " ALOUD"
    demo.http.post(f"/v1/fine_tuning/jobs/{id_}/cancel")
    page.get_by_role("region", name="Job").get_by_text("cancelled").wait_for(timeout=LONG_MS)
    page.reload()
    newest.get_by_role("definition").first.wait_for()
    path = f"/v1/fine_tuning/jobs/{id_}/checkpoints"
    found = demo.http.get(path).json()["data"]
    samples = {f"step {one['step_number']}": one["overtone"]["samples"] for one in found}
    sampled = region.locator("details")
    assert sampled.count() > 0
    for item in sampled.all()[:3]:
        if not item.get_by_role("definition").first.is_visible():
            item.locator("summary").click()
        step = re.match(r"step \d+", item.locator("summary").text_content())
        assert step is not None
        shown = item.get_by_role("definition").all_text_contents()[2::3]
        for answer, sample in zip(shown, samples[step[0]], strict=True):
            assert answer.startswith(sample["answer"] or "nothing")
    assert_accessible(page)


def assert_accessible(page: Any) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    found = axe.run(page).response["violations"]
    assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found] == []
