"""Every call of the API has a command, and every command one JSON document for programs."""

import json
from functools import partial
from pathlib import Path

import httpx2
import pytest
from typer.testing import CliRunner

from api_contract import api_document
from overtone_client import Client, _session
from overtone_client.cli import app

from .documented_answers import Answers

#: Operation -> a command line that asks for it; FILE and DIR are there, OUT is written.
COMMANDS = {
    "createCompletion": "complete poet Once",
    "createChatCompletion": "chat poet --message Hello",
    "createComparison": "compare poet tiny --prompt Once",
    "createClassification": "classify poet text",
    "createEmbedding": "embed poet text",
    "createReranking": "rerank poet query text",
    "createScore": "score poet text text",
    "createTokens": "tokenize text",
    "createText": "detokenize 1 2",
    "createEvaluation": "evaluate poet --data FILE",
    "listModels": "models",
    "getModel": "models poet",
    "createAdapter": "upload DIR --name poet",
    "listAdapters": "list",
    "getAdapter": "show poet",
    "listAdapterVersions": "show poet",
    "getAdapterContent": "download poet --output OUT",
    "listAdapterLayers": "layers poet",
    "shareAdapter": "share poet --with bob",
    "deleteAdapter": "delete poet --yes",
    "deleteAdapterVersion": "delete poet@1 --yes",
    "moveAlias": "alias poet prod 1",
    "rollbackAdapter": "rollback poet",
    "warmAdapter": "warm poet",
    "pinAdapter": "pin poet",
    "unpinAdapter": "unpin poet",
    "createFile": "files upload FILE",
    "listFiles": "files list",
    "getFile": "files show FID",
    "getFileContent": "files download FID --output OUT",
    "deleteFile": "files delete FID",
    "createBatch": "batch create FILE --endpoint /v1/completions",
    "listBatches": "batch list",
    "getBatch": "batch show batch_000000000000000000000000",
    "cancelBatch": "batch cancel batch_000000000000000000000000",
    "createFineTuningJob": "train --data FILE --name poet",
    "listFineTuningJobs": "jobs",
    "getFineTuningJob": "job JOB",
    "cancelFineTuningJob": "job JOB --cancel",
    "pauseFineTuningJob": "job JOB --pause",
    "resumeFineTuningJob": "job JOB --resume",
    "listFineTuningEvents": "job JOB --events",
    "listFineTuningCheckpoints": "job JOB --checkpoints",
    "listFineTuningMetrics": "job JOB --curve",
    "getFineTuningPlot": "job JOB --plot OUT",
    "createKey": "keys create --tenant alice --scopes infer",
    "listKeys": "keys list",
    "getKey": "keys show 0000000000000000",
    "rotateKey": "keys rotate 0000000000000000",
    "revokeKey": "keys revoke 0000000000000000",
    "getTenantLimits": "tenants limits alice",
    "putTenantLimits": "tenants limits alice --jobs 3",
    "getTenantUsage": "tenants usage alice",
    "getUsage": "tenants usage",
    "listWorkers": "workers",
    "getReadiness": "status",
    "getVersion": "status",
    "getActivity": "top --once --interval 0.1",
}

#: Operations that no command asks for -> why.
FOR_PROGRAMS = {
    "createResponse": "another shape of a chat, for OpenAI's clients",
    "getLayerPicture": "cells of a picture, for the console; `inspect` draws one",
    "getTokenizerInfo": "for programs that write a prompt from a chat template themselves",
    "getLiveness": "whether a process lives is asked by what restarts it",
    "getHealth": "the same as getReadiness, where other servers have it",
    "getMetrics": "Prometheus' text; `top` shows what people ask it",
    "getLoad": "Prometheus' text for schedulers, many times a second",
}


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Answers:
    """Answers to the program's client; the files that commands name are there."""
    made = Answers()
    transport = httpx2.MockTransport(made)
    monkeypatch.setattr(_session, "Client", partial(Client, transport=transport))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FILE").write_text("{}\n")
    (tmp_path / "DIR").mkdir()
    (tmp_path / "DIR" / "adapter_model.safetensors").write_bytes(b"bytes")
    (tmp_path / "DIR" / "adapter_config.json").write_text("{}")
    made.last_event = "Evaluation"
    made.overrides = {"status": "processed", "parent": None, "status_details": None}
    return made


def test_every_operation_has_a_command_or_a_reason_for_none() -> None:
    known = {
        one["operationId"] for path in api_document()["paths"].values() for one in path.values()
    }
    assert set(COMMANDS) | set(FOR_PROGRAMS) == known
    assert not set(COMMANDS) & set(FOR_PROGRAMS)


@pytest.mark.parametrize("operation", list(COMMANDS))
def test_the_command_asks_for_it_and_prints_one_document(operation: str, answers: Answers) -> None:
    ids = {"JOB": f"ftjob-{'0' * 24}", "FID": f"file-{'0' * 24}"}
    words = [ids.get(word, word) for word in COMMANDS[operation].split()]
    done = CliRunner().invoke(app, [*words, "--json"])
    assert done.exit_code == 0, done.output
    assert operation in answers.asked
    json.loads(done.stdout)
    assert done.stderr == ""
    answers.asked.clear()
    shown = CliRunner().invoke(app, words)
    assert shown.exit_code == 0, shown.output
    assert operation in answers.asked
    assert shown.stdout.strip()
