"""One real registry for the tests of a file, empty for each."""

from collections.abc import Iterator

import pytest

from registry.connect import Registry, connect


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with connect("embedded", tmp_path_factory.mktemp("registry")) as registry:
        registry.client.config_set("appendfsync", "no")
        yield registry


@pytest.fixture
def registry(opened: Registry) -> Registry:
    opened.client.flushall()
    return opened
