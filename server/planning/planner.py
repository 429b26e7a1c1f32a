"""Chooses an adapter's mode: merged weights or factored. Pure.

A plan is the set of adapters that are worth a merged copy. It follows from three things: what rows
cost on this device and base (costs.py), the recent requests (their adapters, the lengths of prompts
and answers, how many run at a time), and the bytes of the merged cache. Merged rows cost nothing
extra per token, but each merged adapter's weights are read once a step for its own rows alone;
factored rows share the base's weights and cost their transforms. So few busy adapters are worth
merging, and long prompts make it cheaper.

A request keeps the mode it was given; a plan only changes where that pays for the merging, and by
more than the model of the costs can be trusted.
"""

from collections import Counter, defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass

from server.adapters.modes import Mode
from server.planning.costs import Costs

#: A plan replaces another if it saves this share of the modelled time more.
_MARGIN = 0.01
#: Merging must pay within so many windows of requests.
_HORIZON = 4
#: Larger plans are looked at in steps of so many adapters.
_STRIDE = 8
#: Requests between two looks at the plan.
_EVERY = 8


@dataclass(frozen=True)
class Request:
    """A request as the planner sees it.

    Args:
        digest: the adapter's; None for the base itself.
        prompt: tokens of the prompt.
        answer: tokens that will be generated, at most.
        num_open: sequences that are open beside it.
        costs: of the adapter's layout; None while they are not known: it stays factored.
    """

    digest: str | None
    prompt: int
    answer: int
    num_open: int
    costs: Costs | None = None


@dataclass
class _Share:
    """One adapter's part of the recent requests.

    Args:
        rows: its rows in an average step of single tokens.
        prompts: its requests, each with a prompt of `prompt` rows.
    """

    digest: str
    costs: Costs
    rows: float
    prompts: int
    prompt: float


class Planner:
    """Keeps the recent requests and the plan.

    Args:
        merged_bytes: capacity of the merged cache.
        max_running: sequences that run at a time, at most.
        window: how many requests count as recent.
        most: adapters that a plan may have; None: as many as the cache holds.
    """

    def __init__(
        self,
        merged_bytes: int,
        max_running: int = 64,
        window: int = 64,
        most: int | None = None,
    ) -> None:
        self._merged_bytes, self._most = merged_bytes, most
        self._max_running = max_running
        self._recent: deque[Request] = deque(maxlen=window)
        self._since = 0
        #: The adapters that are worth a merged copy.
        self.plan: frozenset[str] = frozenset()
        #: The share of the modelled time that the plan saves against all factored.
        self.saving = 0.0

    def choose(self, request: Request) -> Mode:
        """Return the mode of one more request, and remember it."""
        self._recent.append(request)
        self._since += 1
        if self._since >= min(_EVERY, self._recent.maxlen or 1):
            self._since = 0
            self._look_again()
        return "merged" if request.digest in self.plan else "factored"

    def _look_again(self) -> None:
        traffic = _Traffic(self._recent, self._max_running)
        kept = [share for share in traffic.shares if share.digest in self.plan]
        saved, whole = traffic.seconds_saved(kept), traffic.seconds_factored()
        gain, best = max(
            (
                (traffic.seconds_saved(plan) - self._price(plan), plan)
                for plan in self._plans(traffic)
            ),
            key=lambda one: one[0],
        )
        if gain > saved + _MARGIN * whole:
            kept, saved = best, traffic.seconds_saved(best)
        self.plan = frozenset(share.digest for share in kept)
        self.saving = saved / whole if kept else 0.0

    def _plans(self, traffic: "_Traffic") -> Iterable[list["_Share"]]:
        """Yield the plans to compare: the k busiest adapters that fit the cache, k from 0 on."""
        plan: list[_Share] = []
        yield []
        left = self._merged_bytes
        for share in sorted(traffic.shares, key=self._busiest_first):
            if len(plan) == self._most:
                break
            if share.costs.merged_bytes <= left:
                left -= share.costs.merged_bytes
                plan.append(share)
                if len(plan) <= _STRIDE or len(plan) % _STRIDE == 0:
                    yield list(plan)
        if len(plan) > _STRIDE:
            yield plan

    def _busiest_first(self, share: "_Share") -> tuple[float, bool, str]:
        """Order by work; of equals, the merged first, so that a plan does not alternate."""
        work = share.rows + share.prompts * share.prompt
        return -work, share.digest not in self.plan, share.digest

    def _price(self, plan: list["_Share"]) -> float:
        """Return what merging costs a window, spread over those in which it has to pay."""
        return sum(s.costs.merge_s for s in plan if s.digest not in self.plan) / _HORIZON


