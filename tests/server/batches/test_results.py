"""A batch's end: its files and its last state come once, whatever is lost on the way."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batches_served import finalizing, results
from live import Live
from registry import Answered, BatchClaims, BatchRecord, RegistryUnavailable
from server.batches.results import finish


def test_the_folder_of_a_batch_goes_also_where_the_answer_to_its_end_was_lost(
    serve: Callable[..., Live], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = serve(data=tmp_path / "data", run_batches=False)
    held, registry = finalizing(live), live.service.registry
    ends = BatchClaims.finish

    def unheard(self: BatchClaims, *args: Any, **words: Any) -> BatchRecord:
        ends(self, *args, **words)
        raise RegistryUnavailable("no answer in time")

    with registry.batch_folders.open(held.claim, 3) as answers:
        answers.add([Answered(number, "output", b"{}") for number in range(3)])
        with monkeypatch.context() as patched:
            patched.setattr(BatchClaims, "finish", unheard)
            with pytest.raises(RegistryUnavailable):
                finish(registry, held, "completed", answers)
        ended = finish(registry, held, "completed", answers)

    assert ended.state == "completed"
    assert results(live, ended.output_file) == [{}, {}, {}]
    assert not list(registry.batch_folders.all())
