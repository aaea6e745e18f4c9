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
