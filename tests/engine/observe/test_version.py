"""The release that runs."""

from importlib.metadata import version

from engine.observe.version import own_version


def test_the_version_is_the_one_that_was_installed() -> None:
    assert own_version() == version("emass")
