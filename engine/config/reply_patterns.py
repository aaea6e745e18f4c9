"""Which regular expressions a rule file may hold: only those whose worst case is small and known.

A pattern meets texts that strangers write, so one that can blow up is a way to stop the engine.
`check_pattern` counts in how many ways the pattern can match from one place of a text of TEXT_MAX
characters; Python's matcher never tries more than that. Nested repeats and overlapping alternatives
under a repeat give astronomic counts, two open repeats in a row give millions: all are refused by
the same number. Backreferences and lookarounds are refused outright, nothing of ours needs them.
"""

import re
from collections.abc import Sequence
from typing import Any

PATTERN_MAX = 200  # characters; a longer one is no small regex
TEXT_MAX = 2048  # characters of a reply that rules look at; the longest provider texts are about 400
# Ways from one starting place: one open repeat (`[a-z]+`) and a few choices. Times 2048 places this is
# some 16 million steps, about 0.2 s once in a life (verdicts are cached), measured on the worst patterns.
WAYS_MAX = 4 * TEXT_MAX
_DEPTH_MAX = 20
_TOO_MANY = WAYS_MAX + 1


class PatternError(ValueError):
    """The pattern may not be used; `str` says why, `hint` what to write instead."""

    def __init__(self, problem: str, hint: str = "") -> None:
        super().__init__(problem)
        self.hint = hint


def check_pattern(pattern: str) -> None:
    """Raise PatternError unless `pattern` compiles and cannot blow up on any text."""
    if not pattern:
        raise PatternError("is empty")
    if len(pattern) > PATTERN_MAX:
        raise PatternError(f"is longer than {PATTERN_MAX} characters", "use words, or several rules")
    try:
        tree = re._parser.parse(pattern)  # type: ignore[attr-defined]
        compiled = re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise PatternError(f"is no regular expression: {error}") from error
    if compiled.match("") is not None:
        raise PatternError("matches an empty text")
    if _ways(tree, 0) > WAYS_MAX:
        raise PatternError(
            "could take very long on a hostile text",
            "no repeat inside a repeat, at most one open repeat (* or +), others bounded like {0,20}",
        )


def _ways(items: Sequence[tuple[Any, Any]], depth: int) -> int:
    """In how many ways a sequence can match from one place; capped at _TOO_MANY."""
    if depth > _DEPTH_MAX:
        return _TOO_MANY
    ways = 1
    for operation, argument in items:
        ways *= _item_ways(str(operation), argument, depth + 1)
        if ways > WAYS_MAX:
            return _TOO_MANY
    return ways


def _item_ways(name: str, argument: Any, depth: int) -> int:
    match name:
        case "LITERAL" | "NOT_LITERAL" | "IN" | "ANY" | "AT" | "CATEGORY":
            return 1
        case "BRANCH":
            return min(_TOO_MANY, sum(_ways(branch, depth) for branch in argument[1]))
        case "SUBPATTERN":
            return _ways(argument[-1], depth)
        case "ATOMIC_GROUP":
            return _ways(argument, depth)
        case "MAX_REPEAT" | "MIN_REPEAT" | "POSSESSIVE_REPEAT":
            least, most, inner = argument
            return _repeat_ways(int(least), min(int(most), TEXT_MAX), _ways(inner, depth))
        case _:
            raise PatternError(
                f"uses {name.lower().replace('_', ' ')}", "backreferences and lookarounds are not allowed"
            )


def _repeat_ways(least: int, most: int, inner: int) -> int:
    if least > TEXT_MAX:
        raise PatternError(f"repeats more than {TEXT_MAX} times")
    if inner == 1:
        return most - least + 1
    total = 0
    power = inner**least if least < 64 else _TOO_MANY
    for _ in range(least, most + 1):
        total += power
        if total > WAYS_MAX:
            return _TOO_MANY
        power *= inner
    return total
