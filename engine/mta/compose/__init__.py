"""Compose: a campaign's content and one envelope become the bytes that go over the wire.

Pure and synchronous. Everything that callers need is here; `message` is the place to start reading.
"""

from engine.mta.compose.dkim import SigningRequest
from engine.mta.compose.errors import ContentError, RenderError
from engine.mta.compose.message import CompiledContent, Draft, compile_content
from engine.mta.compose.raw import RawContent
from engine.mta.compose.token import TokenKeys, TokenPayload, mint, verify

__all__ = [
    "CompiledContent",
    "ContentError",
    "Draft",
    "RawContent",
    "RenderError",
    "SigningRequest",
    "TokenKeys",
    "TokenPayload",
    "compile_content",
    "mint",
    "verify",
]
