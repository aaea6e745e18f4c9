"""What is written down is read back by Prometheus' own parsers, whatever strangers named their hosts."""

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_open_metrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from engine.observe.exposition import Exposition
from engine.observe.metrics import Buckets, Family, counter, gauge, histogram

FAMILIES = [
    gauge("emass_paths", "Paths\nand more.", {("a", "b"): 2.0}, "path", "state"),
    counter("emass_commits_total", "Commits.", 3),
    counter("emass_busy_seconds_total", "Time.", 0.25),
    histogram("emass_wait_seconds", "Waits.", {("dns",): Buckets((0.1, 1.0), (1, 2, 3), 9.5)}, "stage"),
]
PAGE = Exposition()


def written(families: list[Family], accept: str = "") -> tuple[str, str]:
    content_type, body = PAGE.write(families, accept)
    return content_type, body.decode()


def samples(page: str, reader: object = read_text) -> dict[tuple[str, tuple[str, ...]], float]:
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in reader(page)  # type: ignore[operator]
        for sample in family.samples
    }


def test_the_text_format_is_the_default() -> None:
    content_type, page = written(FAMILIES)
    assert content_type.startswith("text/plain; version=0.0.4")
    found = samples(page)
    assert found["emass_paths", ("a", "b")] == 2.0
    assert found["emass_commits_total", ()] == 3.0
    assert found["emass_busy_seconds_total", ()] == 0.25


def test_open_metrics_is_for_who_asks_for_it() -> None:
    content_type, page = written(FAMILIES, "application/openmetrics-text;version=1.0.0,text/plain;q=0.5")
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    assert page.endswith("# EOF\n")
    assert "# UNIT emass_wait_seconds seconds" in page
    assert samples(page, read_open_metrics)["emass_commits_total", ()] == 3.0


def test_a_histogram_is_told_in_rising_sums() -> None:
    found = samples(written(FAMILIES)[1])
    assert found["emass_wait_seconds_bucket", ("0.1", "dns")] == 1.0
    assert found["emass_wait_seconds_bucket", ("1.0", "dns")] == 3.0
    assert found["emass_wait_seconds_bucket", ("+Inf", "dns")] == 6.0
    assert found["emass_wait_seconds_count", ("dns",)] == 6.0
    assert found["emass_wait_seconds_sum", ("dns",)] == 9.5


def test_the_process_is_told_of_too() -> None:
    found = samples(written([])[1])
    assert found["process_resident_memory_bytes", ()] > 1_000_000


def test_long_values_are_cut_and_stay_apart() -> None:
    site = "mx.example+" * 100
    family = gauge("emass_paths", "", {(f"{site}{end}",): 1.0 for end in "ab"}, "path")
    values = {labels for name, labels in samples(written([family])[1]) if name == "emass_paths"}
    assert len(values) == 2
    assert all(len(value) == 200 for (value,) in values)


@given(st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=50))
def test_any_label_value_comes_back(value: str) -> None:
    family = gauge("emass_paths", "", {(value,): 1.0}, "path")
    for accept, reader in (("", read_text), ("application/openmetrics-text", read_open_metrics)):
        assert ("emass_paths", (value,)) in samples(written([family], accept)[1], reader)


@given(st.text())
def test_any_accept_header_gets_a_page(accept: str) -> None:
    assert "emass_commits_total 3.0" in written(FAMILIES, accept)[1]
