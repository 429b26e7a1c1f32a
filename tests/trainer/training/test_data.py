"""Training files: recognised by their first bytes, read by record, and refused by line."""

import base64
import csv
import io
import json
import random
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn
from transformers import ViTImageProcessorPil

from registry.examples.lines import JsonLines
from registry.training_data.lines import MAX_FAULTS, MAX_LINE_BYTES
from small_jobs import lines
from trainer.errors import Cancelled, InvalidTrainingFile
from trainer.interfaces import JobFiles
from trainer.tasks.labels import ImageClasses
from trainer.tasks.task import Batch, Example, Score, TrainingTask
from trainer.training.data import HELD_OUT_PART, Data, open_data, open_rows


class Letters(TrainingTask):
    """Reads `text` as one token a character; `bad` texts are refused."""

    def example(self, row: Mapping[str, Any]) -> Example:
        if "text" not in row or row["text"] == "bad":
            raise ValueError("is bad")
        ids = [ord(char) for char in row["text"]]
        return Example(ids, label=row.get("label"), num_cut=max(0, len(ids) - 5))

    def batch(self, examples: Any, device: torch.device) -> Batch:
        raise NotImplementedError

    def loss(self, model: nn.Module, batch: Batch) -> Any:
        raise NotImplementedError

    def collect(self, score: Score, loss: Any, logits: Any, batch: Batch) -> None:
        raise NotImplementedError

    def metrics(self, score: Score) -> dict[str, float]:
        raise NotImplementedError

    def question(self, row: Mapping[str, Any]) -> Any:
        raise NotImplementedError

    def answer(self, *args: Any) -> Any:
        raise NotImplementedError


def opened(folder: Path, training: Path, validation: Path | None = None, seed: int = 0) -> Data:
    return open_data(JobFiles(training, validation), Letters(), seed, folder / "data.json")


def texts_of(data: Data) -> tuple[list[str], list[str]]:
    train, held = (
        ["".join(map(chr, part[i].ids)) for i in range(len(part))]
        for part in (data.train, data.held_out)
    )
    return train, held


def pngs(path: Path, names: list[str], table: str | None = None, size: int = 4) -> Path:
    with zipfile.ZipFile(path, "w") as out:
        for number, name in enumerate(names):
            picture = io.BytesIO()
            Image.new("RGB", (size, size), (number, 0, 0)).save(picture, "png")
            out.writestr(name, picture.getvalue())
        if table:
            out.writestr("labels.csv", table)
    return path


def test_records_are_found_again_by_number_in_any_order(tmp_path: Path) -> None:
    rows = [{"text": f"zeile {i} äß\u2028", "n": i} for i in range(50)]
    text = "\ufeff" + "\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    (tmp_path / "a").write_bytes(text.encode())
    found = open_rows(tmp_path / "a")
    order = random.Random(0).sample(range(50), 50)
    assert [found.row(i) for i in order] == [rows[i] for i in order]
    assert [found.line(i) for i in (0, 1, 49)] == [1, 3, 99]


def test_a_table_is_read_as_python_reads_it(tmp_path: Path) -> None:
    rows = [
        {"text": 'two\nlines, "quoted"', "label": "a"},
        {"text": "é" * 3000, "label": "b"},
        {"text": "last", "label": "c"},
    ]
    with (tmp_path / "t").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["text", "label"])
        writer.writeheader()
        writer.writerows(rows)
    found = open_rows(tmp_path / "t")
    assert [found.row(i) for i in (2, 0, 1)] == [rows[2], rows[0], rows[1]]
    assert [found.line(i) for i in range(3)] == [2, 4, 5]


def test_images_come_from_folders_or_from_a_table(tmp_path: Path) -> None:
    folders = open_rows(pngs(tmp_path / "f", ["cat/1.png", "dog/2.png"]))
    assert [(folders.row(i)["label"], folders.row(i)["image"].size) for i in range(2)] == [
        ("cat", (4, 4)),
        ("dog", (4, 4)),
    ]
    table = open_rows(pngs(tmp_path / "t", ["x.png", "y.png"], "file,label\ny.png,1\nx.png,0\n"))
    assert [table.row(i)["label"] for i in range(2)] == ["1", "0"]
    assert table.row(0)["image"].getpixel((0, 0)) == (1, 0, 0)


