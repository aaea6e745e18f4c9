"""Finding the first rule that fits: phrases, conditions, order, lists, providers."""

import pytest

from engine.config.replies import ReplyRules, parse_reply_rules
from engine.model.category import Key
from engine.model.reply import Verb
from engine.mta.policy.reply_matcher import PHRASES_TRIED_MAX, Facts, Match, Matcher, list_key

HEAD = 'version = "1"\n[[provider]]\nname = "acme"\nmarks = ["acmemark"]\n'


def rules(*bodies: str) -> ReplyRules:
    tables = "".join(f'[[rule]]\nid = "r{n}"\ncategory = "policy"\n{body}\n' for n, body in enumerate(bodies))
    return parse_reply_rules(HEAD + tables)


def match(loaded: ReplyRules, text: str, facts: Facts = Facts()) -> Match:  # noqa: B008
    matcher = Matcher(loaded)
    words = matcher.read(text)
    return matcher.match(words.text, matcher.look(words.text), facts)


@pytest.mark.parametrize(
    ("phrase", "text", "span"),
    [
        ("is full", "The box is full.", "is full"),
        ("is full", "The box is fuller", None),
        ("full*", "The box is fuller", "fuller"),
        ("box|inbox is", "the inbox is", "inbox is"),
        ("user ... unknown", "user of this place unknown", "user of this place unknown"),
        ("user ... unknown", "user a b c d e unknown", None),
        ("user ... unknown", "user here. Host unknown", None),
        (
            "存在しません",
            "ユーザは存在しません。",
            "存在しません",
        ),
        ("\u00fcbervoll", "postfach \u00dcBERVOLL", "ubervoll"),
        ("list.test", "see http://zen.list.test/x", "list.test"),
    ],
)
def test_what_a_phrase_matches(phrase: str, text: str, span: str | None) -> None:
    found = match(rules(f'any = ["{phrase}"]'), text)
    assert (found.span if found.rule else None) == span


@pytest.mark.parametrize(
    ("body", "facts", "fits"),
    [
        ('codes = ["550"]', Facts(code=550), True),
        ('codes = ["5xx"]', Facts(code=550), True),
        ('codes = ["4xx"]', Facts(code=550), False),
        ('codes = ["4xx"]', Facts(), False),
        ('enhanced = ["x.7.x"]', Facts(enhanced=(4, 7, 1)), True),
        ('enhanced = ["5.7.600-649"]', Facts(enhanced=(5, 7, 606)), True),
        ('enhanced = ["5.7.600-649"]', Facts(enhanced=(5, 7, 650)), False),
        ('enhanced = ["5.7.1"]', Facts(), False),
        ('verbs = ["rcpt"]', Facts(verb=Verb.RCPT), True),
        ('verbs = ["rcpt"]', Facts(verb=Verb.DATA), False),
        ('any = ["no"]\nprovider = "acme"', Facts(provider="acme"), True),
        ('any = ["no"]\nprovider = "acme"', Facts(), False),
        ('all = ["no", "way"]', Facts(), True),
        ('all = ["no", "where"]', Facts(), False),
        ('any = ["no"]\nunless = ["way"]', Facts(), False),
        ('any = ["no"]\npattern = "w[ax]y"', Facts(), True),
        ('pattern = "w[ox]y"', Facts(), False),
        ('any = ["no"]\nlisted = true', Facts(), False),
    ],
)
def test_all_conditions_of_a_rule_must_hold(body: str, facts: Facts, fits: bool) -> None:
    assert (match(rules(body), "no way", facts).rule is not None) == fits


def test_the_first_rule_decides_whichever_kind_it_is() -> None:
    loaded = rules('codes = ["550"]\nany = ["late"]', 'codes = ["550"]', 'any = ["no"]')
    found = match(loaded, "no, late", Facts(code=550))
    assert found.rule is loaded.rules[0]
    found = match(loaded, "no", Facts(code=550))
    assert found.rule is loaded.rules[1]
    found = match(loaded, "no", Facts(code=450))
    assert found.rule is loaded.rules[2]


@pytest.mark.parametrize("category", ["bad-mailbox", "mailbox-full", "recipient-refused"])
def test_what_the_session_is_told_is_never_about_the_recipient(category: str) -> None:
    loaded = parse_reply_rules(HEAD + f'[[rule]]\nid = "r"\ncategory = "{category}"\nany = ["no"]\n')
    assert match(loaded, "no", Facts(verb=Verb.RCPT)).rule is not None
    for verb in (Verb.BANNER, Verb.EHLO, Verb.MAIL, Verb.STARTTLS):
        assert match(loaded, "no", Facts(verb=verb)).rule is None


def test_block_lists_and_providers_are_named_by_the_text() -> None:
    lists = '[[list]]\nname = "zen"\nwords = ["list.test"]\n'
    lists += '[[list]]\nname = "dbl"\nkind = "domain"\nwords = ["dbl"]\n'
    loaded = parse_reply_rules(HEAD + '[[rule]]\nid = "r"\ncategory = "policy"\nlisted = true\n' + lists)
    found = match(loaded, "refused by zen.list.test and dbl")
    assert found.rule is not None
    assert [one.name for one in found.lists] == ["zen", "dbl"]
    assert list_key(found.lists) is Key.DOMAIN
    assert list_key(()) is None
    matcher = Matcher(loaded)
    assert matcher.look(matcher.read("no - acmemark").text).provider == "acme"
    assert matcher.look(matcher.read("no").text).provider == ""


def test_a_text_that_names_everything_is_left_to_the_codes() -> None:
    names = ["".join(chr(97 + int(digit)) for digit in f"{n:04d}") for n in range(PHRASES_TRIED_MAX + 50)]
    bodies = [f'any = ["w{name} nothing"]' for name in names]
    loaded = rules(*bodies, 'any = ["last"]', 'codes = ["550"]')
    text = " ".join(f"w{name}" for name in names)
    assert len(text) > 2048
    assert match(loaded, f"nothing {text}", Facts(code=550)).rule is loaded.rules[-1]
