"""Every operation of the document x another tenant's things: what is not there, word for word.

The cases are made from the document: each place in it that takes a name or an id, in the path, in
the query or in the body. Each is sent by a tenant with all scopes, once for a thing of another
tenant and once for one that nobody has; the two answers must be the same.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

import spectra
import tiny_encoders as te
from access_scene import GUARDED, Json, Scene, code_of, example_of, schema_in, things_of
from adapters_core.format.description import AdapterDescription
from live import BASE, Live, parts
from registry import NewVersion
from registry.access.record import SCOPES

ROOT = "root-of-the-tests"
#: Operations on keys: every admin has those of all tenants.
_OF_OPERATORS = "/v1/keys"
#: Of ids and digests that nobody has.
_UNUSED = {"file": "file-" + "e" * 24, "job": "ftjob-" + "e" * 24, "batch": "batch_" + "e" * 24}
#: Parameter or field -> what of the first tenant it is given.
_THINGS = {
    **{"file_id": "file_id", "job_id": "job_id", "batch_id": "batch_id"},
    **{"file": "file_id", "training_file": "file_id", "validation_file": "file_id"},
    "input_file_id": "requests_id",
}
#: Parameter or field that takes an adapter's name alone; `model` takes references, too.
_NAMES = ("name", "model", "models")
#: Ways to name an adapter of the other tenant, or one that is not there.
_BARE = ("{name}", "{owner}:{name}")
_REFERENCES = (*_BARE, "{owner}:{name}@1", "{name}@prod", "{owner}:{name}@{digest}")
#: Operations whose name in the path may be a reference.
_TAKES_REFERENCES = ("warmAdapter", "pinAdapter", "unpinAdapter", "getModel")


@dataclass(frozen=True)
class Case:
    """One place that takes a name or an id, and a way to name something there.

    Args:
        method, path, operation: of the document.
        where: `path`, `query` or `body`.
        field: the parameter's or the field's name.
        form: how an adapter is named; None for what has an id.
    """

    method: str
    path: str
    operation: Json
    where: str
    field: str
    form: str | None = None

    @property
    def id(self) -> str:
        return "-".join([self.operation["operationId"], self.where, self.field, self.form or "id"])


def cases() -> Iterator[Case]:
    for method, path, operation in GUARDED:
        if path.startswith(_OF_OPERATORS):
            continue
        named = re.findall(r"{(\w+)}", path)
        places = [("path", field) for field in named if field in (*_THINGS, *_NAMES)]
        body = operation.get("requestBody", {}).get("content", {})
        for content in body.get("application/json", {}), body.get("multipart/form-data", {}):
            fields = schema_in(content.get("schema", {})).get("properties", {})
            is_form = content is body.get("multipart/form-data")
            takes = _NAMES if is_form else (*_THINGS, *_NAMES)
            places += [("body", field) for field in fields if field in takes]
        if path in ("/v1/files", "/v1/batches", "/v1/fine_tuning/jobs") and method == "GET":
            places.append(("query", "after"))
        for where, field in places:
            for form in _forms(operation, where, field):
                yield Case(method, path, operation, where, field, form)


def _forms(operation: Json, where: str, field: str) -> tuple[str | None, ...]:
    if field not in _NAMES:
        return (None,)
    if where == "body" and operation["operationId"] == "createAdapter":
        return ("{owner}:{name}",)  # a bare name is the uploading tenant's own
    takes_references = where == "body" or operation["operationId"] in _TAKES_REFERENCES
    return _REFERENCES if takes_references else _BARE


CASES = list(cases())
_ENCODING = ("createClassification", "createEmbedding", "createReranking", "createScore")
#: Those that a base which generates answers.
PLAIN = [case for case in CASES if case.operation["operationId"] not in _ENCODING]
every = pytest.mark.parametrize("case", PLAIN, ids=lambda case: case.id)
_CHANGING = (
    *("createAdapter", "rollbackAdapter", "cancelBatch", "createFineTuningJob"),
    *("cancelFineTuningJob", "pauseFineTuningJob", "resumeFineTuningJob"),
)


def _changes(case: Case) -> bool:
    """Return whether a request would change what others of these tests look for."""
    return case.method in ("DELETE", "PATCH") or case.operation["operationId"] in _CHANGING


#: What keeps answers short.
_SHORT: dict[str, Json] = {
    "createChatCompletion": {"max_tokens": 2},
    "createComparison": {"max_tokens": 2},
    "createResponse": {"max_output_tokens": 16},
}


@dataclass(frozen=True)
class Tenants:
    """A server, and two tenants on it: alice has one of everything, bob has two files.

    Args:
        scene: the server, with what alice has.
        files: tenant -> fields of bodies -> files of its own that are right there.
        before: all that the server held when both were there.
    """

    scene: Scene
    files: dict[str, dict[str, str]]
    before: dict[str, str]

    def sent(self, case: Case, key: str, things: dict[str, str]) -> httpx2.Response:
        """Send a request about things by the names of parameters, with the key of that name."""
        lists = {"files": "file_id", "batches": "batch_id", "jobs": "job_id"}
        if case.form is not None:
            value = case.form.format_map(things)
        elif case.where == "query":
            value = things[lists[case.path.rpartition("/")[2]]]
        else:
            value = things[_THINGS[case.field]]
        place, more = case.path.format_map(self.scene.known), {}
        if case.where == "path":
            place = case.path.format_map(self.scene.known | {case.field: value})
        elif case.where == "query":
            more["params"] = {case.field: value}
        if case.where == "body":
            more |= self._body(case, self.files.get(key.partition(",")[0], {}), value)
        elif "requestBody" in case.operation:
            more["json"] = example_of(case.operation)
        return self.scene.ask(case.method, place, self.scene.keys[key], **more)

    def _body(self, case: Case, files: dict[str, str], value: str) -> Json:
        """Return a body that is right but for the thing that it names."""
        if case.operation["operationId"] == "createAdapter":
            return {"data": {"name": value}, "files": parts(spectra.files(5))}
        given = example_of(case.operation)
        known = {"model": BASE, "models": [BASE, BASE]} | files
        given |= {field: known[field] for field in given if field in known}
        given |= _SHORT.get(case.operation["operationId"], {})
        return {"json": given | {case.field: [BASE, value] if case.field == "models" else value}}


@pytest.fixture(scope="module")
def tenants(serve_all: Callable[..., Live]) -> Tenants:
    live = serve_all(api_keys=f"root={ROOT}", run_batches=False, calibration_s=0)
    scene = Scene(live, {})
    for tenant in ("alice", "bob", "carol"):
        scene.keys[tenant] = scene.key_of("infer", "upload", "train", tenant=tenant)
        scene.keys[f"{tenant}, an admin"] = scene.key_of(*SCOPES, tenant=tenant)
    scene.known |= things_of(live, scene.keys["alice"])
    own = things_of(live, scene.keys["bob"])
    assert scene.ask("DELETE", "/v1/adapters/known", scene.keys["bob"]).status_code == 200
    files = {
        tenant: {field: made[thing] for field, thing in _THINGS.items()}
        for tenant, made in (("alice", scene.known), ("bob", own))
    }
    return Tenants(scene, files, scene.state())


def things(tenants: Tenants) -> dict[str, str]:
    digest = tenants.scene.live.service.registry.adapters_of("alice").resolve("known").digest
    return tenants.scene.known | {"owner": "alice", "digest": digest}


def no_things() -> dict[str, str]:
    ids = {"file_id": _UNUSED["file"], "requests_id": _UNUSED["file"], "job_id": _UNUSED["job"]}
    return ids | {
        **{"batch_id": _UNUSED["batch"], "name": "nosuch", "owner": "nobody"},
        "digest": f"sha256:{'e' * 64}",
    }


def said(answer: httpx2.Response, things: dict[str, str]) -> tuple[int, str, list[str]]:
    """Return what an answer says: status, body and names of headers, without the thing's name."""
    text = answer.text
    for field, thing in sorted(things.items(), key=lambda item: -len(item[1])):
        if field in no_things():
            text = re.sub(rf"(?<![\w-]){re.escape(thing)}(?![\w-])", f"<{field[:4]}>", text)
    text = text.replace("<requ>", "<file>")
    return answer.status_code, text, sorted(answer.headers)