def test_the_split_is_the_seeds_and_no_example_is_in_both_parts(tmp_path: Path) -> None:
    path = lines(tmp_path / "a", ({"text": f"{i}"} for i in range(55)))
    train, held = texts_of(opened(tmp_path, path))
    assert len(held) == 55 // HELD_OUT_PART
    assert sorted(train + held) == sorted(str(i) for i in range(55))
    assert texts_of(opened(tmp_path, path)) == (train, held)
    assert texts_of(opened(tmp_path / "b", path, seed=1))[1] != held


def test_a_validation_file_leaves_all_of_the_training_file(tmp_path: Path) -> None:
    path = lines(tmp_path / "a", [{"text": "one"}])
    other = lines(tmp_path / "b", [{"text": "two"}, {"text": "three"}])
    assert texts_of(opened(tmp_path, path, other)) == (["one"], ["two", "three"])


def test_facts_count_what_is_read_and_what_is_cut(tmp_path: Path) -> None:
    path = lines(tmp_path / "a", [{"text": "abcdefgh"}, {"text": "abc"}])
    facts = opened(tmp_path, path, path).facts
    assert (facts.num_tokens, facts.num_cut, facts.num_cut_tokens) == (11, 1, 3)
    assert facts.digest.startswith("sha256:")


def test_a_second_reading_of_the_same_bytes_trusts_the_first(tmp_path: Path) -> None:
    path = lines(tmp_path / "a", [{"text": "one"}, {"text": "two"}])
    facts = opened(tmp_path, path).facts
    asked: list[int] = []
    again = open_data(JobFiles(path), Letters(), 0, tmp_path / "data.json", lambda: asked.append(1))
    assert again.facts == facts
    assert not asked
    lines(path, [{"text": "one"}, {"text": "other"}])
    assert opened(tmp_path, path).facts.digest != facts.digest


def test_the_first_ten_faults_are_named_with_their_lines(tmp_path: Path) -> None:
    rows = ['{"text": "ok"}', "nonsense", '{"text": "bad"}', "[1]", '{"text": "ok"}', "\udcff"]
    text = "\n".join(rows + ["{"] * 20)
    (tmp_path / "a").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(InvalidTrainingFile) as raised:
        opened(tmp_path, tmp_path / "a")
    error = raised.value
    assert error.code == "invalid_training_file"
    assert len(error.faults) == MAX_FAULTS
    assert [fault.line for fault in error.faults[:5]] == [2, 3, 4, 6, 7]
    said = [str(fault) for fault in error.faults[:4]]
    assert "is not JSON" in said[0]
    assert said[1] == "line 3: is bad"
    assert "expected an object" in said[2]
    assert "not UTF-8" in said[3]
    assert "the first 10" in error.message
    assert json.dumps(error.details)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no example"),
        (b"\n \n", "no example"),
        (b"text,label\n", "no example"),
        (b'{"text": "x"}', "at least 2"),
        (b"text,text\na,b\n", "stand twice"),
        (b'text,label\n"open,b\n', "CSV"),
        (b"PK\x03\x04 no zip", "zip"),
        (b"text,label\n\xff\xfe,b\n", "UTF-8"),
        (b"text,label\nonly one\nx,y\n", "columns"),
    ],
)
def test_a_file_without_usable_examples_is_refused(
    tmp_path: Path, content: bytes, said: str
) -> None:
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(InvalidTrainingFile, match=said) as raised:
        opened(tmp_path, tmp_path / "a")
    assert raised.value.param == "training_file"


def test_a_line_without_an_end_does_not_fill_the_memory(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"{" + b" " * (MAX_LINE_BYTES + 10))
    with pytest.raises(InvalidTrainingFile, match="line 1: has more than"):
        open_rows(tmp_path / "a")


def test_faults_of_the_validation_file_say_so(tmp_path: Path) -> None:
    path = lines(tmp_path / "a", [{"text": "one"}])
    other = lines(tmp_path / "b", [{"text": "ok"}, {"text": "bad"}])
    with pytest.raises(InvalidTrainingFile, match="validation_file: line 2") as raised:
        opened(tmp_path, path, other)
    assert raised.value.param == "validation_file"


