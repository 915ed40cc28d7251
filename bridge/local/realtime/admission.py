"""May this client join this channel? Checked in the real server's order, so its first refusal is ours."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import TYPE_CHECKING

from .authorization import BROADCAST, PRESENCE, Policies
from .channel import NO_DATABASE, Channel, no_permission
from .database import DatabaseUnavailable
from .frames import Message
from .joining import BadJoin, JoinConfig, parse_join
from .replay import BadReplay, StoredMessage
from .tokens import Claims, TokenRefused

if TYPE_CHECKING:
    from .socket import Socket
    from .tenant import Tenant


class JoinRefused(Exception):
    """A join is answered with `status: error` and this reason; one kind also costs the client its socket."""

    def __init__(self, reason: str, *, closes_socket: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.closes_socket = reason, closes_socket


async def admit(tenant: Tenant, socket: Socket, join: Message) -> tuple[Channel, list[StoredMessage]]:
    """The channel that a join opens, and the stored messages it asked for; raises JoinRefused."""
    name = join.topic.removeprefix("realtime:")
    config = _read_config(name, join)
    _check_limits(tenant, socket, config)
    token = _token(config, socket)
    try:
        claims = tenant.tokens.read(token)
        policies = await _policies(tenant, name, config, claims)
        stored = await _stored(tenant, name, config, policies)
    except TokenRefused as refusal:
        raise JoinRefused(refusal.join) from None
    except DatabaseUnavailable:
        raise JoinRefused(f"UnableToConnectToProject: {NO_DATABASE}") from None
    tenant.usage.users.add(socket)
    return Channel(tenant, socket, join, config, token, claims, policies), stored


def _read_config(name: str, join: Message) -> JoinConfig:
    if not name:
        raise JoinRefused("TopicNameRequired: You must provide a topic name")
    try:
        config = parse_join(name, join.payload)
    except BadJoin as error:
        raise JoinRefused(f"UnknownErrorOnChannel: {error}") from None
    return config if config.presence_key else replace(config, presence_key=str(uuid.uuid1()))


def _check_limits(tenant: Tenant, socket: Socket, config: JoinConfig) -> None:
    usage, limits = tenant.usage, tenant.limits
    if limits.private_only and not config.private:
        raise JoinRefused("PrivateOnly: This project only allows private channels")
    if socket not in usage.users and usage.has_too_many_users:
        raise JoinRefused("ConnectionRateLimitReached: Too many connected users")
    if usage.has_too_many_joins:
        raise JoinRefused("ClientJoinRateLimitReached: Too many joins per second", closes_socket=True)
    usage.joins.add(usage.clock())
    if socket.channel_count >= limits.channels_per_client:
        raise JoinRefused("ChannelRateLimitReached: Too many channels")


def _token(config: JoinConfig, socket: Socket) -> str:
    if config.access_token is None or config.access_token.startswith("sb_"):
        return socket.token
    return config.access_token


async def _policies(tenant: Tenant, name: str, config: JoinConfig, claims: Claims) -> Policies:
    if not config.private:
        return Policies.everything()
    extensions = [BROADCAST, PRESENCE] if config.presence_enabled else [BROADCAST]
    answer = await tenant.authorizer.reads(name, claims, extensions)
    policies = Policies(answer[BROADCAST], answer.get(PRESENCE))
    if not policies.may_join or (config.replay is not None and not policies.broadcast_read):
        raise JoinRefused(f"Unauthorized: {no_permission(name)}")
    return policies


async def _stored(tenant: Tenant, name: str, config: JoinConfig, policies: Policies) -> list[StoredMessage]:
    if config.replay is None:
        return []
    if not config.private:
        raise JoinRefused("UnableToReplayMessages: Replay is not allowed for public channels")
    try:
        return await tenant.replay.messages(name, config.replay)
    except BadReplay:
        raise JoinRefused("UnableToReplayMessages: Replay params are not valid") from None
