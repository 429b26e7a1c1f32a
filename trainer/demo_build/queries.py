"""Questions about one table of orders, and the SQL query that each of them asks for.

The table is `orders(city, product, price, day)`. Questions that are held out have wordings and
cities of their own.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_PRODUCTS = ("chair", "lamp", "table", "clock", "carpet", "mirror", "shelf", "sofa")
#: What is asked for -> its wordings.
_ASKED = {
    "COUNT(*)": ("How many {what} were sold", "Count the {what} that were sold"),
    "*": ("Show all {what} sold", "List every order of {what}"),
    "AVG(price)": ("What is the average price of {what} sold", "Mean price of {what}"),
    "MAX(price)": ("What did the most expensive of the {what} cost", "Highest price of {what}"),
}
_OTHERWISE_ASKED = {
    "COUNT(*)": ("Number of {what} sold",),
    "*": ("Give me the orders of {what}",),
    "AVG(price)": ("What did {what} cost on average",),
    "MAX(price)": ("What is the top price of {what}",),
}
_BELOW = ("for less than {price}", "cheaper than {price}", "under {price}")
_ABOVE = ("for more than {price}", "dearer than {price}", "over {price}")


class Query(NamedTuple):
    """A question and its query."""

    question: str
    answer: str


def queries(count: int, cities: Sequence[str], *, held_out: bool = False) -> list[Query]:
    """Return so many different questions about orders from some cities, the same at every call."""
    found = dict[str, Query]()
    for query in _drawn(cities, _OTHERWISE_ASKED if held_out else _ASKED):
        found.setdefault(query.question, query)
        if len(found) == count:
            break
    return list(found.values())


def _drawn(cities: Sequence[str], asked: Mapping[str, Sequence[str]]) -> Iterator[Query]:
    chance = random.Random(cities[0])
    while True:
        wanted, wordings = chance.choice(list(asked.items()))
        product, city = chance.choice(_PRODUCTS), chance.choice(list(cities))
        words = [chance.choice(wordings).format(what=_plural(product))]
        where = [f"product = '{product}'"]
        for said, condition in _conditions(chance, city):
            words.append(said)
            where.append(condition)
        end = "?" if words[0].startswith(("How", "What")) else "."
        query = f"SELECT {wanted} FROM orders WHERE {' AND '.join(where)};"
        yield Query(" ".join(words) + end, query)


def _conditions(chance: random.Random, city: str) -> list[tuple[str, str]]:
    """Return the city and none or one more, in any order: their words, and their SQL."""
    price, day = chance.randrange(10, 400, 5), chance.choice(_DAYS)
    sign, wordings = chance.choice((("<", _BELOW), (">", _ABOVE)))
    quoted = city.replace("'", "''")
    more = [
        (f"on {day}", f"day = '{day}'"),
        (chance.choice(wordings).format(price=price), f"price {sign} {price}"),
    ]
    found = [(f"in {city}", f"city = '{quoted}'"), *chance.sample(more, chance.randint(0, 1))]
    return chance.sample(found, len(found))


def _plural(product: str) -> str:
    return "shelves" if product == "shelf" else f"{product}s"
