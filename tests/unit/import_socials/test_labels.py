"""Names of topics: phrases that occur, told apart, in the spelling of the posts."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tasks.import_socials.embeddings.local import LocalEmbedder
from tasks.import_socials.labels import Name, Phrasebook
from tasks.import_socials.words import content_runs
from tests.benchmarks.topics_quality import own_posts_by_user, topics_of


def names(*groups: Sequence[str], rest: Sequence[str] = ()) -> list[Name | None]:
    """The names of groups of texts, among the rest of the person's texts."""
    texts = [text for group in groups for text in group] + list(rest)
    numbers, start = [], 0
    for group in groups:
        numbers.append(list(range(start, start + len(group))))
        start += len(group)
    return list(Phrasebook([content_runs(text) for text in texts]).names(numbers))


def label(*texts: str, rest: Sequence[str] = ()) -> str | None:
    name = names(texts, rest=rest)[0]
    return name.label if name else None


REST = ["A walk in the rain", "Cheese on the moon", "Meeting at the office", "The train to Lund"]


def test_a_phrase_that_really_occurs_is_preferred() -> None:
    assert (
        label("the event loop blocks", "an event loop is a loop", "event loop lag", rest=REST) == "event loop"
    )


def test_the_spelling_most_used_is_shown() -> None:
    assert label("Node.js", "more Node.js", "nodejs", "a nodejs", "Node.js again", rest=REST) == "Node.js"


def test_a_hashtag_is_read_as_the_phrase_it_is_made_of() -> None:
    texts = ("#trailrunning at dawn", "I like trail running", "trail running shoes", "#TrailRunning forever")
    assert label(*texts, rest=REST) == "trail running"


def test_a_hashtag_alone_stays_whole() -> None:
    assert label("#IchBinHanna heute", "#IchBinHanna im Land", "Wieder #IchBinHanna") == "IchBinHanna"


def test_a_word_that_is_everywhere_names_nothing() -> None:
    rest = ["the coffee machine", "coffee in the rain", "coffee at the office", "coffee again", "cold coffee"]
    assert label(*["a grinder for coffee", "the grinder"] * 3, rest=rest) == "grinder"


@pytest.mark.parametrize("noise", ["@ann@mail.example", "https://a.example/x", "u/ann", "the and of", "😀"])
def test_noise_names_nothing(noise: str) -> None:
    assert label(*[f"{noise} word{i}" for i in ("a", "b", "c", "d")], rest=REST) is None


def test_one_word_shared_by_few_posts_is_chance() -> None:
    assert label("bus to Lund", "the bus driver", "no bus today") is None


def test_no_label_repeats_another_or_a_part_of_it() -> None:
    named = names(
        ["Postgres index size", "Postgres index scan", "a Postgres index"],
        ["index of the library books", "library index of books", "books in the library"],
        rest=REST,
    )
    labels = [name.label for name in named if name]
    assert len(labels) == 2
    assert not set(labels[0].lower().split()) & set(labels[1].lower().split())


def test_a_word_of_another_label_is_left_to_it() -> None:
    board_games = ["a board game", "board game night", "the board game", "my board game", "no board game"]
    first, second = names(board_games, ["a game, cheddar", "the game; cheddar", "game, a cheddar"], rest=REST)
    assert first
    assert second
    assert (first.label, second.label) == ("board game", "cheddar")


def test_keywords_do_not_repeat_the_label() -> None:
    for posts in own_posts_by_user().values():
        for topic in topics_of(posts, LocalEmbedder()):
            lowered = [keyword.lower() for keyword in topic.keywords]
            assert len(set(lowered)) == len(lowered)
            assert lowered[0] in topic.label.lower()


def test_the_labels_of_the_demo_read_well() -> None:
    """Read and found good; whoever changes the rules reads again (tests/benchmarks/topics_quality.py)."""
    labels = {
        user: [t.label for t in topics_of(posts, LocalEmbedder())]
        for user, posts in own_posts_by_user().items()
    }
    assert labels["maya"] == ["Node.js", "espresso", "trail running"]
    assert "bike lane" in labels["jonas"]
    assert "Film photography" in labels["kenji"]
    assert "board game" in labels["priya"]
    assert "mechanical keyboard" in labels["sofia"]
