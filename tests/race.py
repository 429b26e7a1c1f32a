"""A hundred callers of one server whose names change under them, and what each must be told.

An answer states the digest it came from: its tokens must be that digest's, and the digest one that
the name could have meant while the request ran. Writers own their names, so what a name means is
known but for the moments between sending a change and having it answered.
"""

import asyncio
import json
import time
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import httpx2

from live import BASE, parts
from race_oracle import NEW_TOKENS, PROMPTS, Answers, Content, Oracle

TENANT_HEADER = "X-Tenant"
#: Callers of one tenant and of others that want less than their shares.
_TENANTS, _SHARES = ("many", "few", "one"), (85, 10, 5)
#: No request may take longer, however busy the server is.
_TIMEOUT_S = 60.0
_MOST_VERSIONS = 6
#: What a caller may be told instead of an answer.
_REFUSALS = {404: "model_not_found", 429: "overloaded"}


@dataclass
class Meaning:
    """What one reference has meant, in order: each from when it was sent, sure once answered."""

    sent: list[float] = field(default_factory=lambda: [0.0])
    answered: list[float] = field(default_factory=lambda: [0.0])
    digests: list[str | None] = field(default_factory=lambda: [None])

    def change(self, sent: float, answered: float, digest: str | None) -> None:
        """Enter a change; None is nothing."""
        self.sent.append(sent)
        self.answered.append(answered)
        self.digests.append(digest)

    def between(self, start: float, end: float) -> set[str | None]:
        """Return all that the reference could have meant at some moment."""
        found: set[str | None] = set()
        i = bisect_right(self.sent, end) - 1
        while i >= 0:
            found.add(self.digests[i])
            if self.answered[i] < start:
                break
            i -= 1
        return found


@dataclass
class Names:
    """All references and their meanings; `recent` are worth asking for."""

    meanings: defaultdict[str, Meaning] = field(default_factory=lambda: defaultdict(Meaning))

    def now(self) -> dict[str, str]:
        """Return the references that mean something, and what."""
        latest = ((ref, meaning.digests[-1]) for ref, meaning in self.meanings.items())
        return {ref: digest for ref, digest in latest if digest is not None}


@dataclass
class Report:
    """What a race has seen. `wrong` must be empty; the rest says how much was put to the test."""

    seconds: float = 0.0
    answers: int = 0
    cut: int = 0
    overtaken: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    changes: Counter[str] = field(default_factory=Counter)
    modes: Counter[str] = field(default_factory=Counter)
    digests: set[str] = field(default_factory=set)
    wrong: list[str] = field(default_factory=list)
    slowest_s: float = 0.0

    @property
    def changes_a_second(self) -> float:
        """Return uploads, moves and deletes a second."""
        return sum(self.changes.values()) / self.seconds

    def summary(self) -> str:
        """Return what was done, in one line."""
        return (
            f"{self.seconds:.1f} s: {self.answers / self.seconds:.1f} answers/s "
            f"({dict(self.modes)}, {self.cut} cut short) of {len(self.digests)} digests, "
            f"{self.changes_a_second:.1f} changes/s {dict(self.changes)}, "
            f"refused {dict(self.refused)}, {self.overtaken} overtaken by a delete, "
            f"slowest {self.slowest_s:.1f} s, {len(self.wrong)} wrong"
        )


@dataclass(frozen=True)
class _Told:
    """An answer as far as the caller took it: tokens by choice."""

    digest: str | None
    mode: str
    tokens: list[list[int]]


