"""Keeps the names of topics over later imports: a topic that was shown is not renamed for two new posts."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from tasks.import_socials.models import Topic

_SAME = 0.5  # of the former posts, or of the present ones, are in both


def keep_stable(previous: Mapping[str, Collection[str]], topics: Sequence[Topic]) -> list[Topic]:
    """The new topics, those that go on from a former one under its label.

    `previous` maps a label to the ids of its posts. A former topic goes on in one new topic at most, the
    one that shares most posts with it; labels stay distinct.
    """
    pairs = sorted(
        (-len(shared), label, number)
        for label, ids in previous.items()
        for number, topic in enumerate(topics)
        if (shared := topic.members.keys() & set(ids)) and _goes_on(len(shared), len(ids), topic.size)
    )
    kept: dict[int, str] = {}
    for _, label, number in pairs:
        if number not in kept and label not in kept.values():
            kept[number] = label
    return _distinct([replace(topic, label=kept.get(i, topic.label)) for i, topic in enumerate(topics)], kept)


def _goes_on(shared: int, before: int, now: int) -> bool:
    return shared >= _SAME * before or shared >= _SAME * now


def _distinct(topics: list[Topic], kept: Mapping[int, str]) -> list[Topic]:
    """Gives a new topic its next keyword as label where a former one holds its own."""
    taken = set(kept.values())
    for number, topic in enumerate(topics):
        if number in kept:
            continue
        free = (label for label in (topic.label, *topic.keywords) if label not in taken)
        label = next(free, f"{topic.label} ({number + 1})")
        topics[number] = replace(topic, label=label)
        taken.add(label)
    return topics
