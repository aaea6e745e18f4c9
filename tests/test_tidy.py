"""The house stays tidy: layers, purity, file size, stories, mirrored tests. See `tests/tidy.py`.

A failing test here names file, line and rule. The cure is almost never to widen the table: if an
import looks too high, the code lives elsewhere.
"""

from pathlib import Path

import pytest

from tests import tidy

ROOT = Path(__file__).parents[1]

# Modules of engine/ with functions and yet no mirrored test, each with its reason.
WITHOUT_MIRROR: dict[str, str] = {}

# Test files under tests/engine that mirror no module, each with its reason.
WITHOUT_MODULE: dict[str, str] = {
    "tests/engine/storage/test_disk_order.py": "proves storage and spool together, on the recorded disk",
}


def test_every_import_stays_within_its_layer() -> None:
    found = [
        finding
        for path in tidy.sources(ROOT, *tidy.PACKAGES)
        for finding in tidy.layer_findings(
            path.read_text(), tidy.module_name(path, ROOT), is_package=path.name == "__init__.py"
        )
    ]
    assert not found, "\n".join(found)


def test_every_file_is_short_tells_its_story_and_is_finished() -> None:
    found = [
        finding for path in tidy.sources(ROOT, *tidy.PACKAGES) for finding in tidy.text_findings(path, ROOT)
    ]
    assert not found, "\n".join(found)


def test_every_engine_module_has_its_mirrored_test() -> None:
    bare = [
        str(path.relative_to(ROOT))
        for path in tidy.sources(ROOT, "engine")
        if tidy.has_code(path) and not tidy.tests_of(path, ROOT)
    ]
    assert sorted(set(bare) - set(WITHOUT_MIRROR)) == []


def test_every_engine_test_mirrors_a_module() -> None:
    tests = [path for path in tidy.sources(ROOT, "tests/engine") if path.name.startswith("test_")]
    orphans = [str(path.relative_to(ROOT)) for path in tests if tidy.module_of(path, ROOT) is None]
    assert sorted(set(orphans) - set(WITHOUT_MODULE)) == []


def test_every_exception_is_still_needed() -> None:
    assert [path for path in (*WITHOUT_MIRROR, *WITHOUT_MODULE) if not (ROOT / path).exists()] == []


WRONG = [
    ("engine.model.address", "import trio", "may not import the library trio"),
    ("engine.model.address", "import cryptography", "may not import the library cryptography"),
    ("engine.model.address", "from engine.runtime import clock", "may not import engine.runtime.clock"),
    ("engine.config.load", "from engine.mta.policy import site", "may not import engine.mta.policy.site"),
    ("engine.mta.compose.mime", "from engine.mta.queue import due", "may not import engine.mta.queue.due"),
    ("engine.mta.compose.mime", "from engine.mta import queue", "may not import engine.mta.queue"),
    ("engine.mta.compose.mime", "from ..queue import due", "may not import engine.mta.queue.due"),
    ("engine.mta.proto.dsn", "def f():\n    import minijinja", "may not import the library minijinja"),
    ("engine.mta.proto.dsn", "import time", "pure and imports time"),
    ("engine.mta.proto.dsn", "from urllib.request import urlopen", "pure and imports urllib.request"),
    ("engine.mta.policy.retry", "import datetime\nx = datetime.datetime.now()", "has no clock"),
    ("engine.mta.policy.retry", "x = open('f')", "touches no file"),
    ("engine.mta.policy.retry", "async def f():\n    pass", "is synchronous"),
    (
        "engine.runtime.supervisor",
        "from engine.mta.policy import site",
        "may not import engine.mta.policy.site",
    ),
    ("engine.mta.spool.store", "import lmdb", "only engine.storage opens LMDB"),
    ("control.lists.store", "import lmdb", "only engine.storage opens LMDB"),
    ("engine.mta.spool.store", "from engine.bus import api", "may not import engine.bus.api"),
    ("engine.mta.net.dial", "import nats", "may not import the library nats"),
    ("engine.storage.committer", "from engine.mta.spool import api", "may not import engine.mta.spool.api"),
    ("engine.actors.site", "from engine.actors.domain import DomainState", "known by its Ref only"),
    ("engine.actors.site", "import engine.actors.domain", "known by its Ref only"),
    ("engine.actors.domain", "from engine.actors import spooler", "known by its Ref only"),
    ("engine.actors.parts", "from engine.actors.journal import publish", "known by its Ref only"),
    ("engine.actors.site", "from engine import tree", "may not import engine.tree"),
    ("engine.actors.site", "import control.app", "may not import control.app"),
    ("services.bounce.actor", "from engine.actors import site", "may not import engine.actors.site"),
    ("services.bounce.actor", "from services.dns import zone", "may not import services.dns.zone"),
    ("control.lists.rules", "from engine.app import run", "may not import engine.app.run"),
    ("control.lists.rules", "from bench.world import World", "may not import bench.world.World"),
    ("control.cli.demo", "from bench.peers import postfix", "may not import bench.peers.postfix"),
    (
        "control.cli.demo",
        "import importlib\nimportlib.import_module('tests.fakes')",
        "may not import tests.fakes",
    ),
    ("engine.extra.thing", "x = 1", "no row of the layer table"),
]

