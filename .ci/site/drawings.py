"""Draws docs/concepts/*.svg: `./run reference` writes them, a test holds them against this."""

import sys
from collections.abc import Callable
from pathlib import Path

from drawing import Drawing

FOLDER = Path(__file__).parents[2] / "docs" / "concepts"
ROWS = ("one", "two", "one", "three")


def transform() -> Drawing:
    """Return what adapters share: the transforms, and nothing between them."""
    d = Drawing(
        760,
        300,
        "A row x goes through the base's weight, and beside it through a shared analysis, its own "
        "adapter's few numbers and a shared synthesis; both results are added.",
    )
    d.box((20, 110, 60, 40), "x")
    d.box((320, 20, 120, 44), "W, the base", "plain")
    d.box((140, 108, 110, 44), "analysis", "shared")
    d.box((510, 108, 110, 44), "synthesis", "shared")
    for corner, filled in (
        ((300, 94), [(0, 5), (1, 2), (3, 6), (5, 1), (6, 4)]),
        ((365, 94), [(0, 1), (2, 4), (4, 0), (4, 7), (7, 3)]),
        ((430, 94), [(1, 6), (2, 2), (5, 5), (6, 0), (7, 7)]),
    ):
        d.cells(corner, 7, filled)
    d.box((670, 110, 60, 40), "y")
    d.arrow((50, 110), (50, 42), (318, 42))
    d.arrow((440, 42), (700, 42), (700, 108))
    d.arrow((80, 130), (138, 130))
    d.arrow((250, 130), (292, 130))
    d.arrow((490, 130), (508, 130))
    d.arrow((620, 130), (668, 130))
    d.words(195, 186, "one for all adapters:\nFourier, cosine,\nwavelet …", "middle")
    d.words(391, 186, "one for each adapter:\na few hundred numbers,\nkilobytes", "middle")
    d.words(565, 186, "one for all adapters", "middle")
    d.words(20, 268, "ΔW = synthesis · core · analysis; factored, ΔW itself is never built.")
    return d


def modes() -> Drawing:
    """Return the two modes, and what each costs."""
    d = Drawing(
        760,
        330,
        "Factored: the base's weight is read once for all rows, and each adapter's numbers are "
        "added beside it. Merged: an adapter has a weight of its own. A plan chooses by measured "
        "cost.",
    )
    d.box((20, 20, 345, 200), "", "plain")
    d.words(36, 44, "factored: kilobytes an adapter")
    d.box((40, 70, 140, 120), "W\nof the base,\nread once", "plain")
    for number, kind in enumerate(("one", "two", "three")):
        d.box((225, 70 + 42 * number, 110, 34), f"core of {'ABC'[number]}", kind)
    d.words(200, 136, "+", "middle")
    d.box((395, 20, 345, 200), "", "plain")
    d.words(411, 44, "merged: a copy of the adapted weights")
    d.box((415, 70, 140, 120), "W + ΔW of A\nread for A's rows", "one")
    d.box((580, 70, 140, 120), "W\nread for the rest", "plain")
    d.box(
        (250, 250, 260, 56),
        "the plan: cost of a step, measured\nat start, times the traffic",
        "shared",
    )
    d.arrow((250, 278), (190, 278), (190, 224))
    d.arrow((510, 278), (570, 278), (570, 224))
    d.words(36, 310, "a few percent a token")
    d.words(724, 310, "nothing a token, dense bytes", "end")
    return d


