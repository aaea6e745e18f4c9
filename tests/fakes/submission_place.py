"""A node with a submission process, as `emass up` starts it, and a receiver that keeps what it gets.

`Place` is the node's folder: configuration, keys, one account; `submission` runs the process, `swaks` a
client against it. `Receiver` undoes the dots that DATA puts in, so that what it keeps is what was meant.
"""

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import trio

from bench.peers.certificate import self_signed
from bench.peers.swaks import swaks_command
from engine.keyring import create_dkim_key, create_master_key
from engine.runtime.supervised import READY_VARIABLE
from services.submission.accounts import write_accounts
from tests.fakes.smtp_peer import ModelPeer
from tests.fakes.submission_house import PASSWORD, an_account, free_port

CONFIG = """
[node]
name = "node"
data = "data"

[limits]
spool_map = "256 MB"
disk_refuse = "32 MB"
disk_stop = "16 MB"
ballast = "1 MB"

[[engine.source]]
name = "out"
ehlo_name = "mail.shop.test"

[[keys.dkim]]
name = "shop"
file = "shop.pem"

[submission]
listen = ["127.0.0.1:{port}"]
hostname = "mail.shop.test"
tls_cert = "certificate.pem"
tls_key = "key.pem"
workers = {workers}

[[submission.domain]]
name = "shop.test"
return_path = "bounce.shop.test"
dkim = [{{ key = "shop", selector = "s1" }}]
"""


class Receiver:
    """Keeps every message: (MAIL FROM, recipient, content)."""

    def __init__(self, *extensions: str) -> None:
        self.port = 0
        self.accepted: list[tuple[str, str, bytes]] = []
        self._extensions = extensions

    async def serve(self, stream: trio.SocketStream) -> None:
        peer = ModelPeer(*self._extensions)
        with suppress(trio.BrokenResourceError):
            await stream.send_all(peer.banner())
            async for data in stream:
                answer = peer.receive(data)
                for sender, people, content in peer.accepted:
                    if "CHUNKING" not in self._extensions:
                        content = (b"\r\n" + content).replace(b"\r\n..", b"\r\n.")[2:]  # noqa: PLW2901
                    self.accepted.append((sender, people[0], content))
                peer.accepted.clear()
                await stream.send_all(answer)
                if peer.closed:
                    break
        await stream.aclose()

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listener.socket.getsockname()[1]
        task_status.started()
        await trio.serve_listeners(self.serve, [listener])


class Place:
    """A node's folder, its submission process and its engine."""

    def __init__(self, folder: Path, workers: int, more: str = "") -> None:
        self.folder = folder
        self.port = free_port()
        self.file = folder / "emass.toml"
        self.file.write_text(CONFIG.format(port=self.port, workers=workers) + more)
        (folder / "keys").mkdir(mode=0o700)
        create_master_key(folder / "keys" / "master.key")
        self.record = create_dkim_key(folder / "keys" / "shop.pem")
        self_signed("127.0.0.1").write(folder)
        write_accounts(folder / "keys" / "accounts.json", {"ann": an_account()})

    def dns(self, name: bytes, timeout: int = 5) -> bytes:
        assert name.rstrip(b".") == b"s1._domainkey.shop.test"
        return self.record.encode()

    @asynccontextmanager
    async def submission(self, *, killed: bool = False) -> AsyncIterator[trio.Process]:
        """The process, ready; ended by its lifeline, or `killed` by the test."""
        ready, told = os.pipe()
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "services.submission", "--supervised", str(self.file)],
            stdin=subprocess.PIPE,
            env={**os.environ, READY_VARIABLE: str(told)},
            pass_fds=(told,),
        )
        os.close(told)
        try:
            async with trio.lowlevel.FdStream(ready) as pipe:
                with trio.fail_after(60):
                    assert await pipe.receive_some(64) == b"ready\n"
            yield process
            assert process.stdin is not None
            await process.stdin.aclose()
            with trio.fail_after(30):
                assert await process.wait() == (-9 if killed else 0)
        finally:
            if process.returncode is None:
                process.kill()
                with trio.CancelScope(shield=True):
                    await process.wait()

    async def swaks(self, to: str, letter: bytes, *options: str) -> str:
        """Run it; what it said."""
        data = self.folder / "letter.eml"
        stuffed = (b"\r\n" + letter).replace(b"\r\n.", b"\r\n..")[2:]
        await trio.Path(data).write_bytes(stuffed + b".")  # it ends the line itself
        words = swaks_command(
            *("--server", f"127.0.0.1:{self.port}", "--tls", "--auth", "PLAIN", "--auth-user", "ann"),
            *("--auth-password", PASSWORD, "--from", "ann@shop.test", "--to", to, "--data", f"@{data}"),
            *("--no-data-fixup", *options),
        )
        done = await trio.run_process(words, capture_stdout=True, check=False)
        return done.stdout.decode(errors="replace")
