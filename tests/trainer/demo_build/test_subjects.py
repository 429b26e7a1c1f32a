"""Lines and their subjects: balanced, apart by module, and never naming the answer."""

from collections import Counter

import pytest

from trainer.demo_build import subjects
from trainer.demo_build.subjects import SUBJECTS, SubjectLine, subject_lines

FEW = {"terminals": SUBJECTS["terminals"], "pictures": SUBJECTS["pictures"]}


@pytest.fixture(autouse=True)
def few_subjects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subjects, "SUBJECTS", FEW)


def modules(lines: list[SubjectLine]) -> set[str]:
    return {line.source for line in lines}


def test_subjects_take_turns_and_have_as_many_lines() -> None:
    lines = subject_lines("learned", 5)
    assert [line.subject for line in lines] == ["terminals", "pictures"] * 5
    assert lines == subject_lines("learned", 5)


def test_parts_share_no_module_and_no_line() -> None:
    learned = subject_lines("learned", 20)
    held = subject_lines("held_out", 20, learned)
    tuning = subject_lines("tuning", 20, [*learned, *held])
    assert not modules(learned) & modules(held)
    assert not modules(tuning) & (modules(learned) | modules(held))
    assert max(Counter(line.text.lower() for line in [*learned, *held, *tuning]).values()) == 1


def test_no_line_names_its_library_or_its_subject() -> None:
    for line in subject_lines("learned", 20):
        names = [*FEW[line.subject], line.subject, line.subject.removesuffix("s")]
        assert not [name for name in names if name.lower() in line.text.lower()]


def test_a_chat_asks_for_the_subject() -> None:
    line = SubjectLine("rich/table.py", "Draw a table.", "terminals")
    system, user, answer = subjects.as_chat(line)["messages"]
    assert system == {"role": "system", "content": subjects.SYSTEM}
    assert user == {"role": "user", "content": "Draw a table."}
    assert answer == {"role": "assistant", "content": "terminals"}
    asked = {"prompt": "Draw a table.\nSubject:", "completion": " terminals"}
    assert subjects.as_completion(line) == asked