def identity() -> Drawing:
    """Return how a name becomes bytes."""
    d = Drawing(
        760,
        260,
        "A name or an alias points to a version; a version is a record with a digest; the digest "
        "names the stored bytes and is the key of every cache.",
    )
    d.box((20, 30, 140, 40), "support", "plain")
    d.box((20, 90, 140, 40), "support@prod", "plain")
    d.box((20, 150, 140, 40), "support@3", "plain")
    d.box((230, 30, 130, 40), "version 4", "one")
    d.box((230, 150, 130, 40), "version 3", "two")
    d.box((430, 30, 130, 40), "sha256:b71…", "one")
    d.box((430, 150, 130, 40), "sha256:09c…", "two")
    d.box((610, 30, 130, 40), "bytes, on disk", "one")
    d.box((610, 150, 130, 40), "bytes, on disk", "two")
    d.arrow((160, 50), (228, 50))
    d.arrow((160, 110), (195, 110), (195, 165), (228, 165))
    d.arrow((160, 178), (228, 178))
    for y in (50, 170):
        d.arrow((360, y), (428, y))
        d.arrow((560, y), (608, y))
    d.words(20, 225, "moves")
    d.words(230, 225, "an immutable record")
    d.words(430, 225, "the key of every cache:\nnever reused, so never invalidated")
    return d


def batch() -> Drawing:
    """Return one step over rows of several adapters."""
    d = Drawing(
        760,
        330,
        "Four rows of three adapters go through the base's product together; each row gathers its "
        "own adapter's numbers from a bank by its slot.",
    )
    d.words(20, 30, "rows of one step")
    for number, kind in enumerate(ROWS):
        y = 46 + 44 * number
        d.box((20, y, 150, 34), f"row {number}: adapter {'ABAC'[number]}", kind)
        d.arrow((170, y + 17), (228, y + 17))
        d.arrow((500, y + 17), (578, y + 17))
        d.box((580, y, 150, 34), f"row {number} of y", kind)
    d.box((230, 46, 110, 166), "x Wᵀ\none product\nfor all rows", "shared")
    d.box((370, 46, 130, 166), "+ each row's\nown update,\nby its slot", "plain")
    d.arrow((340, 129), (368, 129))
    d.words(430, 312, "the bank: a slot for each resident adapter", "middle")
    for number, (kind, text) in enumerate(
        (("plain", "0: none"), ("one", "1: A"), ("two", "2: B"), ("three", "3: C"))
    ):
        d.box((247 + 92 * number, 256, 84, 34), text, kind)
    d.arrow((435, 254), (435, 214))
    return d


def request() -> Drawing:
    """Return what a request passes through."""
    d = Drawing(
        760,
        310,
        "A request passes key and limits, then its name becomes a digest, then mode and lease are "
        "chosen, then it queues fairly, then it is one of the rows of each step until it ends.",
    )
    top = (
        "key, limits,\nbody checked",
        "name → digest\nby the mirror",
        "mode and lease\nby the plan",
    )
    low = (
        "fair queue,\npages of the cache",
        "steps: all rows\nat once",
        "sampler: own seed\nand settings",
    )
    for number, text in enumerate(top):
        d.box((150 + 200 * number, 30, 160, 56), text, "plain")
        d.arrow((110 if number == 0 else 110 + 200 * number, 58), (148 + 200 * number, 58))
    d.box((20, 30, 90, 56), "HTTP\nrequest", "shared")
    d.arrow((710, 58), (735, 58), (735, 120), (40, 120), (40, 178), (148, 178))
    for number, text in enumerate(low):
        kind = "one" if number == 1 else "plain"
        d.box((150 + 200 * number, 150, 160, 56), text, kind)
        if number:
            d.arrow((110 + 200 * number, 178), (148 + 200 * number, 178))
    d.arrow((630, 206), (630, 232), (430, 232), (430, 208))
    d.words(530, 250, "until the answer ends", "middle")
    d.arrow((710, 178), (735, 178), (735, 278), (112, 278))
    d.box((20, 255, 90, 44), "answer,\nstream", "shared")
    d.words(150, 298, "an adapter loads beside the batch: nothing else waits for it")
    return d


DRAWINGS: dict[str, Callable[[], Drawing]] = {
    "transform.svg": transform,
    "modes.svg": modes,
    "identity.svg": identity,
    "batch.svg": batch,
    "request.svg": request,
}


def main() -> None:
    """Write all drawings, into another folder if one is given."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    for name, draw in DRAWINGS.items():
        (folder / name).write_text(draw().svg())


if __name__ == "__main__":
    main()
