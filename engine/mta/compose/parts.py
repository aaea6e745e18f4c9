"""The body parts of a content and the names their templates may use.

The HTML part's static links are pointed at the tracking host and its pixel added before it is
compiled; the text part is the author's own or derived from the HTML as the author wrote it, so that
its addresses stay readable. Besides the content's fields every template knows `email`, and the
addresses of the landing server when their hosts are configured. Raises ContentError.
"""

from engine.model.content import Content
from engine.mta.compose import fields
from engine.mta.compose.errors import ContentError
from engine.mta.compose.links import add_pixel, find_links
from engine.mta.compose.mime import normalise
from engine.mta.compose.template import Template
from engine.mta.compose.text import text_from_html

# The value behind a tracked link's token, in templates that go the plain way. Not for authors.
CLICK_TOKEN = "emass_click_token"  # noqa: S105 - a name
UNSUBSCRIBE_PATHS = {"unsubscribe_url": "u", "preferences_url": "p"}  # with the u token
CLICK_PATHS = {"web_version_url": "v"}  # with the c token


def known_names(content: Content) -> dict[str, str]:
    """Every name templates may know: "" when it can be used, else why not."""
    if len(set(content.fields)) != len(content.fields):
        raise ContentError("fields", 0, "a field is there twice")
    known = dict.fromkeys(content.fields, "")
    known["email"] = ""
    for names, host, setting in (
        (UNSUBSCRIBE_PATHS, content.unsubscribe_host, "unsubscribe_host"),
        (CLICK_PATHS, content.tracking_host, "tracking_host"),
    ):
        for name in names:
            if name in content.fields:
                raise ContentError("fields", 0, f"the name {name!r} is built in", "rename the column")
            known[name] = "" if host else f"it needs {setting} to be configured"
    if CLICK_TOKEN in content.fields:
        raise ContentError("fields", 0, f"the name {CLICK_TOKEN!r} is built in", "rename the column")
    return known


class Parts:
    """`html` and `text` templates (html None = a text-only message) and the `links` by number."""

    def __init__(self, content: Content, atom: str, known: dict[str, str]) -> None:
        """`atom`: 40 unguessable characters that stand for the click token in static text."""
        if content.html is None and content.text is None:
            raise ContentError("content", 0, "has neither an html nor a text part")
        self.links: tuple[str, ...] = ()
        self.html: Template | None = None
        if content.html is not None:
            self.html = self._compile_html(content, normalise(content.html), atom, known)
        if content.text is not None:
            self.text = Template("text", normalise(content.text), html=False)
            self.text.check_names(known)
            return
        try:
            self.text = Template("text", text_from_html(normalise(content.html or "")), html=False)
        except ContentError as error:
            raise ContentError(
                "html", 0, f"no text can be derived from it: {error.message}", "give a text part"
            ) from None

    def _compile_html(self, content: Content, source: str, atom: str, known: dict[str, str]) -> Template:
        # The author's own source first: errors must name the author's lines and names.
        Template("html", source, html=True).check_names(known)
        tracking = content.tracking_host and fields.domain("tracking_host", content.tracking_host)
        unsubscribe = content.unsubscribe_host and fields.domain("unsubscribe_host", content.unsubscribe_host)
        source, targets = find_links(source, tracking, unsubscribe, atom)
        self.links = tuple(targets)
        if content.open_pixel and tracking:
            source = add_pixel(source, tracking, atom)
        return Template("html", source, html=True, atom=atom, atom_name=CLICK_TOKEN)