class _Traffic:
    """The recent requests as average steps, and what these cost under a plan."""

    def __init__(self, recent: Iterable[Request], max_running: int) -> None:
        requests = list(recent)
        running = sum(r.num_open + 1 for r in requests) / len(requests)
        self._rows = min(running, max_running)
        answers: Counter[str | None] = Counter()
        prompts: defaultdict[str, list[int]] = defaultdict(list)
        costs: dict[str, Costs] = {}
        for request in requests:
            answers[request.digest] += max(1, request.answer)
            if request.digest is not None:
                prompts[request.digest].append(request.prompt)
                if request.costs is not None:
                    costs[request.digest] = request.costs
        self._steps = answers.total() / self._rows
        per_token = self._rows / answers.total()
        self.shares = [
            _Share(d, c, per_token * answers[d], len(prompts[d]), sum(prompts[d]) / len(prompts[d]))
            for d, c in costs.items()
        ]

    def seconds_factored(self) -> float:
        """Return the seconds of the window's linears and updates with everything factored."""
        if not self.shares:
            return 0.0
        own = max((share.costs.own for share in self.shares), key=lambda curve: curve.at(1))
        updates = sum(costs.token.at(rows) for costs, rows in self._factored([]).items())
        prompts = sum(
            s.prompts * (s.costs.prompt.at(s.prompt) + self._among_all(s)) for s in self.shares
        )
        return self._steps * (own.at(self._rows) + updates) + prompts

    def seconds_saved(self, plan: list[_Share]) -> float:
        """Return what a window saves if the adapters of `plan` are merged; may be negative."""
        if not plan:
            return 0.0
        rest, saved = self._rows, 0.0
        for share in plan:
            after = rest - share.rows
            if after < 0.5:  # no rows are left
                after = 0.0
            saved += share.costs.own.at(rest) - share.costs.own.at(after) - _alone(share)
            rest = after
        saved += self._updates_saved(plan)
        is_split = len(plan) > 1 or rest > 0
        if is_split:
            groups = sum(min(1.0, share.rows) for share in plan) + min(1.0, rest)
            saved -= max(s.costs.split.at(self._rows) for s in plan) * groups / 2
        prompts = sum(self._prompts_saved(share, is_split) for share in plan)
        return self._steps * saved + prompts

    def _updates_saved(self, plan: list[_Share]) -> float:
        before, after = self._factored([]), self._factored(plan)
        return sum(c.token.at(rows) - c.token.at(after[c]) for c, rows in before.items())

    def _factored(self, plan: list[_Share]) -> defaultdict[Costs, float]:
        """Return the rows of each kind that are not merged; they share their transforms."""
        merged = {share.digest for share in plan}
        rows: defaultdict[Costs, float] = defaultdict(float)
        for share in self.shares:
            rows[share.costs] += 0.0 if share.digest in merged else share.rows
        return rows

    def _among_all(self, share: _Share) -> float:
        """Return what a prompt's rows add to linears that a whole batch shares."""
        own = share.costs.own
        return own.at(self._rows + share.prompt) - own.at(self._rows)

    def _prompts_saved(self, share: _Share, is_split: bool) -> float:
        """Return what an adapter's prompts save.

        That is their updates and their cost among the shared rows, less that among its own rows.
        """
        costs, rows = share.costs, share.prompt
        among_own = min(costs.own.at(rows), costs.own.at(rows + share.rows) - _alone(share))
        split = costs.split.at(rows) if is_split else 0.0
        return share.prompts * (costs.prompt.at(rows) + self._among_all(share) - among_own - split)


def _alone(share: _Share) -> float:
    """Return the seconds a step spends on an adapter's own weights.

    An adapter with half a row on average is in every second step, with one row.
    """
    return min(1.0, share.rows) * share.costs.own.at(max(1.0, share.rows))
