"""The stand-in for Auth, seen by the official Python client."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from datetime import UTC, datetime

import httpx
import jwt
import psycopg
import pytest
from supabase import Client, create_client
from supabase.lib.client_options import SyncClientOptions
from supabase_auth.errors import AuthApiError, AuthWeakPasswordError

from bridge.local.running import RunningStack

PASSWORD = "correct horse"


@pytest.fixture(params=["anon_key", "publishable_key"])
def client(stack: RunningStack, request: pytest.FixtureRequest) -> Iterator[Client]:
    with httpx.Client() as http:
        yield create_client(stack.url, getattr(stack, request.param), SyncClientOptions(httpx_client=http))


@pytest.fixture(params=["service_key", "secret_key"])
def admin(stack: RunningStack, request: pytest.FixtureRequest) -> Iterator[Client]:
    with httpx.Client() as http:
        yield create_client(stack.url, getattr(stack, request.param), SyncClientOptions(httpx_client=http))


@pytest.fixture
def email() -> str:
    return f"user-{secrets.token_hex(6)}@example.com"


def code_of(error: pytest.ExceptionInfo[AuthApiError]) -> tuple[int, str | None]:
    return error.value.status, error.value.code


def test_an_anonymous_user_gets_a_token_with_gotrues_claims(stack: RunningStack, client: Client) -> None:
    signed_in = client.auth.sign_in_anonymously({"options": {"data": {"theme": "dark"}}})
    assert signed_in.user is not None
    assert signed_in.session is not None
    claims = jwt.decode(signed_in.session.access_token, stack.jwt_secret, ["HS256"], audience="authenticated")
    assert claims["iss"] == f"{stack.url}/auth/v1"
    assert (claims["sub"], claims["role"]) == (signed_in.user.id, "authenticated")
    assert (claims["is_anonymous"], claims["email"]) == (True, "")
    assert claims["user_metadata"] == {"theme": "dark"}
    assert claims["amr"][0]["method"] == "anonymous"
    assert claims["session_id"]
    assert claims["exp"] - claims["iat"] == signed_in.session.expires_in == 3600


def test_sign_up_and_password(client: Client, email: str) -> None:
    created = client.auth.sign_up({"email": email.upper(), "password": PASSWORD})
    signed_in = client.auth.sign_in_with_password({"email": email, "password": PASSWORD})
    assert created.user is not None
    assert signed_in.user is not None
    assert (signed_in.user.id, signed_in.user.email) == (created.user.id, email)
    assert signed_in.user.app_metadata == {"provider": "email", "providers": ["email"]}
    assert not signed_in.user.is_anonymous
    assert [identity.provider for identity in signed_in.user.identities or []] == ["email"]


def test_wrong_credentials_tell_nothing_about_the_account(client: Client, email: str) -> None:
    client.auth.sign_up({"email": email, "password": PASSWORD})
    with pytest.raises(AuthApiError) as wrong:
        client.auth.sign_in_with_password({"email": email, "password": "wrong"})
    with pytest.raises(AuthApiError) as unknown:
        client.auth.sign_in_with_password({"email": f"no-{email}", "password": PASSWORD})
    assert code_of(wrong) == code_of(unknown) == (400, "invalid_credentials")


def test_sign_ups_that_cannot_be_are_refused(client: Client, email: str) -> None:
    client.auth.sign_up({"email": email, "password": PASSWORD})
    with pytest.raises(AuthApiError) as again:
        client.auth.sign_up({"email": email, "password": PASSWORD})
    assert code_of(again) == (422, "user_already_exists")
    with pytest.raises(AuthWeakPasswordError):
        client.auth.sign_up({"email": f"other-{email}", "password": "short"})
    with pytest.raises(AuthApiError) as malformed:
        client.auth.sign_up({"email": "no address", "password": PASSWORD})
    assert code_of(malformed) == (400, "validation_failed")


def test_errors_have_the_older_shape_for_older_clients(stack: RunningStack) -> None:
    answer = httpx.post(f"{stack.url}/auth/v1/token?grant_type=password", json={})
    assert answer.status_code == 400
    assert answer.json() == {
        "code": 400,
        "error_code": "invalid_credentials",
        "msg": "Invalid login credentials",
    }


def test_a_refresh_token_is_good_once(stack: RunningStack, client: Client) -> None:
    first = client.auth.sign_in_anonymously().session
    assert first is not None
    second = client.auth.refresh_session().session
    assert second is not None
    assert second.refresh_token != first.refresh_token

    def use(token: str) -> httpx.Response:
        address = f"{stack.url}/auth/v1/token?grant_type=refresh_token"
        return httpx.post(address, json={"refresh_token": token})

    # Two tabs may refresh at the same moment: within 10 s the old token leads to the newest one.
    assert use(first.refresh_token).json()["refresh_token"] == second.refresh_token
    with psycopg.connect(stack.database_url, autocommit=True) as connection:
        connection.execute(
            "update auth.refresh_tokens set revoked_at = revoked_at - interval '11 s' where token = %s",
            (first.refresh_token,),
        )
    assert use(first.refresh_token).json()["error_code"] == "refresh_token_already_used"
    # Somebody else has the old token: the session is over for both.
    assert use(second.refresh_token).json()["error_code"] == "refresh_token_not_found"


def test_a_user_reads_and_changes_his_account(client: Client, email: str) -> None:
    client.auth.sign_in_anonymously({"options": {"data": {"a": 1, "b": 2}}})
    changed = client.auth.update_user({"email": email, "password": PASSWORD, "data": {"b": None, "c": 3}})
    assert changed.user.user_metadata == {"a": 1, "c": 3}
    assert not changed.user.is_anonymous
    seen = client.auth.get_user()
    assert seen is not None
    assert seen.user.email == email
    with pytest.raises(AuthApiError) as same:
        client.auth.update_user({"password": PASSWORD})
    assert code_of(same) == (422, "same_password")


def test_after_sign_out_the_session_is_over(client: Client) -> None:
    session = client.auth.sign_in_anonymously().session
    assert session is not None
    client.auth.sign_out()
    with pytest.raises(AuthApiError) as over:
        client.auth.get_user(session.access_token)
    assert code_of(over) == (403, "session_not_found")


def test_the_service_key_manages_users(admin: Client, client: Client, email: str) -> None:
    created = admin.auth.admin.create_user(
        {"email": email, "password": PASSWORD, "email_confirm": True, "app_metadata": {"plan": "pro"}}
    ).user
    assert created.app_metadata["plan"] == "pro"
    assert created.email_confirmed_at is not None
    assert created.email_confirmed_at <= datetime.now(UTC)
    assert client.auth.sign_in_with_password({"email": email, "password": PASSWORD}).session
    assert created.id in [user.id for user in admin.auth.admin.list_users(per_page=1000)]
    assert admin.auth.admin.get_user_by_id(created.id).user.email == email
    admin.auth.admin.delete_user(created.id)
    with pytest.raises(AuthApiError) as gone:
        admin.auth.admin.get_user_by_id(created.id)
    assert code_of(gone) == (404, "user_not_found")


def test_nobody_else_manages_users(client: Client) -> None:
    with pytest.raises(AuthApiError) as key:
        client.auth.admin.list_users()
    client.auth.sign_in_anonymously()
    with pytest.raises(AuthApiError) as user:
        client.auth.admin.list_users()
    assert code_of(key) == code_of(user) == (403, "not_admin")


@pytest.mark.parametrize(
    "body",
    [b"{", b"[]", b'"x"', b'{"email": 1, "password": 2}', b'{"data": []}', b'{"data": {"x": "\\u0000"}}'],
)
def test_hostile_bodies_are_refused_with_a_reason(stack: RunningStack, body: bytes) -> None:
    answer = httpx.post(f"{stack.url}/auth/v1/signup", content=body)
    assert answer.status_code == 400
    assert answer.json()["msg"]
