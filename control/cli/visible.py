"""Foreign text on a terminal: replies of servers, names of files, cells of a CSV.

Whoever writes them must not move the cursor, change colours or turn the reading direction, so all
that is not printable (control and format characters) is shown as its escape.
"""

SHORT_CHARS = 160  # of a reply: two lines of a wide terminal


def visible(text: str) -> str:
    """The text in one line, with every unprintable character as an escape such as \\x1b."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def short(text: str, chars_max: int = SHORT_CHARS) -> str:
    """`visible`, cut to `chars_max` characters with an ellipsis."""
    line = visible(text[: chars_max + 1])
    return line if len(line) <= chars_max else line[: chars_max - 3] + "..."
