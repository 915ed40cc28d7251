"""Words of a post: content in any language, nothing else."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.import_socials.words import content_runs, word


def words_of(text: str) -> list[str]:
    return [word.text for run in content_runs(text) for word in run]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("See https://a.example/b?c=1#d and www.foo.example/x for the heap", ["heap"]),
        ("@bob@social.example and @carol, write dave@mail.example about the heap", ["write", "heap"]),
        ("as u/spez said in r/programming, the heap", ["heap"]),
        ("The don't, I'm, it's and won't of the heap's", ["heap"]),
        ("```let secret = heap```", []),
        ("#TrailRunning", ["Trail", "Running"]),
        ("#nodejs", ["nodejs"]),
        ("#3937", []),
        ("Node.js and C++ or C#.", ["Node.js", "C++", "C#"]),
        ("Der Sauerteig und die Kruste", ["Sauerteig", "Kruste"]),
        ("La semilla y los tomates", ["semilla", "tomates"]),
        ("J'aime l'espresso dans la tasse", ["aime", "espresso", "tasse"]),
        ("新しいレンズで天体写真を撮った", ["レンズ", "天体写真"]),
        ("😀🎉 ... !!! 12:30", []),
    ],
)
def test_only_words_that_carry_the_subject_are_left(text: str, expected: list[str]) -> None:
    assert words_of(text) == expected


def test_a_german_article_is_content_in_english() -> None:
    assert "war" in words_of("A history of the war and of peace in the city")
    assert "war" not in words_of("Das war der Sauerteig, und die Kruste war nicht gut")


@pytest.mark.parametrize(
    ("one", "other"),
    [("Index", "indexes"), ("Node.js", "NodeJS"), ("café", "Cafe"), ("black-and-white", "blackandwhite")],
)
def test_spellings_of_one_word_share_a_key(one: str, other: str) -> None:
    assert word(one).key == word(other).key


def test_kana_keep_their_voicing_marks() -> None:
    assert word("ガ").key != word("カ").key


def test_a_run_ends_at_stop_words_and_punctuation() -> None:
    runs = content_runs("event loop of the partial index, query planner")
    assert [[word.text for word in run] for run in runs] == [
        ["event", "loop"],
        ["partial", "index"],
        ["query", "planner"],
    ]


@given(st.text(max_size=400))
def test_any_text_gives_words_with_keys(text: str) -> None:
    for run in content_runs(text):
        assert run
        assert all(word.key and unicodedata.is_normalized("NFC", word.key) for word in run)
