"""`emass demo`: a real signed campaign on this machine alone, no privileged port, nothing to set up.

A world of invented providers (`bench.world`) listens on loopback addresses and answers DNS questions of
its own: some defer, bounce, greylist, hang up, speak TLS or BDAT. The list and the letter are made up;
everything else is what `emass send` does, with the retry clock compressed to seconds.
"""

import shutil
import tempfile
import time
from pathlib import Path

import click
from msgspec.structs import replace

from bench.world.demo import demo_world
from bench.world.process import WorldError, WorldProcess, world_process
from control.cli.csv_source import inspect_csv
from control.cli.errors import CliError
from control.cli.job import SendOptions, create_job, start_job
from control.cli.letter import check_content
from control.cli.people import People
from control.cli.report import CampaignReport
from control.cli.run import Run, conclude
from control.cli.until import Until
from engine.config import Config, Duration, HostPort, RetryTable
from engine.config.tables import DkimKeyFile, EngineTable, KeysTable, NodeTable, ResolverTable
from engine.keyring import create_dkim_key, create_master_key
from engine.model.content import Content, DkimIdentity
from engine.runtime.crash import leaf_of

MESSAGES_DEFAULT = 10_000
MESSAGES_MAX = 1_000_000
DOMAIN = "garden-letter.example"
SELECTOR = "demo"
RETRY = RetryTable(
    first=Duration(2.0), factor=1.6, max=Duration(15.0), jitter=0.2, expire_after=Duration(600.0)
)
LETTER = """<!doctype html>
<html><body style="font-family: sans-serif">
<h1>What the garden wants in {{ month }}</h1>
<p>Dear {{ first_name }},</p>
<p>the first frosts are behind us. Sow peas and broad beans now, prune the roses{% if city %}, and in
{{ city }} do watch the late nights{% endif %}.</p>
<ul><li><a href="https://garden-letter.example/peas">How to sow peas</a></li>
<li><a href="https://garden-letter.example/roses">Roses, cut by cut</a></li></ul>
<p>Warm wishes from the garden,<br>Edith &amp; Tomás</p>
<p><small>You get this letter because you asked for it.
<a href="{{ unsubscribe_url }}">Unsubscribe</a></small></p>
</body></html>
"""


@click.command()
@click.option(
    "--messages",
    metavar="N",
    type=click.IntRange(1, MESSAGES_MAX),
    default=MESSAGES_DEFAULT,
    show_default=True,
    help="How many people are on the list.",
)
@click.option("--once", is_flag=True, help="One campaign, then end. (So it is without a control panel, too.)")
@click.option("--seed", metavar="N", type=int, default=1, show_default=True, help="Another world and list.")
@click.option("--json", "as_json", is_flag=True, help="Print the final report as one JSON object.")
def command(messages: int, once: bool, seed: int, as_json: bool) -> int:
    """Send a real signed campaign to a world of receivers on this machine.

    \b
    Example:
      emass demo --messages 2000
    """
    folder = Path(tempfile.mkdtemp(prefix="emass-demo-"))
    try:
        return conclude(_Demo(folder, messages, seed, as_json).live, as_json=as_json)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class _Demo:
    def __init__(self, folder: Path, messages: int, seed: int, as_json: bool) -> None:
        self._folder = folder
        self._messages = messages
        self._seed = seed
        self._quiet = as_json

    async def live(self) -> tuple[Run, CampaignReport]:
        """One campaign; returns the run and its report."""
        keys = self._folder / "keys"
        keys.mkdir(mode=0o700)
        create_master_key(keys / "master.key")
        record = create_dkim_key(keys / "demo.pem")
        spec = demo_world(self._seed)
        spec = replace(spec, extra_records={f"{SELECTOR}._domainkey.{DOMAIN}": {"TXT": [record]}})
        try:
            async with world_process(spec) as world:
                if not self._quiet:
                    host, port = world.resolver
                    domains = len(world.domains)
                    click.echo(
                        f"A world of {domains} domains listens on loopback port {world.smtp_port}, "
                        f"its DNS on {host}:{port}. {self._messages:,} people get a letter."
                    )
                run = self._prepare(world)
                return run, await run.live()
        except* WorldError as group:
            raise CliError(str(leaf_of(group))) from None

    def _prepare(self, world: WorldProcess) -> Run:
        people_csv = self._folder / "people.csv"
        with people_csv.open("w", encoding="utf-8") as file:
            file.write("email,first_name,city,month\n")
            for person in world.addresses(self._messages, self._seed):
                file.write(f"{person.email},{person.first_name},{person.city},March\n")
        source = inspect_csv(people_csv)
        job = create_job(
            SendOptions(csv=str(people_csv)), source, now=time.time(), expire_after=RETRY.expire_after
        )
        content = check_content(self._content(job.campaign), source, {})
        start_job(self._folder, job, content)
        return Run(self._folder, job, content, People(source, content.fields), self._config(world), Until())

    def _content(self, campaign: int) -> Content:
        return Content(
            campaign=campaign,
            name="garden-letter",
            from_address=f"edith@{DOMAIN}",
            from_name="Edith & Tomás",
            subject="{{ first_name }}, your garden in {{ month }}",
            html=LETTER,
            return_path_domain=f"bounce.{DOMAIN}",
            sending_domain=DOMAIN,
            list_id=f"letter.{DOMAIN}",
            list_name="The Garden Letter",
            list_help=f"https://{DOMAIN}/help",
            unsubscribe_host=f"news.{DOMAIN}",
            dkim=(DkimIdentity(DOMAIN, SELECTOR, "demo"),),
        )

    def _config(self, world: WorldProcess) -> Config:
        host, port = world.resolver
        return Config(
            node=NodeTable(name="demo", data=str(self._folder)),
            engine=EngineTable(smtp_port=world.smtp_port, retry=RETRY),
            resolver=ResolverTable(servers=(HostPort.parse(f"{host}:{port}"),), allow_private=True),
            keys=KeysTable(
                folder=str(self._folder / "keys"), dkim=(DkimKeyFile(name="demo", file="demo.pem"),)
            ),
        )
