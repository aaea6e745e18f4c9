"""The record file holds every accepted message, whatever octets its addresses have."""

from bench.world.records import SECONDS_MAX, Accepted, RecordFile, Timeline, read_records, text_of


def accepted(number, **facts):
    defaults = {
        "provider": "p", "recipient": f"r{number}@box.test", "mail_from": "s@f.test", "message_id": "<1@f>",
        "at": 1.5, "octets": 3, "sha256": "00", "source": "127.0.0.1",
    }  # fmt: skip
    return Accepted(**(defaults | facts))


def test_what_was_recorded_is_read_back(tmp_path):
    path = tmp_path / "record"
    messages = [accepted(1), accepted(2, content=b"\x00\xff\n", tls=True), accepted(3, answered=False)]
    with RecordFile(path) as record:
        record(messages[:1])
        assert list(read_records(path)) == messages[:1]
        record(messages[1:])
    assert list(read_records(path)) == messages


def test_two_writers_share_a_file_and_a_torn_line_is_left_out(tmp_path):
    path = tmp_path / "record"
    with RecordFile(path) as one, RecordFile(path) as other:
        one([accepted(1)])
        other([accepted(2)])
    with path.open("ab") as torn:
        torn.write(b'{"provider":"p"')
    assert [message.recipient for message in read_records(path)] == ["r1@box.test", "r2@box.test"]


def test_octets_that_are_no_utf8_become_text_that_json_can_hold(tmp_path):
    path = tmp_path / "record"
    with RecordFile(path) as record:
        record([accepted(1, mail_from=text_of(b"a\xff\n@x"))])
    assert next(read_records(path)).mail_from == "a\\xff\n@x"


def test_a_timeline_counts_by_second_from_the_first_one_on():
    timeline = Timeline()
    timeline.add(7.9, accepted=2)
    timeline.add(10.0, refused=1)
    timeline.add(10.9, accepted=1)
    assert timeline.statistics() == {"begin": 7, "accepted": [2, 0, 0, 1], "refused": [0, 0, 0, 1]}


def test_a_timeline_has_an_end():
    timeline = Timeline()
    timeline.add(0.0, accepted=1)
    timeline.add(SECONDS_MAX - 1.0, accepted=1)
    timeline.add(SECONDS_MAX + 5.0, accepted=1)
    assert len(timeline.accepted) == SECONDS_MAX
    assert sum(timeline.accepted) == 2
