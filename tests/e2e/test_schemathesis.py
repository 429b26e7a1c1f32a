"""Requests that the OpenAPI document allows, and some that it forbids: no 500, no other answer.

Each operation is tried with names that exist and with invented ones. What a value must be beyond
its schema is another test's matter, so nothing is said about which requests are accepted.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import spectra
from api_contract import api_document
from live import BASE, Live

#: Together under three minutes on two cores.
_EXAMPLES = 50
_TIMEOUT_S = 60.0
_KEY = "a-key-for-requests"
OPERATIONS = [
    (method, path) for path, operations in api_document()["paths"].items() for method in operations
]


@dataclass
class Target:
    """A small server, and what is on it."""

    live: Live
    headers: dict[str, str]

    def post(self, path: str, **request: Any) -> Any:
        answer = self.live.http.post(path, headers=self.headers, **request)
        assert answer.is_success, answer.text
        return answer.json()

    def known(self) -> dict[str, str]:
        """Return names of what is there; what a request before this one deleted is made again."""
        parts = {
            name: (name, content, "application/octet-stream")
            for name, content in zip(("config", "file"), _reversed(spectra.files()), strict=True)
        }
        for _ in range(2):
            self.post("/v1/adapters", data={"name": "known", "alias": "prod"}, files=parts)
        lines = b'{"prompt": "Once", "completion": " upon"}\n' * 3
        upload = {"file": ("a.jsonl", lines, "application/octet-stream")}
        file = self.post("/v1/files", data={"purpose": "fine-tune"}, files=upload)["id"]
        job = self.post("/v1/fine_tuning/jobs", json={"model": BASE, "training_file": file})["id"]
        self.post(f"/v1/fine_tuning/jobs/{job}/cancel")  # so that its stream of events ends
        names = {"name": "known", "alias": "prod", "version": "1", "model": "known"}
        return names | {"file_id": file, "job_id": job}


def _reversed(files: Any) -> list[bytes]:
    return list(files.values())[::-1]


@pytest.fixture(scope="module")
def target(serve_all: Callable[..., Live]) -> Target:
    live = serve_all(api_keys=[_KEY], request_timeout_s=2.0)
    return Target(live, {"Authorization": f"Bearer {_KEY}"})


def put_names(case: Any, names: dict[str, str]) -> None:
    """Replace invented names in a request's path and body by those that exist."""
    case.path_parameters = {
        name: names.get(name, value) for name, value in (case.path_parameters or {}).items()
    }
    if isinstance(case.body, dict):
        files = {"training_file": names["file_id"], "file": names["file_id"]}
        own = {"model": BASE if "training_file" in case.body else names["model"], **files}
        is_form = "multipart" in (case.media_type or "")
        case.body = {k: v if is_form else own.get(k, v) for k, v in case.body.items()}


@pytest.fixture(scope="module")
def schema() -> Any:
    import schemathesis  # takes seconds, which a run without slow tests does not need
    from schemathesis.checks import load_all_checks

    load_all_checks()
    return schemathesis.openapi.from_dict(api_document())


@pytest.fixture(scope="module")
def checks(schema: Any) -> list[Any]:
    from schemathesis.specs.openapi import checks

    return [
        checks.content_type_conformance,
        checks.ignored_auth,
        checks.response_headers_conformance,
        checks.response_schema_conformance,
        checks.status_code_conformance,
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_no_answer_is_a_500_or_breaks_its_schema(
    schema: Any, checks: list[Any], target: Target, method: str, path: str
) -> None:
    from schemathesis import GenerationMode

    operation, modes = schema[path][method], list(GenerationMode)
    cases = st.one_of([operation.as_strategy(generation_mode=mode) for mode in modes])

    @given(case=cases, is_known=st.booleans())
    @settings(
        max_examples=_EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def answers_as_declared(case: Any, is_known: bool) -> None:
        if is_known:
            put_names(case, target.known())
        url, headers = target.live.url, target.headers
        response = case.call(base_url=url, headers=headers, timeout=_TIMEOUT_S)
        assert response.status_code != 500, response.text
        case.validate_response(response, checks=checks, headers=headers)

    answers_as_declared()
