"""What goes over the bus comes back as it was, and nothing else is taken for it."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.model.envelope import Chunk, ChunkEntry
from engine.model.submission import SubmitChunk, SubmitContent, decode_submission, encode_submission
from tests.fakes.engine_house import letter, signed

text = st.text(alphabet=st.characters(exclude_categories=("Cs",)), max_size=40)
entries = st.builds(ChunkEntry, st.integers(0, 2**48), text, st.lists(text, max_size=3).map(tuple))
chunks = st.builds(
    Chunk, text, st.integers(0, 2**32), st.floats(0, 4e9), st.lists(entries, max_size=4).map(tuple)
)


@given(chunks)
def test_a_chunk_comes_back_as_it_was(chunk: Chunk) -> None:
    assert decode_submission(encode_submission(SubmitChunk(chunk))) == SubmitChunk(chunk)


@pytest.mark.parametrize(
    "content", [letter(), signed(), letter(html="<p>ü</p>", text=None, headers=(("X-A", "b"),))]
)
def test_a_content_comes_back_as_it_was(content: object) -> None:
    submission = SubmitContent(content)  # type: ignore[arg-type]
    assert decode_submission(encode_submission(submission)) == submission


@given(st.binary(max_size=200))
def test_octets_that_are_no_submission_are_an_error_of_one_kind(octets: bytes) -> None:
    with pytest.raises(msgspec.MsgspecError):
        decode_submission(octets)


@pytest.mark.parametrize("kind", ["", "chunks", "commands"])
def test_an_unknown_kind_is_an_error(kind: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        decode_submission(msgspec.msgpack.encode({"type": kind, "chunk": ["c", 7, 4e9, []]}))
