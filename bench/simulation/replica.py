"""One replica: requests wait for their adapter, then for a place, then run in common steps.

As the engine does it: single tokens of all running requests and pieces of prompts make up a step,
first come first served; adapters are loaded one at a time, beside the steps.
"""

from collections import Counter, deque
from dataclasses import dataclass, field
from heapq import heappop, heappush

from bench.lib.load import Planned
from bench.simulation.costs import Costs, Limits
from bench.simulation.residency import Residency


@dataclass(slots=True)
class Request:
    """One request on its way; times in seconds.

    Args:
        planned: what was asked, and when.
        replica: where it was placed.
        is_cold: whether its adapter had to be loaded, or was just being loaded.
    """

    planned: Planned
    replica: int
    is_cold: bool = False
    prompt_left: int = 0
    first_token_s: float = -1.0
    done_s: float = -1.0


@dataclass
class Replica:
    """A server with one base; the fleet tells it the time.

    `loads` counts loads, `tokens` (time, tokens) are the steps that gave some.
    """

    costs: Costs
    limits: Limits
    is_loading: bool = False
    is_stepping: bool = False
    loads: int = 0
    tokens: list[tuple[float, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.residency = Residency(self.limits.memory, self.costs.adapter_bytes)
        self._cold: dict[int, list[Request]] = {}  # the first is being loaded
        self._ready: deque[Request] = deque()
        self._prompts: list[Request] = []
        self._decoding: list[tuple[int, int, Request]] = []  # a heap by the step that ends each
        self._pieces: list[int] = []  # of the prompts in the step that runs
        self._adapters: Counter[int] = Counter()  # of what runs
        self._steps = 0

    def accept(self, request: Request) -> None:
        """Take a request; what it needs is loaded if it is not there."""
        adapter = request.planned.adapter
        request.prompt_left = request.planned.prompt_tokens
        if adapter in self._cold or adapter not in self.residency:
            request.is_cold = True
            self._cold.setdefault(adapter, []).append(request)
        else:
            self.residency.acquire(adapter)
            self._ready.append(request)

    def begin_load(self) -> float | None:
        """Return the seconds of the load that begins now; None if none does."""
        if self.is_loading or not self._cold:
            return None
        if not self.residency.acquire(next(iter(self._cold))):
            return None  # all of the memory is in use: until a request ends
        self.is_loading = True
        self.loads += 1
        return self.costs.load_s

    def end_load(self) -> None:
        """The adapter is there: what waited for it waits for a place."""
        self.is_loading = False
        adapter = next(iter(self._cold))
        waited = self._cold.pop(adapter)
        for _ in waited[1:]:
            self.residency.acquire(adapter)
        self._ready.extend(waited)

    def begin_step(self) -> float | None:
        """Return the seconds of the step that begins now; None if none does."""
        if self.is_stepping:
            return None
        self._admit()
        rows = len(self._decoding)
        self._pieces = []
        for request in self._prompts:
            piece = min(request.prompt_left, self.limits.rows - rows)
            self._pieces.append(piece)
            rows += piece
        if not rows:
            return None
        self.is_stepping = True
        self._steps += 1
        return self.costs.seconds(rows, len(self._adapters))

    def end_step(self, now: float) -> list[Request]:
        """Enter a step's tokens; return the requests that ended with it."""
        self.is_stepping = False
        tokens = len(self._decoding)
        ended = self._end_decoding()
        for request, piece in zip(self._prompts, self._pieces, strict=True):
            request.prompt_left -= piece
            if not request.prompt_left:
                request.first_token_s = now
                tokens += 1
                self._decode(request, ended)
        self._prompts = [request for request in self._prompts if request.prompt_left]
        self.tokens.append((now, tokens))
        for request in ended:
            request.done_s = now
            self._leave(request.planned.adapter)
        return ended

    def _admit(self) -> None:
        places = self.limits.running - len(self._decoding) - len(self._prompts)
        for _ in range(min(places, len(self._ready))):
            request = self._ready.popleft()
            self._prompts.append(request)
            self._adapters[request.planned.adapter] += 1

    def _decode(self, request: Request, ended: list[Request]) -> None:
        left = request.planned.max_tokens - 1
        if not left:
            ended.append(request)
            return
        heappush(self._decoding, (self._steps + left, request.planned.number, request))

    def _end_decoding(self) -> list[Request]:
        ended = []
        while self._decoding and self._decoding[0][0] <= self._steps:
            ended.append(heappop(self._decoding)[2])
        return ended

    def _leave(self, adapter: int) -> None:
        self.residency.release(adapter)
        self._adapters[adapter] -= 1
        if not self._adapters[adapter]:
            del self._adapters[adapter]
