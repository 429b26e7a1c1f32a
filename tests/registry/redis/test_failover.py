"""Real servers in the shapes of a registry: a master that dies, and what their guards refuse."""

import shutil

import pytest

from redis_shapes import Acl, Sentinels, Tls
from registry.adapters.adapters import Adapters
from registry.adapters.directory import Directory, Following
from registry.errors import RegistryUnavailable, RegistryUnusable
from registry.redis import keys
from registry.redis.client import open_client
from registry.redis.reach import reach
from waiting import until

pytestmark = [
    pytest.mark.redis,
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("redis-server") is None, reason="no redis-server installed"),
]
NUM_VERSIONS = 20


@pytest.fixture
def running(request, tmp_path):
    shape = request.param(tmp_path)
    yield shape
    shape.close()


@pytest.mark.parametrize("running", [Sentinels], indirect=True)
def test_a_failover_keeps_what_had_reached_the_replica_and_servers_follow_the_new_master(
    running, putter
):
    running.wait_until_guarded()
    with open_client(running.url) as client, open_client(running.url) as followed:
        adapters = Adapters(client)
        put = putter(adapters)
        directory = Directory(Adapters(followed), followed)
        directory.start()
        try:
            for number in range(1, NUM_VERSIONS + 1):
                put(number)
            assert client.wait(1, 5000) == 1
            until(lambda: directory.following is Following.CAUGHT_UP)
            assert directory.resolve("poet").version == NUM_VERSIONS
            running.master.kill()
            with pytest.raises(RegistryUnavailable):
                put(NUM_VERSIONS + 1)  # refused while there is no master: not lost in silence

            record, _ = until(lambda: _tried(lambda: put(NUM_VERSIONS + 2)))

            assert record.version == NUM_VERSIONS + 1
            found = [each.version for each in adapters.versions("poet")]
            assert found == [*range(1, NUM_VERSIONS + 2)]
            until(lambda: directory.following is Following.CAUGHT_UP)
            until(lambda: _tried(lambda: directory.resolve("poet").version) == record.version)
            later, _ = put(NUM_VERSIONS + 3)
            until(lambda: _tried(lambda: directory.resolve("poet").version) == later.version)
        finally:
            directory.close()


@pytest.mark.parametrize("running", [Tls], indirect=True)
def test_a_server_that_wants_a_certificate_of_its_clients_refuses_others(running):
    with open_client(running.without_certificate) as client, pytest.raises(RegistryUnusable):
        reach(client, "it")
    with open_client(running.url) as client:
        reach(client, "it")


@pytest.mark.parametrize("running", [Acl], indirect=True)
def test_a_user_without_the_keys_is_told_at_the_start(running):
    with open_client(running.admin_url) as admin:
        admin.execute_command("ACL SETUSER", "other", "on", ">secret", "~elsewhere:*", "+@all")
    url = running.admin_url.replace("admin:of-tests", "other:secret")
    with open_client(url) as client, pytest.raises(RegistryUnusable, match="may not do"):
        reach(client, "it")
    with open_client(running.url) as client, pytest.raises(Exception, match="permission"):
        client.set("elsewhere", "1")
    assert keys.IDENTITY.startswith("overtone:{registry}:")


@pytest.mark.parametrize("running", [Acl], indirect=True)
def test_a_user_that_may_do_less_than_before_is_told_so(running):
    with open_client(running.admin_url) as admin, open_client(running.url) as client:
        adapters = Adapters(client)
        adapters.digest_is_live("sha256:" + "0" * 64)
        user = running.url.split("//")[1].split(":")[0]
        for denied in ("-evalsha", "-hexists"):  # the script, and a command within it
            admin.execute_command("ACL SETUSER", user, denied)
            with pytest.raises(RegistryUnavailable, match="ACL has to allow"):
                adapters.digest_is_live("sha256:" + "0" * 64)
            admin.execute_command("ACL SETUSER", user, denied.replace("-", "+"))


def _tried(call):
    try:
        return call()
    except RegistryUnavailable:
        return None
