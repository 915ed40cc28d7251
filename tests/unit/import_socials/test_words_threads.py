"""Words are the same whatever thread asks."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from tasks.import_socials.words import stem


def test_stemming_is_safe_in_threads() -> None:
    words = [
        f"{start}{end}" for start in ("run", "index", "bake", "garden") for end in ("ing", "ed", "s", "er")
    ]
    expected = {word: stem.__wrapped__(word) for word in words}
    with ThreadPoolExecutor(8) as pool:
        asked = list(pool.map(lambda word: (word, stem.__wrapped__(word)), words * 500))
    assert all(expected[word] == stemmed for word, stemmed in asked)