class _Refused(Exception):
    """The server said no, rightly or not."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(f"{status} {code}")
        self.status, self.code = status, code


@dataclass
class Race:
    """One race; `run` returns when every request has ended.

    Args:
        url: the server's.
        oracle: what may be uploaded, and its right answers.
        seconds: how long new requests are made; ends earlier at the first wrong answer if
            `until_wrong`.
        num_names: names that are fought over.
        changes_a_second: wanted.
    """

    url: str
    oracle: Oracle
    seconds: float
    num_clients: int = 100
    num_names: int = 12
    changes_a_second: float = 60.0
    until_wrong: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        self._answers = self.oracle.answers()
        self._owned = [f"name-{i}" for i in range(self.num_names)]
        self._pause_s = self.num_names / self.changes_a_second
        self._names = Names()
        self._asked: list[tuple[str, float, float, str | None]] = []
        self.report = Report()

    def run(self) -> Report:
        """Race, then hold what was answered against what the names meant."""
        asyncio.run(self._race())
        for reference, start, end, digest in self._asked:
            possible = self._names.meanings[reference].between(start, end)
            if digest is None and None not in possible:
                self.report.overtaken += 1
                possible |= self._deleted(reference, possible, start, end)
            if digest not in possible:
                self.report.wrong.append(f"{reference} answered as {digest}, meant {possible}")
        return self.report

    def _deleted(
        self, reference: str, possible: set[str | None], start: float, end: float
    ) -> set[str | None]:
        """Return {None} if a version that the reference meant was deleted while it was asked for.

        Its request may have been accepted, and found its file gone when its turn to load came.
        """
        name = reference.partition("@")[0]
        versions = (self._names.meanings[f"{name}@{digest}"] for digest in possible)
        return {None} if any(None in each.between(start, end) for each in versions) else set()

    async def _race(self) -> None:
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None)
        async with httpx2.AsyncClient(
            base_url=self.url, timeout=_TIMEOUT_S, limits=limits, trust_env=False
        ) as http:
            writers = [
                _Writer(name, http, self._names, self.oracle.contents, self.report, Random(name))
                for name in self._owned
            ]
            await asyncio.gather(*(writer.upload() for writer in writers))
            started = time.monotonic()
            self._deadline = started + self.seconds
            self.report.changes.clear()
            async with asyncio.TaskGroup() as group:
                for number, writer in enumerate(writers):
                    group.create_task(self._write(writer, number / len(writers)))
                for number in range(self.num_clients):
                    group.create_task(self._ask(http, Random(1000 * self.seed + number)))
            self.report.seconds = time.monotonic() - started
            await asyncio.gather(*(self._settled(http, ref) for ref in self._names.now()))

    @property
    def _is_on(self) -> bool:
        over = self.until_wrong and self.report.wrong
        return time.monotonic() < self._deadline and not over

    async def _write(self, writer: "_Writer", offset: float) -> None:
        """Change one name at an even pace; a change that was slow is not made up for."""
        at = time.monotonic() + offset * self._pause_s
        while self._is_on:
            await asyncio.sleep(max(0.0, at - time.monotonic()))
            at = max(at, time.monotonic() - self._pause_s) + self._pause_s
            await writer.change()

    async def _ask(self, http: httpx2.AsyncClient, random: Random) -> None:
        tenant = random.choices(_TENANTS, _SHARES)[0]
        while self._is_on:
            reference = self._reference(random)
            start = time.monotonic()
            kind = random.choices(("whole", "stream", "two", "cut"), (35, 45, 10, 10))[0]
            asked = random.sample(range(len(PROMPTS)), 2 if kind == "two" else 1)
            try:
                told = await _complete(http, reference, asked, kind, random.randint(1, 5), tenant)
            except _Refused as error:
                self._enter_refusal(reference, start, error)
            except httpx2.HTTPError as error:
                self.report.wrong.append(f"{reference}: {type(error).__name__} {error}")
            else:
                self._enter(reference, start, told, asked, kind)

    def _reference(self, random: Random) -> str:
        """Return a name, an alias, a version, a digest, or the base."""
        if random.random() < 0.04:
            return BASE
        weights = [1 / (1 + i) for i in range(len(self._owned))]
        name = random.choices(self._owned, weights)[0]
        if random.random() < 0.7:
            return random.choice((name, name, f"{name}@prod"))
        known = [ref for ref in self._names.now() if ref.startswith(f"{name}@")]
        return random.choice(known) if known else name

    def _enter_refusal(self, reference: str, start: float, error: _Refused) -> None:
        self.report.refused[str(error)] += 1
        if _REFUSALS.get(error.status) != error.code:
            self.report.wrong.append(f"{reference} was refused: {error}")
        elif error.status == 404:
            self._asked.append((reference, start, time.monotonic(), None))

    def _enter(
        self, reference: str, start: float, told: _Told, asked: Sequence[int], kind: str
    ) -> None:
        """Hold an answer against its own digest now, and against the name's meanings later."""
        end = time.monotonic()
        self.report.slowest_s = max(self.report.slowest_s, end - start)
        self.report.answers += 1
        self.report.cut += kind == "cut"
        self.report.modes[told.mode] += 1
        right = self._answers.get(told.digest)
        for number, tokens in zip(asked, told.tokens, strict=True):
            if right is None or not _agrees(tokens, right, number, kind == "cut"):
                self.report.wrong.append(
                    f"{reference} ({told.mode}, {kind}) said {told.digest} and gave {tokens}, "
                    f"which is {_whose(tokens, number, self._answers)}"
                )
        if reference == BASE:
            assert told.digest is None
            return
        self.report.digests.add(str(told.digest))
        self._asked.append((reference, start, end, told.digest))

    async def _settled(self, http: httpx2.AsyncClient, reference: str) -> None:
        """Ask once more when all is quiet: every reference that is left must be served."""
        start = time.monotonic()
        try:
            told = await _complete(http, reference, [0], "whole")
        except _Refused as error:
            self.report.wrong.append(f"in the end {reference} was refused: {error}")
        else:
            self._enter(reference, start, told, [0], "whole")


