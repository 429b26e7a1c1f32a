"""Every tenant has names of its own, may use what is shared with it, and sees nothing else."""

import pytest

from registry.adapters.adapters import Adapters
from registry.adapters.directory import Directory
from registry.adapters.sharing import EVERYONE, MAX_TENANTS, Sharing
from registry.adapters.view import AdapterView
from registry.errors import AdapterNotFound, InvalidArgument, InvalidName, NotOwner
from registry.redis import keys

BOB = Sharing(tenants=("bob",))
ALL = Sharing(everyone=True)


@pytest.fixture
def view(adapters, client):
    directory = Directory(adapters, client)
    return lambda space: AdapterView(adapters, directory, space)


def names(view, **wanted):
    return [view.shown(entry.name) for entry in view.list(**({"limit": 1000} | wanted))]


def said(act, *args):
    with pytest.raises(AdapterNotFound) as caught:
        act(*args)
    assert type(caught.value) is AdapterNotFound
    return str(caught.value)


def test_two_tenants_have_one_name_each_for_its_own(view, put):
    put(1, "alice:support", alias="prod")
    put(2, "bob:support")
    put(3, "bob:support", alias="prod")
    alice, bob = view("alice"), view("bob")
    assert alice.resolve("support").digest[-1] == "1"
    assert bob.resolve("support").digest[-1] == "3"
    assert bob.resolve("support@1").digest[-1] == "2"
    assert bob.resolve("bob:support@prod").version == 2
    assert [alice.get("support").aliases, bob.get("support").aliases] == [
        {"latest": 1, "prod": 1},
        {"latest": 2, "prod": 2},
    ]
    assert (names(alice), names(bob), names(view(""))) == (["support"], ["support"], [])


@pytest.mark.parametrize("text", ["", "@1", "@prod", f"@sha256:{1:064x}"])
def test_anothers_is_as_what_is_not_there(view, put, text):
    put(1, "alice:support", alias="prod")
    for space in ("bob", ""):
        for name in ("support", "alice:support"):
            found = said(view(space).resolve, name + text)
            missing = said(view(space).resolve, name.replace("support", "nothing") + text)
            assert found.replace("support", "nothing") == missing
            assert name in found


def test_anothers_costs_the_same_questions_as_what_is_not_there(client, put):
    put(1, "alice:support")
    asked = {}
    for name in ("alice:support", "alice:nothing", "support", "nothing"):
        asked[name] = []
        own = Adapters(client, lambda op, seconds, ok, told=asked[name]: told.append(op))
        bob = AdapterView(own, Directory(own, client), "bob")
        said(bob.resolve, name)
        said(bob.get, name)
        said(bob.change, name, own.rollback)
    assert asked["alice:support"] == asked["alice:nothing"] == ["sharing"] * 3
    assert asked["support"] == asked["nothing"] != []


def test_the_operators_adapters_are_for_all_to_use_and_hidden_by_own_names(view, put, adapters):
    put(1, "common")
    put(2, "both")
    put(3, "alice:both")
    alice, bob = view("alice"), view("bob")
    assert alice.resolve("common").name == bob.resolve("common").name == "common"
    assert alice.resolve("both").name == "alice:both"
    assert bob.resolve("both").name == "both"
    assert alice.get("both").name == "alice:both"
    assert names(alice) == names(bob) == ["both", "common"]
    said(alice.resolve, "both@2")  # its own name has no such version, and is meant
    for name in ("common", "both"):
        with pytest.raises(NotOwner, match=name):
            bob.change(name, adapters.delete)
    alice.change("both", adapters.delete)
    assert alice.resolve("both").name == "both"


def test_a_name_that_was_not_there_is_found_as_soon_as_it_is(view, put):
    alice = view("alice")
    said(alice.resolve, "support")
    put(1, "alice:support")
    assert alice.resolve("support").version == 1


def test_what_is_shared_is_used_by_its_owners_name_and_changed_by_no_other(view, put, adapters):
    put(1, "alice:support", alias="prod")
    adapters.share("alice:support", BOB)
    bob, carol = view("bob"), view("carol")
    assert bob.resolve("alice:support@prod").name == "alice:support"
    assert bob.get("alice:support").sharing == BOB
    assert (names(bob), names(carol)) == (["alice:support"], [])
    with pytest.raises(NotOwner, match="alice:support"):
        bob.change("alice:support", adapters.delete)
    said(carol.resolve, "alice:support")
    said(bob.resolve, "support")
    adapters.share("alice:support", ALL)
    assert names(carol) == names(view("")) == ["alice:support"]
    assert names(view("alice")) == ["support"]
    adapters.share("alice:support", Sharing())
    for space in ("bob", "carol", ""):
        said(view(space).resolve, "alice:support")
        assert names(view(space)) == []


