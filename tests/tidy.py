"""The checker behind `test_tidy`: who may import whom, read from the syntax tree, and house rules.

The layer table of docs/ARCHITECTURE.md is `ROWS`, one row per package. A module belongs to the row
with the longest matching name; an import of ours must fall under the row's `ours`, a third-party one
under its `theirs`. Imports inside functions and under TYPE_CHECKING count like any other: a layer that
is crossed late is crossed all the same. Every rule returns findings as text; an empty list is tidy.
"""

import ast
import re
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from msgspec import Struct

PACKAGES = ("engine", "services", "control", "bench")
OURS = (*PACKAGES, "tests")
FILE_LINES_MAX = 450

LEVEL_0 = ("engine.model", "engine.config", "engine.keyring", "engine.sealing", "engine.token_ring")
SECRETS = frozenset({"engine.keyring", "engine.sealing", "engine.token_ring"})  # what knows ciphers
LEVEL_1 = ("engine.mta.compose", "engine.mta.proto", "engine.mta.policy", "engine.mta.queue")
LEVEL_2 = ("engine.runtime", "engine.observe")
LEVEL_3A = ("engine.storage",)
LEVEL_3 = ("engine.mta.spool", "engine.mta.net", "engine.bus")
UP_TO_3A = LEVEL_0 + LEVEL_1 + LEVEL_2 + LEVEL_3A
UP_TO_3 = UP_TO_3A + LEVEL_3
# One actor per file; other files of engine.actors are the actors' common words and tools.
ACTORS = frozenset(
    f"engine.actors.{name}"
    for name in (
        *("intake", "single_intake", "spooler", "scheduler", "domain", "site"),
        *("connection", "signer", "resolver", "journal", "commands", "suppressor", "sweeping"),
        *("tls_keeping", "metering"),
    )
)
# Who starts whom: a parent names the function for life of its dynamic child, so it may import that file.
STARTS = {
    ("engine.actors.scheduler", "engine.actors.domain"),
    ("engine.actors.scheduler", "engine.actors.site"),
    ("engine.actors.site", "engine.actors.connection"),
}
SERVICES = ("services.bounce", "services.dns", "services.landing", "services.submission")

NOUNS = ("msgspec", "idna")
RUNTIME = (*NOUNS, "trio", "structlog")
SHELLS = (*RUNTIME, "dns", "cryptography", "h11")
ANYTHING = ("*",)

# Entry points see every package's configuration and the trees that they start.
ENTRY = (
    *("engine.app", "services.tree", "services.config", "control.config", "engine.config"),
    *("services.submission.config", "services.submission.accounts"),
)


class Row(Struct, frozen=True):
    """What one package may import, besides its own files and the standard library."""

    package: str
    ours: tuple[str, ...]
    theirs: tuple[str, ...] = ()


ROWS = (
    # Packages that only hold packages: their __init__ says what is inside and imports nothing.
    Row("engine", ()),
    Row("engine.mta", ()),
    Row("services", LEVEL_0),
    *(Row(name, LEVEL_0, (*NOUNS, "cryptography") if name in SECRETS else NOUNS) for name in LEVEL_0),
    *(
        Row(name, LEVEL_0, (*NOUNS, "minijinja", "markupsafe") if name == "engine.mta.compose" else NOUNS)
        for name in LEVEL_1
    ),
    Row("engine.runtime", LEVEL_0, RUNTIME),
    Row("engine.observe", LEVEL_0, (*RUNTIME, "h11", "prometheus_client")),
    Row("engine.storage", LEVEL_0 + LEVEL_2, (*RUNTIME, "lmdb")),
    *(Row(name, UP_TO_3A, SHELLS) for name in ("engine.mta.spool", "engine.mta.net")),
    Row("engine.bus", UP_TO_3A, (*SHELLS, "trio_asyncio", "nats")),
    Row("engine.actors", UP_TO_3, SHELLS),
    *(Row(name, ("engine",), SHELLS) for name in ("engine.tree", "engine.app", "engine.__main__")),
    *(Row(name, UP_TO_3, ANYTHING) for name in SERVICES),
    *(Row(name, (*UP_TO_3, "services"), ANYTHING) for name in ("services.tree", "services.config")),
    Row("services.__main__", (*UP_TO_3, *ENTRY, "services"), ANYTHING),
    Row("control", UP_TO_3, ANYTHING),
    Row("control.__main__", (*UP_TO_3, *ENTRY, "control"), ANYTHING),
    # The demo's receivers are the one part of bench that ships inside a command.
    Row("control.cli", (*UP_TO_3, *ENTRY, "control", "bench.world"), ANYTHING),
    Row("bench", OURS, ANYTHING),
)