def _agrees(tokens: list[int], right: Answers, number: int, is_cut: bool) -> bool:
    wanted = list(right[number])
    return tokens == (wanted[: len(tokens)] if is_cut else wanted)


def _whose(tokens: list[int], number: int, answers: dict[str | None, Answers]) -> str:
    """Return who answers so, for the report of a fault."""
    found = [d or "the base" for d, right in answers.items() if list(right[number]) == tokens]
    return found[0] if found else "nobody's"


async def _complete(
    http: httpx2.AsyncClient,
    reference: str,
    asked: Sequence[int],
    kind: str,
    cut: int = 0,
    tenant: str = "",
) -> _Told:
    """Ask for greedy answers; hang up after `cut` events if the kind is `cut`.

    Raises:
        _Refused: an error body came, before the answer or in its stream.
    """
    prompts = [PROMPTS[number] for number in asked]
    body: dict[str, Any] = {"model": reference, "prompt": prompts, "max_tokens": NEW_TOKENS}
    body |= {"temperature": 0, "return_token_ids": True, "ignore_eos": True}
    headers = {TENANT_HEADER: tenant}
    if kind in ("whole", "two"):
        answer = await http.post("/v1/completions", json=body, headers=headers)
        told = answer.json()
        _raise_for(answer.status_code, told)
        tokens = [choice["token_ids"] for choice in told["choices"]]
        return _told(told, answer.headers, tokens)
    body["stream"] = True
    async with http.stream("POST", "/v1/completions", json=body, headers=headers) as answer:
        if answer.status_code != 200:
            _raise_for(answer.status_code, json.loads(await answer.aread()))
        tokens, events = [[]], 0
        async for line in answer.aiter_lines():
            if not line.startswith("data: {"):
                continue
            piece = json.loads(line.removeprefix("data: "))
            if "error" in piece:  # after the headers: the code alone says what it is
                code = piece["error"]["code"]
                raise _Refused({c: s for s, c in _REFUSALS.items()}.get(code, 500), code)
            tokens[0] += piece["choices"][0]["token_ids"]
            told, events = piece, events + 1
            if kind == "cut" and events >= cut:
                break
        return _told(told, answer.headers, tokens)


def _raise_for(status: int, body: dict[str, Any]) -> None:
    if status != 200:
        raise _Refused(status, body["error"]["code"])


def _told(body: dict[str, Any], headers: httpx2.Headers, tokens: list[list[int]]) -> _Told:
    said = body["overtone"]
    stated = headers["x-overtone-adapter"].rpartition(" ")[2]
    assert stated == (said["digest"] or BASE), "header and body name different digests"
    return _Told(said["digest"], said["mode"], tokens)


