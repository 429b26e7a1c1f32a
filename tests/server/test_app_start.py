"""What happens once the service is up: leftovers of a crash are swept away."""

import os
import shutil
import time

import spectra
from live import Live
from server.service import sweep


def test_a_sweep_removes_blobs_without_records_and_nothing_else(live: Live) -> None:
    assert live.upload("swept", spectra.files()).status_code in (200, 201)
    record = live.service.registry.adapters.resolve("swept")
    kept = live.service.registry.blobs.open(record.digest).file
    orphan = kept.parent.parent / (kept.parent.name[:2] + "f" * 62)
    shutil.copytree(kept.parent, orphan)
    old = time.time() - 7200
    for path in (kept.parent, orphan):
        os.utime(path, (old, old))
    sweep(live.service)
    assert kept.exists()
    assert not orphan.exists()
