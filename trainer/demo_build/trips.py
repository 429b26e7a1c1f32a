"""Sentences that ask for flights, and the JSON object that each of them says.

Cities are real, the rest is drawn by a seed. Sentences that are held out have wordings and cities
of their own, so an answer cannot be remembered.
"""

import json
import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_COUNTS = ("one", "two", "three", "four", "five", "six", "seven", "eight")
_WORDINGS = (
    "I need {count} from {start} to {end} on {day} at {time}.",
    "Please book {count} to {end}, leaving {start} on {day} at {time}.",
    "We go from {start} to {end} on {day}, {time}, {count} please.",
    "Could you get me {count} for the {time} flight from {start} to {end} on {day}?",
    "{day}, {time}: {start} to {end}, {count}.",
    "On {day} at {time} there is a flight from {start} to {end}. I would like {count}.",
    "Hi, {count} from {start} to {end} please. We travel on {day} around {time}.",
    "My flight to {end} leaves {start} at {time} on {day}; I want {count}.",
    "Is there still room on {day} at {time} from {start} to {end}? I want {count}.",
    "For {day} I need {count}: {start} to {end}, departure {time}.",
)
_OTHER_WORDINGS = (
    "Reserve {count} on the {day} flight that goes from {start} to {end} at {time}, please.",
    "Hello! We want to travel to {end} on {day}. We start in {start} at {time} and take {count}.",
    "{count}, please: {day} at {time}, from {start} to {end}.",
)


class Trip(NamedTuple):
    """A sentence and the object that it says, as JSON."""

    sentence: str
    answer: str


def trips(count: int, cities: Sequence[str], *, held_out: bool = False) -> list[Trip]:
    """Return so many different trips between some cities, the same at every call."""
    found = dict[str, Trip]()
    for trip in _drawn(cities, _OTHER_WORDINGS if held_out else _WORDINGS):
        found.setdefault(trip.sentence, trip)
        if len(found) == count:
            break
    return list(found.values())


def _drawn(cities: Sequence[str], wordings: Sequence[str]) -> Iterator[Trip]:
    chance = random.Random(0)
    while True:
        start, end = chance.sample(list(cities), 2)
        number = chance.randint(1, len(_COUNTS))
        hour, minute = chance.randint(6, 22), chance.randrange(0, 60, 5)
        said = _COUNTS[number - 1] if chance.random() < 0.7 else str(number)
        day, time = chance.choice(_DAYS), f"{hour}:{minute:02}"
        count = f"{said} ticket{'s' * (number > 1)}"
        sentence = chance.choice(wordings).format(
            count=count, start=start, end=end, day=day, time=time
        )
        found = {"from": start, "to": end, "day": day, "time": time, "tickets": number}
        yield Trip(sentence[0].upper() + sentence[1:], json.dumps(found, ensure_ascii=False))