@every
def test_anothers_thing_is_as_one_that_is_not_there(tenants: Tenants, case: Case) -> None:
    for tenant in ("bob, an admin", "bob"):
        if tenant == "bob" and case.operation["security"] == [{"apiKey": ["admin"]}]:
            continue
        found = tenants.sent(case, tenant, things(tenants))
        missing = tenants.sent(case, tenant, no_things())
        assert found.status_code == 404 or case.where == "query", found.text
        assert said(found, things(tenants)) == said(missing, no_things())


def test_nothing_was_done_for_any_of_them(tenants: Tenants) -> None:
    assert tenants.scene.state() == tenants.before


@pytest.mark.parametrize(
    "case", [each for each in PLAIN if not _changes(each)], ids=lambda case: case.id
)
def test_its_owner_finds_each_of_them(tenants: Tenants, case: Case) -> None:
    """The other test's requests are right, so that what they were refused for is the tenant."""
    answer = tenants.sent(case, "alice, an admin", things(tenants))
    assert answer.status_code != 404, answer.text


def test_no_list_has_anothers_things(tenants: Tenants) -> None:
    scene, told = tenants.scene, set()
    thing = [each for name, each in things(tenants).items() if name not in ("version", "alias")]
    for tenant, are_there in (("bob", False), ("alice", True)):
        for method, path, operation in GUARDED:
            is_plain = method == "GET" and "{" not in path and not path.startswith(_OF_OPERATORS)
            if is_plain and operation["security"] != [{"apiKey": ["metrics"]}]:
                text = scene.ask("GET", path, scene.keys[tenant]).text
                found = [each for each in thing if re.search(rf"(?<![\w-]){each}(?![\w-])", text)]
                assert not found or are_there, (path, found)
                told |= {path} if found else set()
    jobs = "/v1/fine_tuning/jobs"
    assert told >= {"/v1/adapters", "/v1/models", "/v1/files", "/v1/batches", jobs}


