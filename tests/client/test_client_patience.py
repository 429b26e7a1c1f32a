"""How long a server is asked again that does not answer, and how exactly a limit is kept."""

from collections.abc import Callable, Iterator

import httpx2
import pytest

from overtone_client import Client, ConnectionLost, OvertoneError, Timeout
from overtone_client import _patience as patience
from overtone_client import _pauses as pauses
from overtone_client._sync.jobs import Job

JOB = {"id": "ftjob-1", "status": "running", "model": "tiny"}
EVENT = 'data: {"id": "1", "type": "message", "level": "info", "message": "over"}\n\n'
EVENTS = {"content-type": "text/event-stream"}


class Site:
    """A server and a clock: pauses and answers take this clock's time, and none of the test's.

    It answers as the script says, one entry a request, and then as the last entry for ever.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.num_asked = 0
        self.limit_s = 0.0  # of the request at hand
        self.ends: list[float] = []  # when each request would have been given up
        self.script: list[Callable[[Site], httpx2.Response]] = []

    def pass_by(self, seconds: float) -> None:
        self.now += seconds

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.limit_s = max(request.extensions["timeout"].values())
        self.ends.append(self.now + self.limit_s)
        answer = self.script[min(self.num_asked, len(self.script) - 1)]
        self.num_asked += 1
        return answer(self)


Answer = Callable[[Site], httpx2.Response]


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Site:
    site = Site()
    monkeypatch.setattr(patience, "monotonic", lambda: site.now)
    monkeypatch.setattr(pauses, "pause", site.pass_by)
    return site


@pytest.fixture
def client(site: Site) -> Iterator[Client]:
    with Client(transport=httpx2.MockTransport(site)) as client:
        yield client


@pytest.fixture
def job(client: Client) -> Job:
    return Job.of(JOB, client.training._sender)


def no_connection(_: Site) -> httpx2.Response:
    raise httpx2.ConnectError("refused")


def silence(site: Site) -> httpx2.Response:
    site.pass_by(site.limit_s)
    raise httpx2.ReadTimeout("silent")


def told(status: str) -> Answer:
    return lambda _: httpx2.Response(200, json={**JOB, "status": status})


def refused(status: int, code: str | None = None, **headers: str) -> Answer:
    fault = {"error": {"code": code, "message": "not now"}}
    return lambda _: httpx2.Response(status, json=fault, headers=headers)


def cut_after(seconds: float) -> Answer:
    """A stream with nothing new in it that breaks after some seconds."""

    def answer(site: Site) -> httpx2.Response:
        def text() -> Iterator[bytes]:
            yield b": alive\n\n"
            site.pass_by(seconds)

        return httpx2.Response(200, content=text(), headers=EVENTS)

    return answer


def whole(_: Site) -> httpx2.Response:
    return httpx2.Response(200, text=EVENT + "data: [DONE]\n\n", headers=EVENTS)


def test_a_quiet_job_is_followed_over_many_streams(site: Site, job: Job) -> None:
    site.script = [*[cut_after(60.0)] * 60, no_connection, whole]
    assert [event.message for event in job.events()] == ["over"]
    assert site.now > 3600


def test_streams_that_are_cut_at_once_are_given_up(site: Site, job: Job) -> None:
    site.script = [cut_after(0.5)]
    lost: list[OvertoneError] = []
    with pytest.raises(ConnectionLost):
        list(job.events(on_lost=lost.append))
    assert patience.PATIENCE_S - 2 < site.now <= patience.PATIENCE_S + 2
    assert len(lost) > 10


PASSING = {
    "proxy-502": refused(502),
    "proxy-503": refused(503),
    "proxy-504": refused(504),
    "no-memory": refused(503, "out_of_memory"),
    "busy": refused(429, "overloaded"),
    "refused": no_connection,
    "silent": silence,
}


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
def test_what_passes_by_itself_is_waited_for(site: Site, job: Job, fault: Answer) -> None:
    site.script = [fault, whole]
    assert [event.message for event in job.events()] == ["over"]
    site.num_asked, site.script = 0, [fault, told("succeeded")]
    assert job.wait().status == "succeeded"


@pytest.mark.parametrize("fault", [refused(502), no_connection])
def test_a_server_that_stays_away_ends_a_wait(site: Site, job: Job, fault: Answer) -> None:
    site.script = [fault]
    with pytest.raises(OvertoneError):
        job.wait()
    assert patience.PATIENCE_S - 6 < site.now <= patience.PATIENCE_S + 6


def test_what_does_not_pass_comes_at_once(site: Site, job: Job) -> None:
    site.script = [refused(404, "not_found")]
    for look in (job.wait, lambda: list(job.events())):
        with pytest.raises(OvertoneError, match="not now"):
            look()
    assert site.num_asked == 2


def test_a_server_that_names_a_time_is_not_asked_before(site: Site, job: Job) -> None:
    busy = refused(429, "overloaded", **{"Retry-After": "40"})
    site.script = [busy, busy, whole]
    assert len(list(job.events())) == 1
    assert site.now == 80
    site.num_asked, site.script = 0, [busy, busy, told("succeeded")]
    job.wait()
    assert site.now > 160


FAULTS = [no_connection, silence, refused(502), refused(503, "registry_unavailable")]
FAULTS += [refused(429, "overloaded", **{"Retry-After": "20"})]


@pytest.mark.parametrize("fault", FAULTS)
def test_the_limit_of_a_wait_is_kept_whatever_the_server_does(
    site: Site, job: Job, fault: Answer
) -> None:
    site.script = [told("running"), fault]
    with pytest.raises(Timeout, match=r"ftjob-1 is running after 7 s; it goes on \(.+\)$"):
        job.wait(timeout_s=7)
    assert site.now == pytest.approx(7)
    assert max(site.ends) == pytest.approx(7)


def test_the_last_pause_of_a_wait_is_cut_to_its_limit(site: Site, job: Job) -> None:
    site.script = [told("running")]
    with pytest.raises(Timeout, match=r"is running after 101 s; it goes on$"):
        job.wait(timeout_s=101)
    assert site.now == pytest.approx(101)


@pytest.mark.parametrize("fault", FAULTS)
def test_the_limit_of_a_start_is_kept_whatever_the_server_does(
    site: Site, client: Client, fault: Answer
) -> None:
    site.script = [fault]
    with pytest.raises(Timeout, match=r"^the server is not ready after 7 s: .+"):
        client.wait_until_ready(7)
    assert site.now == pytest.approx(7)
    assert max(site.ends) == pytest.approx(7)


def test_a_clients_own_shorter_limits_are_kept(site: Site) -> None:
    site.script = [silence]
    with (
        Client(transport=httpx2.MockTransport(site), timeout=2.0) as client,
        pytest.raises(Timeout, match="not ready after 60 s"),
    ):
        client.wait_until_ready()
    assert site.ends[0] == 2
    assert site.now == pytest.approx(60)
