"""An answered request is answered once, whatever ended the process that wrote it."""

import errno
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.batches.record import RequestCounts
from registry.batches.segments import Answered, BatchFolders
from registry.common.fence import Fence
from registry.errors import BatchNotFound

BATCH = "batch_" + "a" * 24


@pytest.fixture
def folders(tmp_path):
    return BatchFolders(tmp_path / "batches")


def answered(number, kind="output", text="answer"):
    return Answered(number, kind, b'{"n":%d,"text":"%s"}' % (number, text.encode()))


def written(answers, kind="output"):
    out = io.BytesIO()
    assert answers.write(kind, out) == len(out.getvalue().splitlines())
    return out.getvalue()


def test_answers_are_written_in_the_order_of_their_requests(folders):
    with folders.open(Fence(BATCH, 1), 4) as answers:
        answers.add([answered(2), answered(0)])
        answers.add([answered(3, "error")])

        assert written(answers) == b'{"n":0,"text":"answer"}\n{"n":2,"text":"answer"}\n'
        assert written(answers, "error") == b'{"n":3,"text":"answer"}\n'
        assert answers.counts == RequestCounts(4, 2, 1)
        assert list(answers.missing()) == [1]


def test_the_next_claim_goes_on_where_the_last_one_was_killed(folders):
    killed = folders.open(Fence(BATCH, 1), 3)
    killed.add([answered(0), answered(2, "error")])

    with folders.open(Fence(BATCH, 2), 3) as answers:
        assert list(answers.missing()) == [1]
        answers.add([answered(1)])
        assert len(written(answers).splitlines()) == 2
    killed.close()


def test_what_a_holder_believed_dead_writes_later_changes_nothing(folders):
    with folders.open(Fence(BATCH, 1), 3) as old, folders.open(Fence(BATCH, 2), 3) as new:
        old.add([answered(1, text="late")])
        new.add([answered(1, text="mine")])

        assert b"mine" in written(new)
        assert b"late" not in written(new)
    with folders.open(Fence(BATCH, 3), 3) as third:
        assert third.counts.completed == 1
        assert len(written(third).splitlines()) == 1


def test_a_request_is_answered_once_by_one_claim_too(folders):
    with folders.open(Fence(BATCH, 1), 2) as answers:
        answers.add([answered(0, text="first"), answered(0, text="twice")])
        answers.add([answered(0, text="again")])

        assert len(written(answers).splitlines()) == 1
        assert answers.counts == RequestCounts(2, 1, 0)


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(1, 200), noise=st.binary(max_size=40))
def test_whatever_a_crash_leaves_of_a_segment_what_is_read_is_right(tmp_path_factory, cut, noise):
    folders = BatchFolders(tmp_path_factory.mktemp("cut"))
    with folders.open(Fence(BATCH, 1), 5) as answers:
        answers.add([answered(number) for number in range(5)])
    (path,) = (folder for _, folder in folders.all())
    whole = (path / "1.part").read_bytes()
    (path / "1.part").write_bytes(whole[: max(0, len(whole) - cut)] + noise)

    with folders.open(Fence(BATCH, 2), 5) as answers:
        lines = written(answers).splitlines()
        assert lines == [answered(n).line for n in range(5)][: len(lines)]
        answers.add([answered(number) for number in answers.missing()])
        assert written(answers).splitlines() == [answered(n).line for n in range(5)]


def test_a_full_disk_keeps_what_was_there_and_none_of_the_rest(folders, monkeypatch):
    with folders.open(Fence(BATCH, 1), 3) as answers:
        answers.add([answered(0)])
        whole = answers._file.write
        left = [20]

        def write(data):
            if not left[0]:
                raise OSError(errno.ENOSPC, "no space")
            count, left[0] = left[0], 0
            return whole(data[:count])

        raw, answers._file = answers._file, _Limited(answers._file, write)
        with pytest.raises(OSError, match="no space"):
            answers.add([answered(1)])
        answers._file = raw

        assert answers.counts == RequestCounts(3, 1, 0)
        answers.add([answered(1), answered(2)])
        assert len(written(answers).splitlines()) == 3
    with folders.open(Fence(BATCH, 2), 3) as answers:
        assert answers.counts == RequestCounts(3, 3, 0)


class _Limited:
    def __init__(self, file, write):
        self._file, self.write = file, write

    def __getattr__(self, name):
        return getattr(self._file, name)


def test_an_answer_of_no_request_ends_what_is_read(folders):
    with folders.open(Fence(BATCH, 1), 9) as answers:
        answers.add([answered(0), answered(8), answered(1)])
    with folders.open(Fence(BATCH, 2), 3) as answers:
        assert list(answers.missing()) == [1, 2]


def test_a_folder_is_of_a_batch_and_goes_with_it(folders, tmp_path):
    with pytest.raises(BatchNotFound):
        folders.open(Fence("../up", 1), 1)
    folders.open(Fence(BATCH, 1), 1).close()
    (tmp_path / "batches" / "other").mkdir()

    assert [id_ for id_, _ in folders.all()] == [BATCH]
    folders.remove(BATCH)
    folders.remove(BATCH)
    assert list(folders.all()) == []