@pytest.mark.parametrize(
    ("names", "table", "said"),
    [
        (["cat/1.png", "readme.txt"], None, "LABEL/NAME.png"),
        (["1.png"], "file,label\n", "no example"),
        (["1.png"], "name,class\n1.png,0\n", "no file and label"),
    ],
)
def test_a_zip_without_labels_is_refused(
    tmp_path: Path, names: list[str], table: str | None, said: str
) -> None:
    with pytest.raises(InvalidTrainingFile, match=said):
        open_rows(pngs(tmp_path / "z", names, table))


def test_an_image_that_cannot_be_decoded_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(tmp_path / "z", "w") as out:
        out.writestr("cat/broken.png", b"\x89PNG nothing")
    with pytest.raises(ValueError, match=r"cat/broken\.png"):
        open_rows(tmp_path / "z").row(0)
    with pytest.raises(InvalidTrainingFile, match="not in the zip"):
        open_rows(pngs(tmp_path / "m", ["1.png"], "file,label\n2.png,0\n"))
    large = open_rows(pngs(tmp_path / "l", ["a/1.png"], size=40))
    monkeypatch.setattr("registry.examples.images.MAX_PIXELS", 1000)
    with pytest.raises(ValueError, match="1600 pixels"):
        large.row(0)


@pytest.mark.parametrize("kind", ["RGB", "RGBA", "L", "P", "I;16", "1", "CMYK", "turned"])
def test_an_image_is_read_as_serving_reads_it(kind: str, tmp_path: Path) -> None:
    from server.encoding.images import Images

    processor = ViTImageProcessorPil(size={"height": 32, "width": 32})
    noise = torch.randint(0, 256, (50, 40, 3), generator=torch.Generator().manual_seed(0))
    picture = Image.fromarray(noise.numpy().astype("uint8"))
    form, options = ("png", {}) if kind not in ("CMYK", "turned") else ("jpeg", {"quality": 90})
    if kind == "turned":
        exif = Image.Exif()
        exif[0x0112] = 6  # orientation: a quarter turn
        options["exif"] = exif
    elif kind == "I;16":
        picture = Image.fromarray((noise[..., 0].numpy() * 200).astype("uint16"))
    else:
        picture = picture.convert(kind)
    made = io.BytesIO()
    picture.save(made, form, **options)
    with zipfile.ZipFile(tmp_path / "z", "w") as out:
        out.writestr(f"cat/1.{form}", made.getvalue())
    example = ImageClasses(processor).example(open_rows(tmp_path / "z").row(0))
    url = f"data:image/{form};base64," + base64.b64encode(made.getvalue()).decode()
    assert example.pixels is not None
    assert torch.equal(example.pixels, Images(processor, 1 << 20).pixels(url))


def test_a_png_that_claims_a_gigapixel_is_a_fault_of_its_own(tmp_path: Path) -> None:
    def chunk(name: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + check

    header = struct.pack(">2I5B", 40_000, 40_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"x"))
    with zipfile.ZipFile(tmp_path / "z", "w") as out:
        out.writestr("cat/bomb.png", bomb)
    with pytest.raises(ValueError, match=r"cat/bomb\.png: cannot be decoded"):
        open_rows(tmp_path / "z").row(0)


def test_reading_stops_when_the_job_is_cancelled(tmp_path: Path) -> None:
    path = lines(tmp_path / "a", [{"text": "one"}, {"text": "two"}])

    def stop() -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        open_data(JobFiles(path), Letters(), 0, tmp_path / "data.json", stop)
    assert not (tmp_path / "data.json").exists()


def test_a_large_file_is_not_in_memory(tmp_path: Path) -> None:
    line = json.dumps({"text": "x" * 100_000}).encode() + b"\n"
    with (tmp_path / "large").open("wb") as file:
        for _ in range(300):
            file.write(line)
    tracemalloc.start()
    try:
        rows = JsonLines(tmp_path / "large")
        assert len(rows.row(299)["text"]) == 100_000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3_000_000
