"""Sentences with a date as people write it, and the date as ISO 8601 has it.

Drawn by a seed. Sentences that are held out have wordings of their own and other dates.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from datetime import date, timedelta
from typing import NamedTuple

_DAYS = (
    *("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth"),
    *("tenth", "eleventh", "twelfth", "thirteenth", "fourteenth", "fifteenth", "sixteenth"),
    *("seventeenth", "eighteenth", "nineteenth", "twentieth", "twenty-first", "twenty-second"),
    *("twenty-third", "twenty-fourth", "twenty-fifth", "twenty-sixth", "twenty-seventh"),
    *("twenty-eighth", "twenty-ninth", "thirtieth", "thirty-first"),
)
_WORDINGS = (
    "The meeting is on {day}.",
    "It was built on {day} by the city.",
    "Please pay before {day}.",
    "{day}, in the evening",
    "She was born on {day} in a small town.",
    "We have been open since {day}.",
    "From {day} on the office is closed.",
    "Your parcel left us on {day}.",
    "He signed the letter on {day}, and left.",
    "The next election is planned for {day}.",
)
_OTHER_WORDINGS = (
    "The concert of {day} had to be moved.",
    "Your contract ends on {day}, as agreed.",
    "They met for the first time on {day}.",
)
#: Not calendar's, which follow a locale that a program sets.
_MONTHS = (
    *("January", "February", "March", "April", "May", "June", "July", "August", "September"),
    *("October", "November", "December"),
)
_FIRST, _MANY, _ONE_IN = date(1950, 1, 1), 30_000, 4


class DateLine(NamedTuple):
    """A sentence and its date, YYYY-MM-DD."""

    sentence: str
    answer: str


def date_lines(count: int, *, held_out: bool = False) -> list[DateLine]:
    """Return so many sentences with different dates, the same at every call."""
    found = dict[date, DateLine]()
    for day, line in _drawn(_OTHER_WORDINGS if held_out else _WORDINGS):
        if (day.toordinal() % _ONE_IN == 0) == held_out:
            found.setdefault(day, line)
        if len(found) == count:
            break
    return list(found.values())


def _drawn(wordings: Sequence[str]) -> Iterator[tuple[date, DateLine]]:
    chance = random.Random(0)
    while True:
        day = _FIRST + timedelta(days=chance.randrange(_MANY))
        sentence = chance.choice(wordings).format(day=chance.choice(_FORMS)(day))
        yield day, DateLine(sentence[0].upper() + sentence[1:], day.isoformat())


def _ordinal(day: int) -> str:
    """Return 1st for 1, 2nd for 2, and so on."""
    ending = {1: "st", 2: "nd", 3: "rd"}.get(day % 10 if day // 10 != 1 else 0, "th")
    return f"{day}{ending}"


def _month(day: date) -> str:
    return _MONTHS[day.month - 1]


#: How a date is written.
_FORMS: tuple[Callable[[date], str], ...] = (
    lambda d: f"{_month(d)} {d.day}, {d.year}",
    lambda d: f"{d.day} {_month(d)} {d.year}",
    lambda d: f"the {_ordinal(d.day)} of {_month(d)} {d.year}",
    lambda d: f"{_month(d)} the {_ordinal(d.day)}, {d.year}",
    lambda d: f"the {_DAYS[d.day - 1]} of {_month(d)}, {d.year}",
    lambda d: f"{d.day} {_month(d)[:3]} {d.year}",
)
