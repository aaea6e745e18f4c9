"""The table of TLS: what is on by default, and what is refused."""

from pathlib import Path

import pytest

from engine.config import Config, TlsTable, TrustAd, load_config


def test_both_policies_are_looked_for_by_default() -> None:
    table = Config().tls
    assert (table.mta_sts, table.dane, table.ca_file) == (True, True, "")
    assert Config().resolver.trust_ad is TrustAd.LOOPBACK


def test_the_authorities_are_found_beside_the_file(tmp_path: Path) -> None:
    path = tmp_path / "emass.toml"
    path.write_text('[tls]\nca_file = "own.pem"\ndane = false\n[resolver]\ntrust_ad = "never"\n')
    config = load_config(path, {})
    assert config.tls == TlsTable(ca_file=str(tmp_path / "own.pem"), dane=False)
    assert config.resolver.trust_ad is TrustAd.NEVER


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("ca_file", "-----BEGIN CERTIFICATE-----"),
        ("contact", "postmaster"),
        ("contact", "@example.org"),
        ("contact", "a b@example.org"),
        ("contact", "a@example.org\nBcc: all"),
        ("organization", "two\nlines"),
    ],
)
def test_an_impossible_value_names_its_key(key: str, value: str) -> None:
    with pytest.raises(ValueError, match=rf"^{key}: "):
        TlsTable(**{key: value})
