"""How long it takes to compose one message: `python -m bench compose`, or `python -m bench.compose`.

The letter is the one of the performance budget: about 10 KB, text and HTML, five values, ten tracked
links. Timed apart: unsigned compose + finish, the extra work of DKIM digests (signing itself happens
elsewhere), and the plain way that templates with macros or captures take. Pure Python, one core.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version

from bench import machine
from engine.model.content import BodyCanon, Content, DkimAlgorithm, DkimIdentity
from engine.model.envelope import Envelope
from engine.mta.compose import CompiledContent, compile_content
from tests.fakes.letters import NOW, big_letter, envelope, token_keys

_ROUNDS = 5  # the best one counts: the others were disturbed
_PLAIN_SHARE = 10  # the plain way is slow, a tenth of the messages will do
_CAPTURE = "{% set greeting %}Hello{% endset %}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--messages", type=int, default=20_000, help="messages per round (default 20,000)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> dict[str, object]:
    """All figures as one mapping; times are microseconds per message."""
    messages = max(_PLAIN_SHARE, args.messages // _ROUNDS)
    envelopes = [
        envelope(
            f"reader{n}@example.net",
            (f"Reader {n}", "Bad Homburg", "Premium", f"{n}.50", f"XK-{n}"),
            subscriber=n + 1,
        )
        for n in range(messages)
    ]
    letter = big_letter()
    plain = big_letter(html=f"{_CAPTURE}{letter.html}", text=f"{_CAPTURE}{letter.text}")
    unsigned = _time(_composer(letter), envelopes)
    signed = {
        "rsa2048_simple": _time(
            _composer(_signed(letter, DkimAlgorithm.RSA_SHA256, BodyCanon.SIMPLE)), envelopes
        ),
        "ed25519_relaxed": _time(
            _composer(_signed(letter, DkimAlgorithm.ED25519_SHA256, BodyCanon.RELAXED)), envelopes
        ),
    }
    return {
        "messages": messages * _ROUNDS,
        "message_bytes": len(_composer(letter).compose(envelopes[0], NOW).finish()),
        "us_per_message": round(unsigned, 2),
        "messages_per_second": round(1e6 / unsigned),
        "us_digest": {name: round(us - unsigned, 2) for name, us in signed.items()},
        "us_per_message_plain": round(_time(_composer(plain), envelopes[: messages // _PLAIN_SHARE]), 2),
        "us_compile": round(_best(lambda: compile_content(letter, token_keys())), 2),
        "cores": machine.cores(),
        "python": platform.python_version(),
        "minijinja": version("minijinja"),
        "msgspec": version("msgspec"),
    }


def _composer(letter: Content) -> CompiledContent:
    return compile_content(letter, token_keys())


def _signed(letter: Content, algorithm: DkimAlgorithm, body: BodyCanon) -> Content:
    identity = DkimIdentity("example.org", "m2026q4", "example.org-m2026q4", algorithm, body)
    return big_letter(html=letter.html, text=letter.text, dkim=(identity,))


def _time(compiled: CompiledContent, envelopes: Sequence[Envelope]) -> float:
    def all_of_them() -> None:
        for one in envelopes:
            draft = compiled.compose(one, NOW)
            if not draft.digests:
                draft.finish()

    return _best(all_of_them) / len(envelopes)


def _best(work: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(_ROUNDS):
        started = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - started)
    return best * 1e6


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="bench compose", description=(__doc__ or "").partition("\n")[0])
    add_arguments(parser)
    args = parser.parse_args(argv)
    figures = run(args)
    if args.json:
        print(json.dumps(figures))
        return 0
    for name, value in figures.items():
        shown = (
            ", ".join(f"{key} {part}" for key, part in value.items()) if isinstance(value, dict) else value
        )
        print(f"{name:24} {shown}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