def test_sharing_ends_with_the_name_and_leaves_nothing(adapters, client, put):
    put(1, "alice:support")
    adapters.share("alice:support", Sharing(True, ("bob", "carol")))
    put(2, "alice:support")
    assert adapters.sharing("alice:support") == Sharing(True, ("bob", "carol"))
    adapters.delete("alice:support", 1)
    assert client.exists(keys.SHARING)
    adapters.delete("alice:support")
    assert client.keys(f"{keys.SHARING}*") == []
    put(3, "alice:support")
    assert adapters.sharing("alice:support") == Sharing()
    with pytest.raises(AdapterNotFound):
        adapters.share("alice:nothing", ALL)


def test_a_list_is_in_one_order_whole_and_once_however_it_is_paged(view, put, adapters):
    own = ["alice:a", "alice:bob", "alice:bob-x", "alice:m", "alice:z"]
    common = ["a", "bob0", "boba", "m", "n"]
    for number, name in enumerate([*own, *common, "bob:a", "bob:m", "bob:own", "carol:b"]):
        put(number, name, method="loca" if number % 2 else "fourierft")
    for name in ("bob:a", "carol:b", "alice:a"):
        adapters.share(name, Sharing(True, ("alice",)))
    adapters.share("bob:m", Sharing(tenants=("alice",)))
    alice = view("alice")
    everything = ["a", "bob", "bob-x", "bob0", "bob:a", "bob:m", "boba", "carol:b", "m", "n", "z"]
    assert names(alice) == everything == sorted(everything, key=str.encode)
    for limit in range(1, 13):
        found, after = [], None
        while page := names(alice, limit=limit, after=after):
            found += page
            after = page[-1]
        assert found == everything
    assert names(alice, prefix="bob") == ["bob", "bob-x", "bob0", "bob:a", "bob:m", "boba"]
    assert names(alice, prefix="bob:") == ["bob:a", "bob:m"]
    assert names(alice, method="loca") == [
        view("alice").shown(entry.name)
        for entry in alice.list(1000)
        if entry.latest.description.method == "loca"
    ]


@pytest.mark.parametrize("wanted", [{"after": "b b"}, {"after": "é:a"}, {"prefix": "é:a"}])
def test_what_is_no_name_begins_no_page(view, wanted):
    with pytest.raises(InvalidName):
        view("alice").list(10, **wanted)


@pytest.mark.parametrize("owner", ["\ud800", "é", "a\n", ":", "a" * 65, "a/" + "b" * 129])
def test_what_can_be_no_owner_is_not_asked_for(view, owner):
    said(view("alice").resolve, f"{owner}:support")
    assert said(view("alice").get, f"{owner}:support")


def test_a_tenant_called_like_a_digest_and_a_gateways_callers_have_names(view, put, adapters):
    digest = f"{7:064x}"
    put(1, f"a@sha256:{digest}")
    put(2, "gate/ÿ, þ:org/support")
    assert view("a@sha256").resolve(digest).version == 1
    gateway = view("gate/ÿ, þ")
    assert gateway.resolve("org/support").version == 1
    adapters.share("gate/ÿ, þ:org/support", BOB)
    assert view("bob").resolve("gate/ÿ, þ:org/support@1").version == 1


def test_a_view_takes_no_name_for_another_tenants(view, adapters):
    alice = view("alice")
    assert alice.own("support") == alice.own("alice:support") == "alice:support"
    assert view("").own("support") == "support"
    assert said(alice.own, "bob:support")
    with pytest.raises(InvalidName):
        alice.own("bob support")


def test_sharing_is_bounded_and_with_tenants():
    with pytest.raises(InvalidArgument, match="up to 256"):
        Sharing.of(False, [f"t{number}" for number in range(MAX_TENANTS + 1)])
    for name in ("", EVERYONE, "a\nb", "a" * 201):
        with pytest.raises(InvalidArgument, match="no tenant"):
            Sharing.of(False, [name])
    assert Sharing.read(Sharing.of(True, ["b", "a", "b"]).stored.encode()).words == ("*", "a", "b")
