"""The documents tell the truth about names: files, functions, folders and links that they mention exist."""

import re
from pathlib import Path

import pytest

from control.cli.__main__ import COMMANDS
from engine.tree import engine_tree
from tests.tidy import ROWS

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NAMED = re.compile(r"`((?:engine|control|bench|tests|docs)/[\w./]*)(?::(\w+))?`")
LINK = re.compile(r"\]\(([^)#]+)(?:#[\w-]+)?\)")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_file_and_name_that_is_mentioned_exists(document: Path) -> None:
    missing = []
    for path, name in NAMED.findall(document.read_text()):
        place = ROOT / path
        if not place.exists():
            missing.append(path)
        elif name and not re.search(rf"^ *(async )?(def|class) {name}\b", place.read_text(), re.MULTILINE):
            missing.append(f"{path}:{name}")
    assert missing == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_inside_the_project_leads_somewhere(document: Path) -> None:
    inside = [link for link in LINK.findall(document.read_text()) if "://" not in link]
    assert [link for link in inside if not (document.parent / link).exists()] == []


def test_the_tree_is_drawn_as_it_is_built() -> None:
    drawn = re.search(r"committing(?:\s+-> \w+| ->\s+\w+)+", (ROOT / "docs" / "ARCHITECTURE.md").read_text())
    assert drawn is not None
    source = Path(engine_tree.__code__.co_filename).read_text()
    built = re.findall(r'ChildSpec\(\s*"(\w+)"|parts\.(\w+)\.spec\(\)', source)
    assert re.split(r"\s+->\s+", drawn[0]) == [first or second for first, second in built]


def test_the_layer_table_names_every_package_of_the_engine() -> None:
    text = (ROOT / "docs" / "ARCHITECTURE.md").read_text()
    packages = [row.package for row in ROWS if row.package.startswith("engine.")]
    for package in packages:
        assert package in text or f"`.{package.rpartition('.')[2]}`" in text or package == "engine.mta", (
            package
        )


def test_the_readme_uses_only_commands_and_options_that_exist() -> None:
    text = (ROOT / "README.md").read_text()
    used = set(re.findall(r"(?:^ +|`)emass ([a-z]+)", text, re.MULTILINE))
    assert used <= set(COMMANDS)
    sources = "\n".join(path.read_text() for path in (ROOT / "control" / "cli").glob("*.py"))
    sources += "\n".join(path.read_text() for path in (ROOT / "bench").glob("*.py"))
    options = set(re.findall(r"--[a-z][a-z-]+", text))
    assert sorted(option for option in options if f'"{option}"' not in sources) == []


def test_the_readme_uses_only_make_targets_that_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))
    used = set(re.findall(r"make ([a-z-]+)", (ROOT / "README.md").read_text()))
    assert used <= targets
