"""The register's file: private, whole after every change, and changed by one at a time."""

import threading

import pytest

from control.cluster.registry import NodeRole, RegistryError, new_registry, with_code
from control.cluster.registry_file import changing, is_hub, load_registry, save_registry
from tests.control.cluster.test_registry import NOW, applicant, key


@pytest.fixture
def data(tmp_path):
    save_registry(tmp_path, new_registry(applicant("hub", NodeRole.HUB), NOW))
    return tmp_path


def test_it_comes_back_as_it_was_written(data):
    registry = load_registry(data)
    save_registry(data, registry)
    assert load_registry(data) == registry
    assert is_hub(data)
    assert (data / "cluster" / "registry.json").stat().st_mode & 0o777 == 0o600
    assert (data / "cluster").stat().st_mode & 0o777 == 0o700


def test_a_folder_that_is_no_hubs_is_named(tmp_path):
    assert not is_hub(tmp_path)
    with pytest.raises(RegistryError, match="this is no hub"):
        load_registry(tmp_path)
    with pytest.raises(RegistryError, match="this is no hub"):
        changing(tmp_path, lambda registry: registry)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["", "{", '{"cluster": 1}'])
def test_a_damaged_one_is_refused_and_kept(data, text):
    path = data / "cluster" / "registry.json"
    path.write_text(text)
    with pytest.raises(RegistryError, match="damaged"):
        load_registry(data)
    assert path.read_text() == text


def test_one_of_a_later_version_is_refused(data):
    path = data / "cluster" / "registry.json"
    path.write_text(path.read_text().replace('"version": 1', '"version": 2'))
    with pytest.raises(RegistryError, match="version 2"):
        load_registry(data)


def test_a_refused_change_changes_nothing(data):
    before = load_registry(data)

    def refuse(registry):
        raise RegistryError("no")

    with pytest.raises(RegistryError):
        changing(data, refuse)
    assert load_registry(data) == before


def test_changes_at_the_same_time_are_all_kept(data):
    def add(number):
        changing(data, lambda before: with_code(before, f"n{number}", NodeRole.BROADCASTER, key(), NOW, 60))

    threads = [threading.Thread(target=add, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {code.node for code in load_registry(data).codes.values()} == {f"n{number}" for number in range(8)}


def test_what_is_written_from_it_is_written_under_the_lock_and_so_never_older_than_it(data):
    """One change is held up just behind its own; the other one must not overtake it."""
    written, held = [], threading.Event()

    def slowly(registry):
        held.set()
        other.join(0.2)
        written.append(set(registry.codes))

    def change(then):
        public = key()
        changing(data, lambda before: with_code(before, f"n{public[:8]}", *rest(public)), then=then)

    def rest(public):
        return NodeRole.BROADCASTER, public, NOW, 60

    def later():
        held.wait()
        change(lambda registry: written.append(set(registry.codes)))

    other = threading.Thread(target=later)
    other.start()
    change(slowly)
    other.join()
    assert [len(codes) for codes in written] == [1, 2]


def test_then_hears_of_what_was_there_already_and_its_failure_takes_nothing_back(data):
    heard = []
    before = changing(data, lambda registry: registry, then=heard.append)
    assert heard == [before]

    def fail(_):
        raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        changing(data, lambda now: with_code(now, "b", NodeRole.BROADCASTER, key(), NOW, 60), then=fail)
    assert [code.node for code in load_registry(data).codes.values()] == ["b"]


def test_a_file_of_strange_octets_is_a_damaged_one(data):
    for octets in (b"[" * 100_000, b'{"cluster": "\xff"}'):
        (data / "cluster" / "registry.json").write_bytes(octets)
        with pytest.raises(RegistryError, match="damaged"):
            load_registry(data)
