"""What waits is sent in the right order, merged, and never lost without being known as unsent."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bridge.messages import Message
from bridge.publisher.waiting import Waiting

ANY = 1_000_000


def message(run: str, event: str, number: int, final: bool = False) -> Message:
    return Message(run, f"topic-{run}", event, number, b"{%d}" % number, final)


def filled(*messages: Message) -> Waiting:
    waiting = Waiting()
    for each in messages:
        waiting.add(each, partition=0)
    return waiting


def told(messages: list[Message]) -> list[tuple[str, str, int]]:
    return [(each.run_id, each.event, each.number) for each in messages]


def test_final_states_go_first_then_states_then_progress_then_log_lines() -> None:
    waiting = filled(
        message("a", "log", 1),
        message("b", "progress", 1),
        message("c", "state", 1),
        message("d", "state", 2, final=True),
    )
    order = told(waiting.peek(9, ANY))
    assert order == [("d", "state", 2), ("c", "state", 1), ("b", "progress", 1), ("a", "log", 1)]


def test_the_states_of_one_run_keep_their_order_up_to_its_end() -> None:
    waiting = filled(message("a", "state", 1), message("a", "state", 2), message("a", "state", 3, final=True))
    assert [each.number for each in waiting.peek(9, ANY)] == [1, 2, 3]


def test_only_the_latest_progress_waits() -> None:
    waiting = filled(*(message("a", "progress", number) for number in (1, 3, 2)))
    assert told(waiting.peek(9, ANY)) == [("a", "progress", 3)]


def test_progress_never_shows_less_than_the_state_before_it() -> None:
    waiting = filled(message("a", "progress", 1), message("a", "state", 2, final=True))
    messages = waiting.peek(9, ANY)
    assert told(messages) == [("a", "state", 2), ("a", "progress", 2)]
    assert messages[1].payload == b"{2}"


def test_states_are_merged_once_they_have_to_wait() -> None:
    waiting = filled(*(message("a", "state", number) for number in (1, 2, 3)))
    waiting.settle(["a"])
    assert told(waiting.peek(9, ANY)) == [("a", "state", 3)]


def test_what_arrived_while_sending_is_kept() -> None:
    waiting = filled(message("a", "state", 1), message("a", "progress", 1))
    sent = waiting.peek(9, ANY)
    waiting.add(message("a", "state", 2), partition=0)
    assert waiting.remove(sent) == []
    assert told(waiting.peek(9, ANY)) == [("a", "state", 2), ("a", "progress", 2)]


def test_a_run_is_done_when_its_last_snapshot_is_sent() -> None:
    waiting = filled(message("a", "state", 1), message("a", "log", 1))
    [done] = waiting.remove(waiting.peek(1, ANY))
    assert done.run_id == "a"
    assert waiting.unsent(["a"]) == []
    assert told(waiting.peek(9, ANY)) == [("a", "log", 1)]


def test_a_request_is_bounded_in_messages_and_bytes() -> None:
    waiting = filled(*(message(str(number), "progress", 1) for number in range(10)))
    assert len(waiting.peek(4, ANY)) == 4
    assert len(waiting.peek(9, 7)) == 2
    assert len(waiting.peek(9, 1)) == 1


def test_the_oldest_log_lines_go_when_too_many_wait() -> None:
    waiting = filled(*(message("a", "log", number) for number in range(1, 1_000)))
    numbers = [each.number for each in waiting.peek(ANY, ANY)]
    assert numbers == list(range(800, 1_000))


def test_memory_is_bounded_and_the_urgent_stay() -> None:
    waiting = filled(*(message(str(number), "progress", 1) for number in range(10)))
    waiting.add(message("end", "state", 1, final=True), partition=0)
    waiting.evict(3)
    assert len(waiting) == 11, "what no unsent set knows of must stay"
    for number in range(10):
        waiting.add(message(str(number), "progress", 1), partition=0, stored=True)
    waiting.evict(3)
    assert len(waiting) == 3
    assert "end" in waiting


def test_a_lost_partition_is_forgotten() -> None:
    waiting = filled(message("a", "state", 1))
    waiting.add(message("b", "state", 1), partition=1)
    waiting.drop(0)
    assert told(waiting.peek(9, ANY)) == [("b", "state", 1)]


def test_held_progress_lets_states_ends_and_log_lines_pass_and_comes_merged_after_them() -> None:
    waiting = filled(message("a", "progress", 1))
    waiting.hold({0})
    for number in (2, 3):
        waiting.add(message("a", "progress", number), partition=0)
    waiting.add(message("a", "log", 1), partition=0)
    waiting.add(message("b", "progress", 1), partition=0)
    waiting.add(message("c", "state", 1), partition=0)
    waiting.add(message("c", "progress", 1), partition=0)
    waiting.add(message("d", "progress", 1, final=True), partition=0)
    waiting.add(message("e", "progress", 1), partition=1)
    sent = waiting.peek(9, ANY)
    assert told(sent) == [("d", "progress", 1), ("c", "state", 1), ("e", "progress", 1), ("a", "log", 1)]
    waiting.remove(sent)
    assert (waiting.ready, len(waiting), waiting.peek(9, ANY)) == (0, 3, [])
    waiting.hold(())
    left = told(waiting.peek(9, ANY))
    assert sorted(left) == [("a", "progress", 3), ("b", "progress", 1), ("c", "progress", 1)]


def test_what_is_held_goes_first_when_memory_is_short() -> None:
    waiting = Waiting()
    waiting.hold({0})
    for number in range(10):
        waiting.add(message(str(number), "progress", 1), partition=0, stored=True)
    waiting.add(message("other", "progress", 1), partition=1, stored=True)
    waiting.evict(1)
    assert told(waiting.peek(9, ANY)) == [("other", "progress", 1)]


events = st.tuples(st.sampled_from("abc"), st.sampled_from(["state", "progress", "log"]), st.booleans())


@given(st.lists(st.one_of(events, st.integers(1, 4), st.none(), st.booleans()), max_size=60))
def test_the_last_snapshot_of_every_run_is_sent_and_none_goes_back(
    history: list[tuple[str, str, bool] | int | bool | None],
) -> None:
    waiting, newest, shown = Waiting(), dict[tuple[str, str], int](), dict[tuple[str, str], int]()

    def send(count: int) -> None:
        messages = waiting.peek(count, ANY)
        for each in messages:
            assert each.number >= shown.get((each.run_id, each.event), 0)
            shown[each.run_id, each.event] = each.number
        waiting.remove(messages)

    for number, step in enumerate(history, 1):
        if step is None:
            waiting.settle("abc")
        elif isinstance(step, bool):
            waiting.hold({0} if step else ())
        elif isinstance(step, int):
            send(step)
        else:
            run, event, final = step
            waiting.add(message(run, event, number, final), partition=0)
            newest[run, event] = number
    send(ANY)
    assert waiting.ready == 0
    waiting.hold(())
    send(ANY)
    assert len(waiting) == 0
    assert all(shown[key] >= number for key, number in newest.items())