RIGHT = [
    ("engine.keyring", "from cryptography import x509"),
    ("engine.mta.compose.template", "import minijinja\nfrom markupsafe import Markup\nimport html.parser"),
    ("engine.mta.compose.template", "from .mime import x\nfrom engine.model.content import Content"),
    ("engine.mta.policy.retry", "import datetime\nx = datetime.timedelta(seconds=1)"),
    ("engine.runtime.clock", "import time\nimport trio\nx = time.monotonic()"),
    ("engine.storage.environment", "import lmdb\nfrom engine.runtime.clock import Clock"),
    ("engine.bus.nats", "import nats, trio_asyncio"),
    (
        "engine.actors.site",
        "from engine.actors.domain import DomainRef\nfrom engine.mta.spool.api import Spool",
    ),
    ("engine.actors.site", "from engine.actors import messages\nfrom engine.actors.messages import Offer"),
    ("engine.actors.site", "from engine.actors import connection"),
    ("engine.tree", "from engine.actors.site import Site"),
    ("services.bounce.actor", "from engine.bus.api import Bus\nfrom services.bounce import verp"),
    ("control.cli.demo", "from bench.world import World\nfrom engine.app import run\nimport services.tree"),
    ("bench.engine", "from tests.fakes import x\nimport engine.actors.site"),
]


@pytest.mark.parametrize(("module", "source", "finding"), WRONG)
def test_the_checker_finds_a_wrong_import(module: str, source: str, finding: str) -> None:
    found = tidy.layer_findings(source, module)
    assert len(found) == 1
    assert finding in found[0]


@pytest.mark.parametrize(("module", "source"), RIGHT)
def test_the_checker_passes_what_the_table_allows(module: str, source: str) -> None:
    assert tidy.layer_findings(source, module) == []


def test_the_checker_finds_long_silent_and_unfinished_files(tmp_path: Path) -> None:
    untidy = tmp_path / "untidy.py"
    untidy.write_text("x = 1  # TO" + "DO: more\n" + "\n" * tidy.FILE_LINES_MAX)
    found = "\n".join(tidy.text_findings(untidy, tmp_path))
    assert "451 lines" in found
    assert "without its story" in found
    assert "unfinished business" in found


def test_a_test_mirrors_a_module_or_one_aspect_of_it(tmp_path: Path) -> None:
    module = tmp_path / "engine" / "mta" / "smtp_client.py"
    module.parent.mkdir(parents=True)
    module.write_text("def f(): ...\n")
    folder = tmp_path / "tests" / "engine" / "mta"
    folder.mkdir(parents=True)
    for name in ("test_smtp_client.py", "test_smtp_client_windows.py", "test_smtp.py"):
        (folder / name).touch()
    assert [path.name for path in tidy.tests_of(module, tmp_path)] == [
        "test_smtp_client.py",
        "test_smtp_client_windows.py",
    ]
    assert tidy.module_of(folder / "test_smtp_client_windows.py", tmp_path) == module
    assert tidy.module_of(folder / "test_smtp.py", tmp_path) is None
