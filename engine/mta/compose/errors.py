"""What can be wrong with a content or with one recipient's values.

`ContentError` is the author's: raised while a content is compiled, before anything is sent; it names
the part, the line and, where there is one, the cure. `RenderError` is one recipient's: raised while
one message is composed; the envelope ends as `render_failed` and the campaign goes on. Neither text
repeats a merge value, so both may go to logs and reports.
"""


class ContentError(ValueError):
    """A content that cannot be sent. `line` is 1-based in the part's source, 0 when it has none."""

    def __init__(self, part: str, line: int, message: str, hint: str = "") -> None:
        self.part = part
        self.line = line
        self.message = message
        self.hint = hint
        place = f"{part}, line {line}" if line else part
        super().__init__(f"{place}: {message}" + (f" ({hint})" if hint else ""))


class RenderError(ValueError):
    """One recipient's message cannot be composed; the others can."""
