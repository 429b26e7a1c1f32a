"""Random operations agree with the registry in plain Python, over both servers."""

import random

import pytest

from registry.errors import AdapterInUse, AdapterNotFound


def names(records):
    return [record.name for record in records]


class Model:
    """The registry in plain Python."""

    def __init__(self):
        self.counters, self.live, self.latest, self.prod = {}, {}, {}, {}

    def publish(self, name, digest, method, keeps_latest=False):
        versions = self.live.setdefault(name, {})
        for version, (known, _) in versions.items():
            if known == digest:
                return version
        self.counters[name] = version = self.counters.get(name, 0) + 1
        versions[version] = (digest, method)
        if not (keeps_latest and name in self.latest):
            self.latest[name] = version
        return version

    def delete(self, name, version):
        versions = self.live[name]
        if version is not None and self.prod.get(name) == version:
            return "in_use"
        for gone in list(versions) if version is None else [version]:
            del versions[gone]
        if not versions:
            for table in (self.live, self.latest, self.prod):
                table.pop(name, None)
        elif self.latest[name] == version:
            lower = [each for each in versions if each < version]
            self.latest[name] = max(lower or versions)
        return "deleted"


def check_against(model, adapters):
    live = {digest for versions in model.live.values() for digest, _ in versions.values()}
    assert names(adapters.list(100)) == sorted(model.live)
    for method in ("loca", "vera"):
        wanted = [n for n in model.live if model.live[n][model.latest[n]][1] == method]
        assert names(adapters.list(100, method=method)) == sorted(wanted)
    for number in range(1, 7):
        digest = f"sha256:{number:064x}"
        assert adapters.digest_is_live(digest) == (digest in live)
    for name, versions in model.live.items():
        entry = adapters.get(name)
        assert entry.latest.version == model.latest[name]
        assert entry.aliases.get("prod") == model.prod.get(name)
        found = {record.version: record.digest for record in adapters.versions(name)}
        assert found == {version: digest for version, (digest, _) in versions.items()}


def random_step(rng, model, adapters, put):
    name, number = rng.choice("abc"), rng.randint(1, 6)
    versions = sorted(model.live.get(name, ()))
    act = rng.choice(["publish", "publish", "rollback", "delete", "delete_all", "alias"])
    if act == "publish":
        method = rng.choice(["loca", "vera"])
        keeps = rng.random() < 0.3
        record, _ = put(number, name, method=method, keeps_latest=keeps)
        assert record.version == model.publish(
            name, record.digest, record.description.method, keeps
        )
    elif not versions:
        with pytest.raises(AdapterNotFound):
            adapters.get(name)
    elif act == "rollback" and (lower := [v for v in versions if v < model.latest[name]]):
        assert adapters.rollback(name).version == max(lower)
        model.latest[name] = max(lower)
    elif act == "alias":
        model.prod[name] = rng.choice(versions)
        adapters.move_alias(name, "prod", model.prod[name], None)
    elif act.startswith("delete") and (act == "delete" or rng.random() < 0.3):
        version = rng.choice(versions) if act == "delete" else None
        if model.delete(name, version) == "in_use":
            with pytest.raises(AdapterInUse):
                adapters.delete(name, version)
        else:
            adapters.delete(name, version)


def test_any_order_of_operations_agrees_with_a_plain_model(adapters, put):
    rng, model = random.Random(7), Model()
    for _ in range(300):
        random_step(rng, model, adapters, put)
        check_against(model, adapters)
