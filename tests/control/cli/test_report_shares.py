"""Each broadcaster's part in the report, and whether its spool counts the same."""

from rich.console import Console

from control.cli.report import STATES, CampaignReport, print_report, report_facts, state_words
from control.cli.report_shares import BroadcasterReport, shares_facts, shares_table
from engine.mta.spool.api import StateCounts

COUNTS = StateCounts(accepted=10, delivered=7, bounced=1, ambiguous=2, was_ambiguous=2)
GONE = BroadcasterReport("b[red]", 1.0, 2, COUNTS, live=False)
HERE = BroadcasterReport(
    "a", 2.0, 3, StateCounts(accepted=5, delivered=5), 12.34, own={"accepted": 5, "delivered": 5}
)


def test_facts_have_every_state() -> None:
    first, second = shares_facts((HERE, GONE), STATES)
    assert (first["broadcaster"], first["chunks"], first["accepted"], first["delivered"]) == ("a", 3, 5, 5)
    assert (first["per_second"], first["differs"], first["live"]) == (12.3, False, True)
    assert (second["ambiguous"], second["was_ambiguous"], second["own_counts"]) == (2, 2, None)
    assert sum(second[state] for state in STATES) == second["accepted"]


def test_counts_that_differ_are_seen() -> None:
    assert BroadcasterReport("a", 1.0, 1, COUNTS, own={"accepted": 10, "delivered": 8}).differs
    assert not BroadcasterReport("a", 1.0, 1, COUNTS, own={"accepted": 10}).differs
    assert not GONE.differs


def test_the_table_shows_states_that_somebody_has(capsys: object) -> None:
    console = Console(width=100, record=True, file=None, force_terminal=False)
    console.print(shares_table((HERE, GONE), STATES, state_words))
    text = console.export_text()
    assert "b[red] (not there)" in text
    assert "ambiguous" in text
    assert "expired" not in text


def test_a_report_of_many_has_them_and_one_of_one_has_not() -> None:
    alone = report_facts(CampaignReport(COUNTS, 1.0))
    assert "broadcasters" not in alone
    many = CampaignReport(
        COUNTS,
        1.0,
        broadcasters=(HERE,),
        addresses_file="job/addresses.csv",
        warnings=("the bus has forgotten",),
    )
    facts = report_facts(many)
    assert facts["addresses_file"] == "job/addresses.csv"
    assert facts["warnings"] == ["the bus has forgotten"]
    console = Console(width=100, record=True, force_terminal=False)
    print_report(many, console)
    text = console.export_text()
    assert "By broadcaster" in text
    assert "Warning: the bus has forgotten" in text
    assert "every address and its state: job/addresses.csv" in text
