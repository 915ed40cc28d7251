"""Topics of a person's posts: sensible groups and names, the same each time, whatever the posts hold."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.import_socials.embeddings.local import LocalEmbedder
from tasks.import_socials.models import EmbeddedPost, Topic
from tasks.import_socials.topics import find_topics
from tests.benchmarks.topics_quality import OFF_TOPIC, figures, own_posts_by_user, topics_of

EMBEDDER = LocalEmbedder()
DEMO = own_posts_by_user()


def posts_of(texts: Sequence[str], accounts: Sequence[str] = ("one",)) -> list[EmbeddedPost]:
    vectors = EMBEDDER.embed(texts)
    return [
        EmbeddedPost(f"post-{i}", accounts[i % len(accounts)], text, vector)
        for i, (text, vector) in enumerate(zip(texts, vectors, strict=True))
    ]


ESPRESSO = [
    "The new espresso grinder makes no noise",
    "Espresso at home: 18 g in, a good grinder, patience",
    "My espresso grinder needs new burrs",
    "Why is my espresso sour? The grinder again",
]
INDEXES = [
    "A partial index saved our Postgres server",
    "Postgres ignores the partial index, and the planner is right",
    "Every Postgres query wants an index",
    "Vacuum the Postgres table, then look at the partial index",
]


@pytest.mark.parametrize(
    "texts", [[], ["espresso"], ["espresso", "espresso grinder"], ["", " ", "😀", "!!!"]]
)
def test_few_or_empty_posts_have_no_topics(texts: list[str]) -> None:
    assert find_topics(posts_of(texts)) == []


def test_posts_without_a_common_subject_have_no_topics() -> None:
    small_talk = [post.text for _, post in DEMO["maya"] if post.theme == OFF_TOPIC]
    assert len(small_talk) > 5
    assert find_topics(posts_of(small_talk)) == []


@pytest.mark.parametrize("user", sorted(DEMO))
def test_the_themes_of_the_demo_are_found(user: str) -> None:
    themes = [post.theme for _, post in DEMO[user]]
    topics = topics_of(DEMO[user], EMBEDDER)
    purity, nmi, found = figures(themes, topics)
    assert purity >= 0.95
    assert nmi >= 0.9
    assert found >= 0.7
    main_themes = [theme for theme, n in Counter(themes).items() if n >= 8 and theme != OFF_TOPIC]
    of_topics = {Counter(themes[int(p)] for p in topic.members).most_common(1)[0][0] for topic in topics}
    assert of_topics == set(main_themes)


def test_a_topic_is_merged_over_accounts() -> None:
    posts = posts_of(ESPRESSO + INDEXES, accounts=["mastodon", "reddit"])
    topics = find_topics(posts)
    account_of = {post.id: post.account_id for post in posts}
    assert [topic.size for topic in topics] == [4, 4]
    assert all({account_of[post] for post in topic.members} == {"mastodon", "reddit"} for topic in topics)


def test_a_text_posted_to_three_networks_is_no_topic_by_itself() -> None:
    assert find_topics(posts_of(["The grinder needs new burrs, says the roaster"] * 3)) == []
    topics = find_topics(posts_of(ESPRESSO + ESPRESSO))
    assert [topic.size for topic in topics] == [8]
    assert len({id.removeprefix("post-") for id in topics[0].example_post_ids}) == 3


def test_members_and_examples_come_the_nearest_first() -> None:
    for topic in topics_of(DEMO["maya"], EMBEDDER):
        scores = list(topic.members.values())
        assert scores == sorted(scores, reverse=True)
        assert len(topic.example_post_ids) == 3
        assert set(topic.example_post_ids) <= topic.members.keys()


def test_the_same_posts_give_the_same_topics_in_any_order() -> None:
    posts = posts_of([post.text for _, post in DEMO["kenji"]])
    shuffled = posts[:]
    random.Random(7).shuffle(shuffled)
    assert find_topics(posts) == find_topics(posts)
    assert _groups(find_topics(posts)) == _groups(find_topics(shuffled))


def test_the_largest_topics_are_kept() -> None:
    topics = topics_of(DEMO["jonas"], EMBEDDER)
    sizes = [topic.size for topic in topics]
    assert sizes == sorted(sizes, reverse=True)
    posts = posts_of([f"{post.title} {post.text}" for _, post in DEMO["jonas"]])
    assert len(find_topics(posts, most=1)) == 1


@pytest.mark.parametrize(
    "texts",
    [
        ["今天去爬山看日出", "爬山的路上看到日出", "周末爬山", "爬山看日出最好的地方", "明天又要爬山"],
        ["אני אופה לחם מחמצת", "לחם מחמצת טרי", "המחמצת שלי והלחם", "לחם מחמצת בתנור"],
        ["أحب القهوة العربية", "القهوة العربية في الصباح", "فنجان القهوة العربية", "القهوة العربية لذيذة"],
        ["ฉันชอบกาแฟ", "กาแฟตอนเช้า", "กาแฟร้อน", "กาแฟเย็น"],
    ],
)
def test_any_script_is_read(texts: list[str]) -> None:
    topics = find_topics(posts_of(texts))
    assert all(topic.label and topic.size >= 3 for topic in topics)


def test_japanese_posts_get_a_japanese_name() -> None:
    texts = [
        "昨夜は望遠鏡で土星を撮影した",
        "望遠鏡で木星を撮影",
        "新しい望遠鏡が届いた。撮影が楽しみ",
        "望遠鏡の掃除と撮影",
    ]
    topics = find_topics(posts_of(texts))
    assert len(topics) == 1
    assert "望遠鏡" in topics[0].label


def test_vectors_that_find_everything_alike_do_not_make_one_heap() -> None:
    """Models differ in the likeness of unrelated texts; a common direction must not join all posts."""
    posts = [
        EmbeddedPost(post.id, post.account_id, post.text, [*post.embedding, 2.0])
        for post in posts_of([f"{post.title} {post.text}" for _, post in DEMO["maya"]])
    ]
    topics = find_topics(posts)
    assert len(topics) >= 3
    assert figures([post.theme for _, post in DEMO["maya"]], _numbered(topics))[0] >= 0.9


def test_vectors_of_zeros_are_survived() -> None:
    posts = [EmbeddedPost(str(i), "one", text, [0.0] * 8) for i, text in enumerate(ESPRESSO + INDEXES)]
    assert all(topic.label for topic in find_topics(posts))


_words = st.sampled_from(
    [
        "espresso",
        "grinder",
        "postgres",
        "index",
        "the",
        "and",
        "望遠鏡",
        "撮影",
        "#TrailRunning",
        "Übung",
        "😀",
        "",
    ]
)
_texts = st.one_of(st.text(max_size=80), st.lists(_words, max_size=8).map(" ".join))


@settings(max_examples=60, deadline=None)
@given(st.lists(_texts, max_size=25))
def test_whatever_the_posts_hold_topics_are_whole(texts: list[str]) -> None:
    posts = posts_of(texts)
    topics = find_topics(posts)
    labels = [topic.label for topic in topics]
    assert len(set(labels)) == len(labels)
    assert all(label.strip() for label in labels)
    members = [post for topic in topics for post in topic.members]
    assert len(set(members)) == len(members)
    assert set(members) <= {post.id for post in posts}
    for topic in topics:
        assert topic.size >= 3
        assert all(0 <= score <= 1 for score in topic.members.values())
        assert set(topic.example_post_ids) <= topic.members.keys()
    assert topics == find_topics(posts)


def _groups(topics: Sequence[Topic]) -> list[tuple[str, frozenset[str]]]:
    return [(topic.label, frozenset(topic.members)) for topic in topics]


def _numbered(topics: Sequence[Topic]) -> list[Topic]:
    return [
        Topic(t.label, t.keywords, {id.removeprefix("post-"): s for id, s in t.members.items()})
        for t in topics
    ]
