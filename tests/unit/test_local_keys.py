"""The keys of a local stack."""

from __future__ import annotations

import jwt
import pytest

from bridge.local.keys import Keys


def test_the_legacy_keys_are_the_well_known_ones_of_the_cli() -> None:
    # Every local front end has these in its environment file.
    assert Keys().anon.endswith(".CRXP1A7WOeoJeXxjNni43kdQwgnWNReilDMblYTn_I0")
    assert Keys().service.endswith(".EGIM96RAZx35lJzdJsyH-qQwv8Hdp7fsn3W0YpN81IU")


def test_a_key_of_the_new_kind_becomes_the_jwt_of_its_role() -> None:
    keys = Keys()
    assert keys.exchange(keys.publishable) == keys.anon
    assert keys.exchange(keys.secret) == keys.service
    assert keys.exchange("anything else") == "anything else"


@pytest.mark.parametrize("kind", ["anon", "service", "publishable", "secret"])
def test_all_four_keys_open_the_gateway(kind: str) -> None:
    keys = Keys()
    assert keys.accepts(getattr(keys, kind))


def test_only_a_token_signed_with_the_secret_opens_the_gateway() -> None:
    keys = Keys()
    claims = {"role": "authenticated", "exp": 1}  # expired: the service behind says so in its own words
    assert keys.accepts(jwt.encode(claims, keys.jwt_secret, "HS256"))
    assert not keys.accepts(jwt.encode(claims, "another-secret-of-at-least-32-characters", "HS256"))
    assert not keys.accepts(keys.secret[:-1])
    assert not keys.accepts("")
