"""What an operator reads of a dead entry, whatever bytes it holds."""

from __future__ import annotations

import json
import unicodedata
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.events import Patch, encode, run_uuid
from bridge.publisher.dead import DeadEntry, burial, described, table
from bridge.publisher.reader import Batch, Entry

RUN = run_uuid("run")
ENTRY = DeadEntry("1795219829346-0", "3", "1795219829000-1", "set is not an object", "host:7", b"{}")

entries = st.builds(
    DeadEntry,
    dead_id=st.sampled_from(["1795219829346-0", "0-1", "99999999999999999999-1"]),
    partition=st.text(max_size=5),
    entry_id=st.text(max_size=5),
    reason=st.text(max_size=300),
    replica=st.text(max_size=20),
    raw=st.binary(max_size=60) | st.text().map(lambda text: text.encode("utf-8", "surrogatepass")),
)


@pytest.mark.parametrize(
    ("raw", "run"),
    [
        (encode(Patch(RUN, 1, 0.0)), RUN),
        (encode(Patch(RUN, 1, 0.0, {"step": "x" * 50}))[:60], RUN),  # cut off
        (json.dumps({"n": 1, "id": RUN}).encode(), RUN),
        (json.dumps({"set": {"id": RUN}}).encode(), None),
        (b'{"id":5}', None),
        (b"[" * 5_000, None),
        (b"\xff\x00", None),
        (b"", None),
    ],
)
def test_the_run_is_told_where_it_can_be_read(raw: bytes, run: str | None) -> None:
    assert replace(ENTRY, raw=raw).run_id == run


@given(entries)
def test_no_bytes_reach_the_terminal_as_controls_and_each_entry_is_one_line(entry: DeadEntry) -> None:
    heading, line = table([entry])
    shown = [heading, line, *described(entry), json.dumps(entry.summary())]
    for text in shown:
        assert "\n" not in text
        assert not {unicodedata.category(each) for each in text} & {"Cc", "Cs"}
        assert not set(text) & set("\u202a\u202b\u202d\u202e\u2066\u2067\u2068\u2069\u2028\u2029")
        text.encode()


def test_what_is_shown_leaves_text_as_it_is_and_names_every_other_byte() -> None:
    raw = 'ä "\\n" \x1b[2J\u202e'.encode() + b"\xff\x00"
    assert replace(ENTRY, raw=raw).shown() == 'ä "\\n" \\x1b[2J\\u202e\\xff\\x00'


def test_a_reason_of_any_length_is_kept_cut_and_can_be_stored() -> None:
    reason = burial(0, "1-0", b"", "\ud800" + "x" * 100_000, "host:7")["reason"]
    assert len(reason.encode()) <= 1_010


def test_many_dead_entries_of_many_runs_are_found_without_reading_the_whole_batch_for_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    batch, read = Batch(), 0
    for number in range(300):
        batch.add(Entry(0, f"{number + 1}-0", encode(Patch(run_uuid(str(number)), 1, 0.0))))
    decoded = Entry.decoded

    def counted(entry: Entry) -> Patch:
        nonlocal read
        read += 1
        return decoded(entry)

    monkeypatch.setattr(Entry, "decoded", counted)
    for number in range(300):
        assert len(batch.entries_of(run_uuid(str(number)))) == 1
    assert read == 300
