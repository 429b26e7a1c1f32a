"""Lines and their subjects: balanced, apart by module, and never naming the answer."""

from collections import Counter
from collections.abc import Sequence

from trainer.demo_build import subjects
from trainer.demo_build.subjects import SUBJECTS, Part, SubjectLine

FEW = ("terminals", "pictures")


def subject_lines(part: Part, each: int, without: Sequence[SubjectLine] = ()) -> list[SubjectLine]:
    return subjects.subject_lines(part, each, without, FEW)


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
        names = [*SUBJECTS[line.subject], line.subject, line.subject.removesuffix("s")]
        assert not [name for name in names if name.lower() in line.text.lower()]


def test_a_chat_asks_for_the_subject() -> None:
    line = SubjectLine("rich/table.py", "draw: Draw a table.", "terminals")
    system, user, answer = subjects.as_chat(line)["messages"]
    assert system == {"role": "system", "content": subjects.SYSTEM}
    assert user == {"role": "user", "content": "draw: Draw a table."}
    assert answer == {"role": "assistant", "content": "terminals"}
    asked = {"prompt": "draw: Draw a table.\nSubject:", "completion": " terminals"}
    assert subjects.as_completion(line) == asked
