"""Every query of the dashboards, against a real Prometheus that scrapes the real server."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from adapters_core.format.write import write_adapter
from adapters_core.methods import FourierFT
from live import CONFIG, FILE, Live
from registry.jobs import log as job_log
from training_parts import claimed, new_job, report

from .test_dashboard import assert_rules_work, unanswered


@pytest.mark.prometheus
@pytest.mark.timeout(240)
def test_every_query_is_answered_by_the_real_server(
    serve: Callable[..., Live], scraped: Callable[[str], Any], tmp_path: Path
) -> None:
    # Merged copies of one adapter fill the cache: each further one evicts another.
    server = serve(mode="merged", merged_bytes=80_000)
    drive = Traffic(server, tmp_path)
    drive()
    prometheus = scraped(server.url)
    instance = server.url.removeprefix("http://")
    assert unanswered(prometheus, instance, drive) == []
    assert_rules_work(prometheus)


class Traffic:
    """Uploads a new adapter at each call and uses it, an old one, the base, and a wrong name.

    A job, whose worker this is, goes on by a step.
    """

    def __init__(self, server: Live, folder: Path) -> None:
        self._server = server
        self._folder = folder
        self._numbers = itertools.count()
        _, self._fence = claimed(server, new_job(server)["id"])

    def __call__(self) -> None:
        number = next(self._numbers)
        name = f"adapter-{number % 8}"
        uploaded = self._server.upload(name, self._files(number))
        assert uploaded.status_code == 201, uploaded.text
        for model in (name, name, "adapter-0", "tiny"):
            self._server.tokens(model)
        step = job_log.metrics_entry(number + 1, {"train_loss": 1.5, "tokens": 700}, 4.0)
        progress = job_log.progress_entry(number + 1, 1000, None)
        report(self._server, self._fence, number + 1, step, progress)
        assert self._server.complete("nobody").status_code == 404

    def _files(self, number: int) -> dict[str, bytes]:
        spec = self._server.service.base.spec
        target = next(iter(spec.targets))
        generator = torch.Generator().manual_seed(number)
        layer = {"fourierft_spectrum": torch.randn(64, generator=generator)}
        folder = self._folder / str(number)
        write_adapter(folder, FourierFT(64, 30.0), {target: layer}, spec)
        return {part: (folder / part).read_bytes() for part in (FILE, CONFIG)}
