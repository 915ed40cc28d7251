"""The token bucket stays below its rate, whoever asks and however often."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.publisher.budget import TokenBucket


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@given(st.floats(0.5, 3_000), st.lists(st.tuples(st.floats(0, 3), st.floats(0.1, 50)), max_size=60))
def test_no_second_sees_more_than_two_seconds_worth(rate: float, asks: list[tuple[float, float]]) -> None:
    clock = Clock()
    bucket = TokenBucket(rate, clock)
    spent: list[tuple[float, float]] = []
    for pause, tokens in asks:
        clock.now += pause
        if tokens <= bucket.available():
            bucket.take(tokens)
            spent.append((clock.now, tokens))
    for start, _ in spent:
        within = sum(tokens for at, tokens in spent if start <= at < start + 1)
        assert within <= 2 * rate * (1 + 1e-9)
    if spent:
        seconds = clock.now - 100
        assert sum(tokens for _, tokens in spent) <= rate * (seconds + 1) * (1 + 1e-9)


def test_the_delay_is_until_the_tokens_are_there() -> None:
    clock = Clock()
    bucket = TokenBucket(10, clock)
    bucket.take(10)
    assert bucket.delay(2) == pytest.approx(0.2)
    clock.now += bucket.delay(2)
    assert bucket.delay(2) == pytest.approx(0, abs=1e-9)


def test_a_debt_is_paid_back_first() -> None:
    clock = Clock()
    bucket = TokenBucket(10, clock)
    bucket.take(15)
    assert bucket.delay(1) == pytest.approx(0.6)


def test_a_price_above_the_rate_is_possible_with_a_full_store() -> None:
    assert TokenBucket(1, Clock()).delay(5) == 0


def test_a_lower_rate_takes_what_is_in_store_too() -> None:
    bucket = TokenBucket(100, Clock())
    bucket.rate = 50
    assert bucket.available() == 50


def test_an_emptied_bucket_fills_again() -> None:
    clock = Clock()
    bucket = TokenBucket(10, clock)
    bucket.empty()
    assert bucket.available() == 0
    clock.now += 1
    assert bucket.available() == 10