# Level 1 is pure: what happens depends on arguments alone, or tests would need the world.
IMPURE_MODULES = {
    *("asyncio", "concurrent", "multiprocessing", "subprocess", "threading", "trio"),
    *("http", "select", "selectors", "socket", "socketserver", "ssl", "urllib.request"),
    *("os", "pathlib", "shutil", "signal", "tempfile", "time"),
}
TELLING = (ast.Import, ast.ImportFrom, ast.Call, ast.FunctionDef, ast.AsyncFunctionDef, ast.Await)
CLOCK_CALLS = frozenset({"now", "utcnow", "today"})


class Import(Struct, frozen=True):
    """One imported name and where it stands."""

    module: str
    name: str
    line: int

    @property
    def full(self) -> str:
        """The dotted name that layer rules look at."""
        return f"{self.module}.{self.name}" if self.name else self.module


def module_name(path: Path, root: Path) -> str:
    """The dotted name of a file; a package's `__init__` has the package's name."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(source: str, module: str, *, is_package: bool) -> Iterator[Import]:
    """Every import of a module, wherever it stands; relative ones are made absolute."""
    for node in _telling(source):
        match node:
            case ast.Import():
                for alias in node.names:
                    yield Import(alias.name, "", node.lineno)
            case ast.ImportFrom():
                base = node.module or ""
                if node.level:
                    parts = module.split(".")
                    kept = parts[: len(parts) - node.level + is_package]
                    base = ".".join([*kept, base] if base else kept)
                for alias in node.names:
                    yield Import(base, alias.name, node.lineno)
            case ast.Call(func=ast.Attribute(attr="import_module"), args=[ast.Constant(value=str(name)), *_]):
                yield Import(name, "", node.lineno)
            case _:
                pass


def layer_findings(source: str, module: str, *, is_package: bool = False) -> list[str]:
    """What is wrong with the imports and calls of one module, given as source text."""
    row = _row(module)
    if row is None:
        return [f"{module}: no row of the layer table (tests/tidy.py) covers it"]
    found = []
    for one in imports(source, module, is_package=is_package):
        wrong = _import_finding(one, module, row)
        if wrong:
            found.append(f"{module}:{one.line}: {wrong}")
    if row.package in LEVEL_1:
        found += [f"{module}:{line}: {wrong}" for line, wrong in _impurities(source)]
    return found


@lru_cache(maxsize=1_024)
def _tree(source: str) -> ast.Module:
    return ast.parse(source)  # several rules look at each file


@lru_cache(maxsize=1_024)
def _telling(source: str) -> tuple[ast.AST, ...]:
    """The nodes that any rule looks at, wherever they stand."""
    return tuple(node for node in ast.walk(_tree(source)) if isinstance(node, TELLING))


def _row(module: str) -> Row | None:
    covering = [row for row in ROWS if _under(module, row.package)]
    row = max(covering, key=lambda row: len(row.package), default=None)
    # The rows of `engine`, `engine.mta` and `services` speak of their __init__ alone.
    if row is not None and row.package in {"engine", "engine.mta", "services"} and module != row.package:
        return None
    return row


def _under(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def _import_finding(one: Import, module: str, row: Row) -> str | None:
    top = one.module.partition(".")[0]
    if top not in OURS:
        if top == "lmdb" and row.package != "engine.storage":
            return "only engine.storage opens LMDB"
        if top in sys.stdlib_module_names or row.theirs == ANYTHING or top in row.theirs:
            return None
        return f"{row.package} may not import the library {top}"
    if _under(one.module, row.package) or _under(one.full, row.package):
        return _sibling_actor_finding(one, module) if row.package == "engine.actors" else None
    if any(_under(one.module, allowed) or _under(one.full, allowed) for allowed in row.ours):
        return None
    return f"{row.package} may not import {one.full}"


def _sibling_actor_finding(one: Import, module: str) -> str | None:
    """A sibling actor is known by its Ref, or started; the common tools know no actor but by Ref."""
    mine = ".".join(module.split(".")[:3])
    for named in (one.module, one.full):
        sibling = ".".join(named.split(".")[:3])
        if (
            sibling in ACTORS
            and sibling != mine
            and (mine, sibling) not in STARTS
            and not one.name.endswith("Ref")
        ):
            return f"a sibling actor is known by its Ref only, not by {one.full}"
    return None


def _impurities(source: str) -> Iterator[tuple[int, str]]:
    for node in _telling(source):
        match node:
            case ast.Import():
                for alias in node.names:
                    if alias.name in IMPURE_MODULES or alias.name.partition(".")[0] in IMPURE_MODULES:
                        yield node.lineno, f"level 1 is pure and imports {alias.name}"
            case ast.ImportFrom(module=str(name), level=0):
                if name in IMPURE_MODULES or name.partition(".")[0] in IMPURE_MODULES:
                    yield node.lineno, f"level 1 is pure and imports {name}"
            case ast.Call(func=ast.Attribute(attr=attribute)) if attribute in CLOCK_CALLS:
                yield node.lineno, f"level 1 has no clock and calls {attribute}()"
            case ast.Call(func=ast.Name(id="open")):
                yield node.lineno, "level 1 touches no file and calls open()"
            case ast.AsyncFunctionDef() | ast.Await():
                yield node.lineno, "level 1 is synchronous"
            case _:
                pass


def text_findings(path: Path, root: Path) -> list[str]:
    """Length, story and unfinished business of one file of ours."""
    text = path.read_text()
    where = path.relative_to(root)
    found = []
    lines = text.count("\n")
    if lines > FILE_LINES_MAX:
        found.append(f"{where}: {lines} lines, more than {FILE_LINES_MAX}: did two ideas move in together?")
    if text.strip() and not ast.get_docstring(_tree(text)):
        found.append(f"{where}: opens without its story")
    # Written apart so that this file is clean itself.
    unfinished = re.search(r"\b(TO" + r"DO|FIX" + r"ME)\b", text)
    if unfinished:
        found.append(f"{where}: unfinished business ({unfinished[0]})")
    return found


def has_code(path: Path) -> bool:
    """Whether a module decides anything; plain nouns (Structs, enums, constants) need no test."""
    functions = ast.FunctionDef | ast.AsyncFunctionDef
    return any(isinstance(node, functions) for node in _telling(path.read_text()))


def sources(root: Path, *packages: str) -> list[Path]:
    """Every Python file of some packages, in order."""
    return [path for package in packages for path in sorted((root / package).rglob("*.py"))]


def tests_of(module: Path, root: Path) -> list[Path]:
    """The test files that mirror `module`: test_NAME.py, or several test_NAME_ASPECT.py of one name."""
    folder = root / "tests" / module.relative_to(root).parent
    stem = module.parent.name if module.stem == "__init__" else module.stem.strip("_")
    folder = folder.parent if module.stem == "__init__" else folder
    return sorted({*folder.glob(f"test_{stem}.py"), *folder.glob(f"test_{stem}_*.py")})


def module_of(test: Path, root: Path) -> Path | None:
    """The module or package that a mirrored test file is about, None when there is none."""
    folder = root / test.relative_to(root / "tests").parent
    words = test.stem.removeprefix("test_").split("_")
    for length in range(len(words), 0, -1):
        name = "_".join(words[:length])
        for candidate in (folder / f"{name}.py", folder / f"__{name}__.py", folder / name / "__init__.py"):
            if candidate.is_file():
                return candidate
    return None
