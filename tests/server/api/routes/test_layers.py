"""Layers of an adapter over REST: what is listed, and small pictures of the updates."""

import threading
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
import torch
from torch import Tensor

import spectra
from adapters_core.errors import InvalidAdapter
from live import Live, error_of
from server.api.layer_pictures import MAX_WAITING, LayerPictures
from server.errors import AdapterTooLarge, Overloaded

LAYER = spectra.TARGETS[0]
SHAPES = {"q": [32, 32], "v": [16, 32]}


@pytest.fixture(scope="module")
def name(live: Live) -> str:
    assert live.upload("pictured", spectra.files(3)).status_code == 201
    return "pictured"


def asked(live: Live, name: str, *rest: str) -> httpx2.Response:
    return live.http.get("/".join(["/v1/adapters", name, "versions", "1", "layers", *rest]))


def peft_delta(target: str, out: int, in_: int) -> Tensor:
    """Return ΔW of the file's formula, as PEFT's source has it."""
    generator = torch.Generator().manual_seed(777)
    places = torch.randperm(out * in_, generator=generator)[: spectra.N]
    dense = torch.zeros(out, in_)
    dense[places // in_, places % in_] = spectra.tensors(3)[spectra.key(target)]
    return torch.fft.ifft2(dense).real * 150.0


def shown(matrix: dict[str, Any]) -> Tensor:
    return torch.tensor(matrix["rows"]) / 255


def test_layers_are_listed_in_the_bases_order_with_their_shapes(live: Live, name: str) -> None:
    listed = asked(live, name).json()["data"]
    assert [one["target"] for one in listed] == list(spectra.TARGETS)
    assert {one["method"] for one in listed} == {"fourierft"}
    assert {one["num_coefficients"] for one in listed} == {spectra.N}
    base = live.service.base.spec.layers
    assert [one["shape"] for one in listed] == [list(base[path]) for path in spectra.TARGETS]


@pytest.mark.parametrize("target", spectra.TARGETS)
def test_a_picture_shows_the_update_and_its_spectrum(live: Live, name: str, target: str) -> None:
    told = asked(live, name, target, "picture").json()
    expected = peft_delta(target, *told["shape"])
    top = float(expected.abs().max())
    assert told["delta"]["largest"] == pytest.approx(top, rel=1e-4)
    assert told["norm"] == pytest.approx(float(expected.norm()), rel=1e-4)
    torch.testing.assert_close(shown(told["delta"]), expected.abs() / top, rtol=0, atol=0.51 / 255)
    whole = torch.fft.fft2(expected).abs()
    half = torch.fft.fftshift(whole, dim=0)[:, : expected.shape[1] // 2 + 1]
    decades = torch.log10(half / half.max()).clamp(min=-6.0)
    assert told["transform"] == "fourier"
    assert told["spectrum"]["largest"] == pytest.approx(float(half.max()), rel=1e-4)
    clear = decades > -5.0  # below it are rounding errors of the transforms
    torch.testing.assert_close(
        shown(told["spectrum"])[clear], (1 + decades / 6.0)[clear], rtol=0, atol=2 / 255
    )


def test_a_large_matrix_is_shown_by_its_largest_cells() -> None:
    from server.api.layer_pictures import _linear

    delta = torch.zeros(300, 1000)
    delta[299, 999], delta[0, 0] = -2.0, 1.0
    found = _linear(delta)
    rows = torch.tensor(found["rows"])
    assert tuple(rows.shape) == (75, 91)
    assert found["largest"] == 2.0
    assert rows[-1, -1] == 255
    assert rows[0, 0] == 128
    assert int(rows.sum()) == 255 + 128


def test_a_layer_without_a_change_has_a_picture_of_nothing() -> None:
    from server.api.layer_pictures import _in_decades, _linear

    for draw in (_linear, _in_decades):
        assert draw(torch.zeros(2, 3)) == {"largest": 0.0, "rows": [[0, 0, 0], [0, 0, 0]]}


@pytest.mark.parametrize("layer", ["model.layers.9.self_attn.q_proj", "lm_head", "..", "%2e"])
def test_a_layer_that_the_adapter_does_not_change_is_not_found(
    live: Live, name: str, layer: str
) -> None:
    answer = asked(live, name, layer.replace("..", "%2e%2e"), "picture")
    assert answer.status_code == 404


def test_other_versions_and_names_are_not_found(live: Live, name: str) -> None:
    for path in ("pictured/versions/7/layers", f"pictured/versions/7/layers/{LAYER}/picture"):
        answer = live.http.get(f"/v1/adapters/{path}")
        assert (answer.status_code, error_of(answer)["code"]) == (404, "model_not_found")


def test_a_layer_with_too_many_numbers_is_refused_with_what_to_do(live: Live, name: str) -> None:
    pictures, resident = LayerPictures(max_cells=100), live.service.resident
    with pytest.raises(AdapterTooLarge, match=r"a picture is made of 100 at most: `overtone insp"):
        pictures.picture(resident, "digest", LAYER, lambda: _read(live))


def _read(live: Live) -> Any:
    record = live.service.registry.adapters_of("").resolve("pictured")
    blob = live.service.registry.blobs.open_whole(record.digest)
    return live.service.resident.reader.read(blob.file, blob.config.read_bytes())


def test_pictures_are_made_one_at_a_time_and_no_more_wait_than_may(live: Live, name: str) -> None:
    pictures, resident = LayerPictures(), live.service.resident
    go, num_reading, most = threading.Event(), 0, 0

    def read() -> Any:
        nonlocal num_reading, most
        num_reading += 1
        most = max(most, num_reading)
        go.wait(60)
        num_reading -= 1
        return _read(live)

    threads = [
        threading.Thread(target=pictures.picture, args=(resident, str(i), LAYER, read))
        for i in range(MAX_WAITING)
    ]
    for thread in threads:
        thread.start()
    while pictures._num_waiting < MAX_WAITING:
        threading.Event().wait(0.001)
    with pytest.raises(Overloaded, match="try again in a moment"):
        pictures.picture(resident, "one more", LAYER, read)
    go.set()
    for thread in threads:
        thread.join(60)
    assert most == 1


def test_a_picture_is_kept_and_a_failure_is_not(live: Live, name: str) -> None:
    pictures, resident = LayerPictures(), live.service.resident

    def broken() -> Any:
        raise InvalidAdapter("damaged", "file")

    for _ in range(2):
        with pytest.raises(InvalidAdapter, match="damaged"):
            pictures.picture(resident, "digest", LAYER, broken)
    first = pictures.picture(resident, "digest", LAYER, lambda: _read(live))
    assert pictures.picture(resident, "digest", LAYER, broken) is first


def test_only_the_owner_sees_what_an_adapter_changes(serve: Callable[..., Live]) -> None:
    live = serve(api_keys="root=secret", calibration_s=0)
    live.http.headers["Authorization"] = "Bearer secret"
    assert live.upload("common", spectra.files(3)).status_code == 201
    made = live.http.post("/v1/keys", json={"tenant": "bob", "scopes": ["infer"]}).json()
    live.http.headers["Authorization"] = f"Bearer {made['secret']}"
    for rest in ((), (LAYER, "picture")):
        answer = asked(live, "common", *rest)
        assert (answer.status_code, error_of(answer)["code"]) == (403, "not_owner")