class _Writer:
    """The only one that changes `name`; keeps the books that the registry should keep."""

    def __init__(
        self,
        name: str,
        http: httpx2.AsyncClient,
        names: Names,
        contents: Sequence[Content],
        report: Report,
        random: Random,
    ) -> None:
        self._name = name
        self._http = http
        self._names = names
        self._contents = contents
        self._report = report
        self._random = random
        self._versions: dict[int, str] = {}
        self._latest: int | None = None
        self._prod: int | None = None

    async def change(self) -> None:
        """Make one change."""
        if not self._versions or len(self._versions) < 2:
            await self.upload()
        elif len(self._versions) > _MOST_VERSIONS:
            await self.delete_version()
        else:
            kinds = (self.upload, self.move, self.roll_back, self.delete_version, self.delete)
            await self._random.choices(kinds, (40, 35, 10, 12, 3))[0]()

    async def upload(self) -> None:
        content = self._random.choice(self._contents)
        fields = {"name": self._name}
        is_prod = self._random.random() < 0.3
        if is_prod:
            fields["alias"] = "prod"
        sent = time.monotonic()
        answer = await self._http.post("/v1/adapters", data=fields, files=parts(content.files))
        if not self._is_expected(answer, "upload", 200, 201):
            return
        version = answer.json()["version"]
        if answer.status_code == 201:
            self._latest = version
        self._versions[version] = content.digest
        self._prod = version if is_prod else self._prod
        self._enter(sent)

    async def move(self) -> None:
        version = self._random.choice(list(self._versions))
        sent = time.monotonic()
        path = f"/v1/adapters/{self._name}/aliases/prod"
        answer = await self._http.put(path, json={"version": version})
        if self._is_expected(answer, "move", 200):
            self._prod = version
            self._enter(sent)

    async def roll_back(self) -> None:
        lower = [version for version in self._versions if version < (self._latest or 0)]
        sent = time.monotonic()
        answer = await self._http.post(f"/v1/adapters/{self._name}/rollback")
        if self._is_expected(answer, "rollback", 200 if lower else 409) and lower:
            self._latest = max(lower)
            self._enter(sent)

    async def delete_version(self) -> None:
        version = self._random.choice(list(self._versions))
        sent = time.monotonic()
        answer = await self._http.delete(f"/v1/adapters/{self._name}/versions/{version}")
        in_use = version == self._prod
        if not self._is_expected(answer, "delete", 409 if in_use else 200) or in_use:
            return
        del self._versions[version]
        if version == self._latest:
            lower = [other for other in self._versions if other < version]
            self._latest = max(lower or self._versions)
        self._enter(sent)

    async def delete(self) -> None:
        sent = time.monotonic()
        answer = await self._http.delete(f"/v1/adapters/{self._name}")
        if self._is_expected(answer, "delete", 200):
            self._versions, self._latest, self._prod = {}, None, None
            self._enter(sent)

    def _is_expected(self, answer: httpx2.Response, kind: str, *expected: int) -> bool:
        """Count a change that was made; report one that ended otherwise than it should."""
        if answer.status_code not in expected:
            told = f"{kind} of {self._name}: {answer.status_code} {answer.text}"
            self._report.wrong.append(told)
            return False
        self._report.changes[kind] += answer.status_code < 300
        return True

    def _enter(self, sent: float) -> None:
        """Enter all references whose meaning this change has moved."""
        answered = time.monotonic()
        for reference, digest in self._references().items():
            meaning = self._names.meanings[reference]
            if meaning.digests[-1] != digest:
                meaning.change(sent, answered, digest)

    def _references(self) -> dict[str, str | None]:
        """Return what every reference to the name, alive or gone, means now."""
        held = {f"{self._name}@{version}": d for version, d in self._versions.items()}
        held |= {f"{self._name}@{digest}": digest for digest in self._versions.values()}
        for reference, version in ((self._name, self._latest), (f"{self._name}@prod", self._prod)):
            if version is not None:
                held[reference] = self._versions[version]
        mine = (ref for ref in self._names.meanings if ref.partition("@")[0] == self._name)
        return dict.fromkeys(mine) | held