def test_the_number_of_cases_is_what_the_page_says() -> None:
    page = (Path(__file__).parents[3] / "docs" / "operations.md").read_text()
    assert f"{len(CASES)} places" in " ".join(page.split())


@pytest.mark.parametrize(
    ("shape", "is_embedder", "operations"),
    [
        ("bert", False, ("createClassification", "createReranking", "createScore")),
        ("bert", True, ("createEmbedding",)),
    ],
)
def test_encoders_know_tenants_too(
    serve: Callable[..., Live],
    tmp_path: Path,
    shape: Any,
    is_embedder: bool,
    operations: tuple[str, ...],
) -> None:
    if is_embedder:
        base = te.save(tmp_path / "base", shape, is_embedder)
    else:
        base = te.save_cross_encoder(tmp_path / "base", shape)
    live = serve(base=base, api_keys=f"root={ROOT}", task="embed" if is_embedder else "auto")
    scene = Scene(live, {"name": "known", "owner": "alice", "digest": f"sha256:{1:064x}"})
    scene.keys |= {tenant: scene.key_of("infer", tenant=tenant) for tenant in ("alice", "bob")}
    _register(live, "alice:known", scene.known["digest"])
    tried = [case for case in CASES if case.operation["operationId"] in operations]
    assert len(tried) == len(operations) * len(_REFERENCES)
    for case in tried:
        sent = Tenants(scene, {}, {}).sent
        assert code_of(sent(case, "alice", scene.known)) == (409, "base_mismatch")
        answers = [sent(case, "bob", named) for named in (scene.known, no_things())]
        assert code_of(answers[0]) == (404, "model_not_found")
        assert said(answers[0], scene.known) == said(answers[1], no_things())


def _register(live: Live, name: str, digest: str) -> None:
    """Publish a version that was made for another base: it is found, and not loaded."""
    made = AdapterDescription(
        digest, "fourierft", {}, "other", "f" * 64, True, ("a",), num_coefficients=1, size_bytes=1
    )
    live.service.registry.adapters.publish(
        NewVersion(name=name, description=made, created_at=1, alias="prod")
    )
