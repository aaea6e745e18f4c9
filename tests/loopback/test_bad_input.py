"""What `emass send` says to bad input: the real command, one clear line, exit code 2, nothing sent or made.

A server listens and counts who connects; the folder is compared before and after. The last test has a
template that loops for ever for one person only: that one fails to render, everybody else gets mail.
"""

import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from bench.world.process import child_environment, world_process
from engine.keyring import create_dkim_key
from tests.fakes.kill_nine import calm_world

pytestmark = pytest.mark.slow

RUN_SECONDS = 60
FILES = {
    "people.csv": "email,first_name\nann@calm.test,Ann\nbo@calm.test,Bo\n",
    "letter.html": "<p>Dear {{ first_name }}</p>\n",
    "empty.csv": "",
    "header.csv": "email,first_name\n",
    "unusable.csv": "email,first_name\nann at calm,Ann\n,Bo\n",
    "columns.csv": "name,city\nAnn,Rome\n",
    "sheet.csv": "PK\x03\x04 and so on",
    "unclosed.html": "<p>Dear</p>\n<p>{% if first_name %}</p>\n",
    "typo.html": "<p>Dear</p>\n\n<p>{{ frist_name }}</p>\n",
    "endless.html": "<p>{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}</p>\n",
    "latin.html": "<p>Gr\udcfc\udcdfe</p>\n",
    "loose.pem": "",
    "nokey.pem": "no key at all",
    "bananas.toml": '[engine.retry]\nfirst = "5 bananas"\n',
}
MISTAKES = [
    ({"csv": "none.csv"}, r"none\.csv: does not exist"),
    ({"csv": "empty.csv"}, r"empty\.csv: is empty"),
    ({"csv": "header.csv"}, r"header\.csv: holds no addresses"),
    (
        {"csv": "unusable.csv"},
        r"unusable\.csv: none of its 2 addresses can be used; line 2: address has no @",
    ),
    ({"csv": "columns.csv"}, r"columns\.csv line 1: no column of addresses"),
    ({"csv": "sheet.csv"}, r"sheet\.csv: is an Excel or OpenDocument workbook"),
    ({"csv": "."}, r"cannot be read: Is a directory"),
    ({"html": "none.html"}, r"none\.html: does not exist"),
    ({"html": "unclosed.html"}, r"unclosed\.html line 2: unexpected end of input"),
    (
        {"html": "typo.html"},
        r"typo\.html line 3: no column fills the placeholder 'frist_name' \(did you mean",
    ),
    ({"html": "endless.html"}, r"endless\.html line 1: it runs too long \(is there an endless loop\?\)"),
    ({"html": "latin.html"}, r"latin\.html line 1: is not UTF-8"),
    ({"subject": "{{ nobody }}"}, r"--subject line 1: no column fills the placeholder 'nobody'"),
    ({"dkim-key": "none.pem"}, r"none\.pem: cannot read the key: No such file or directory"),
    ({"dkim-key": "nokey.pem"}, r"nokey\.pem: not an unencrypted PEM private key"),
    ({"dkim-key": "loose.pem"}, r"loose\.pem: others may read this key \(mode 644\); chmod 600"),
    ({"config": "bananas.toml"}, r"bananas\.toml: \[engine\.retry\] first: "),
    ({"route": "nowhere.invalid:25", "resolver": "127.0.0.1:9"}, r"--route nowhere\.invalid:25: "),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8", errors="surrogateescape")
        (tmp_path / name).chmod(0o600)
    (tmp_path / "loose.pem").unlink()
    create_dkim_key(tmp_path / "loose.pem")
    (tmp_path / "loose.pem").chmod(0o644)
    return tmp_path


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


def emass_send(folder: Path, *more: str, **options: str) -> subprocess.CompletedProcess[str]:
    given = {
        "csv": "people.csv",
        "from": "Ann <ann@letters.example>",
        "subject": "For you",
        "html": "letter.html",
    }
    given |= {"unsubscribe-host": "news.letters.example", "data": "job"}
    given |= {name.replace("_", "-"): value for name, value in options.items()}
    if "dkim-key" in given:
        given["dkim-selector"] = "s1"
    arguments = [part for name, value in given.items() for part in (f"--{name}", value)]
    environment = child_environment()
    environment.pop("EMASS_CONFIG", None)
    return subprocess.run(
        [sys.executable, "-m", "control", "send", *more, *arguments],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
        check=False,
    )


@pytest.mark.parametrize(("options", "problem"), MISTAKES, ids=[problem for _, problem in MISTAKES])
def test_a_mistake_is_one_clear_line_and_nothing_is_sent_or_left_behind(
    folder: Path, listener: socket.socket, options: dict[str, str], problem: str
) -> None:
    route = "{}:{}".format(*listener.getsockname())
    before = sorted(folder.rglob("*"))
    done = emass_send(folder, **{"route": route} | options)
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("emass: ")
    assert re.search(problem, lines[0]), lines[0]
    assert done.returncode == 2
    assert done.stdout == ""
    assert sorted(folder.rglob("*")) == before
    with pytest.raises(BlockingIOError):
        listener.accept()


async def test_a_template_that_loops_for_one_person_fails_for_that_person_only(folder: Path) -> None:
    endless = "{% for a in range(9999) %}{% for b in range(9999) %}{{ a }}{% endfor %}{% endfor %}"
    (folder / "letter.html").write_text('<p>{% if first_name == "Ann" %}' + endless + "{% endif %}ok</p>")
    async with world_process(calm_world(), record=folder / "record") as world:
        (folder / "world.toml").write_text(f"[engine]\nsmtp_port = {world.smtp_port}\n")
        (folder / "keys").mkdir(mode=0o700)
        (folder / "keys/master.key").write_text("ab" * 32)
        (folder / "keys/master.key").chmod(0o600)
        resolver = "{}:{}".format(*world.resolver)
        done = await trio.to_thread.run_sync(
            lambda: emass_send(folder, "--json", config="world.toml", resolver=resolver, until="20s")
        )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["accepted"], report["delivered"], report["render_failed"]) == (2, 1, 1)
    (reason,) = report["domains"][0]["reasons"]
    assert "it runs too long" in reason["sample"]
