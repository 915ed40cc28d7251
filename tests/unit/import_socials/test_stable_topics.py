"""Topics keep their names from import to import."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tasks.import_socials.models import Topic
from tasks.import_socials.stable_topics import keep_stable


def topic(label: str, *ids: str, keywords: tuple[str, ...] = ()) -> Topic:
    return Topic(label, keywords or (label,), dict.fromkeys(ids, 1.0))


def labels(previous: dict[str, list[str]], *topics: Topic) -> list[str]:
    return [topic.label for topic in keep_stable(previous, topics)]


def test_a_topic_that_grew_keeps_its_label() -> None:
    assert labels({"espresso": ["1", "2", "3"]}, topic("grinder", "1", "2", "3", "4")) == ["espresso"]


def test_a_topic_that_split_goes_on_in_its_larger_part() -> None:
    previous = {"coffee": ["1", "2", "3", "4", "5"]}
    assert labels(previous, topic("latte", "1", "2"), topic("grinder", "3", "4", "5")) == ["latte", "coffee"]


def test_a_new_topic_does_not_take_a_label_that_goes_on() -> None:
    previous = {"espresso": ["1", "2", "3"]}
    new = topic("espresso", "7", "8", "9", keywords=("espresso", "machine"))
    assert labels(previous, topic("grinder", "1", "2", "3"), new) == ["espresso", "machine"]


def test_without_former_topics_nothing_changes() -> None:
    assert labels({}, topic("a", "1"), topic("b", "2")) == ["a", "b"]


def test_a_topic_with_other_posts_takes_its_own_label() -> None:
    assert labels({"espresso": ["1", "2", "3"]}, topic("trail", "1", "7", "8", "9")) == ["trail"]


_ids = st.frozensets(st.sampled_from("abcdefghij"), min_size=1)
_names = st.sampled_from(["x", "y", "z", "w"])


@given(
    st.dictionaries(_names, _ids),
    st.lists(st.tuples(_names, _ids), unique_by=lambda pair: pair[0], max_size=4),
)
def test_labels_stay_distinct_and_members_untouched(
    previous: dict[str, frozenset[str]], new: list[tuple[str, frozenset[str]]]
) -> None:
    topics = [topic(label, *sorted(ids), keywords=("x", "y")) for label, ids in new]
    kept = keep_stable(previous, topics)
    assert len({t.label for t in kept}) == len(kept)
    assert [t.members for t in kept] == [t.members for t in topics]
