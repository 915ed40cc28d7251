"""The demo's posts in the shapes of the providers' APIs, with the fields that an importer may read."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any
from xml.etree import ElementTree
from zlib import crc32

from tasks.demo.demo_posts import DemoAccount, DemoPost
from tasks.demo.markup import feed_html, hackernews_html, mastodon_html, reddit_html

_ATOM = "http://www.w3.org/2005/Atom"
_CONTENT = "http://purl.org/rss/1.0/modules/content/"
ElementTree.register_namespace("", _ATOM)
ElementTree.register_namespace("content", _CONTENT)


def iso(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def account_number(account: DemoAccount) -> str:
    return str(10**17 + crc32(account.handle.encode()))


def mastodon_account(account: DemoAccount, server: str) -> dict[str, Any]:
    return {
        "id": account_number(account),
        "username": account.handle,
        "acct": account.handle,
        "display_name": account.person,
        "url": f"{server}/@{account.handle}",
        "bot": False,
        "locked": False,
        "note": "",
        "statuses_count": len(account.posts),
    }


def mastodon_status(account: DemoAccount, post: DemoPost, server: str) -> dict[str, Any]:
    number = str(post.number)
    status: dict[str, Any] = {
        "id": number,
        "created_at": iso(post.at),
        "edited_at": iso(post.at) if post.edited else None,
        "in_reply_to_id": None,
        "sensitive": False,
        "spoiler_text": "",
        "visibility": "public",
        "language": post.language,
        "uri": f"{server}/users/{account.handle}/statuses/{number}",
        "url": f"{server}/@{account.handle}/{number}",
        "content": mastodon_html(post.text, server),
        "reblog": None,
        "account": mastodon_account(account, server),
        "media_attachments": [],
        "mentions": [],
        "emojis": [],
    }
    if post.boost_of:
        other = {"id": "1", "username": post.boost_of, "acct": f"{post.boost_of}@elsewhere.example"}
        status |= {"content": "", "reblog": {**status, "id": str(post.number - 7), "account": other}}
    return status


def bluesky_item(account: DemoAccount, post: DemoPost) -> dict[str, Any]:
    author = _bluesky_author(post.boost_of or account.handle, "" if post.boost_of else account.person)
    uri = f"at://{author['did']}/app.bsky.feed.post/3k{post.number}"
    item: dict[str, Any] = {
        "post": {
            "uri": uri,
            "cid": f"bafyrei{crc32(uri.encode()):010d}",
            "author": author,
            "record": {
                "$type": "app.bsky.feed.post",
                "createdAt": iso(post.at),
                "langs": [post.language],
                "text": post.text,
            },
            "indexedAt": iso(post.at),
            "likeCount": post.number % 90,
            "repostCount": post.number % 9,
            "replyCount": post.number % 7,
        }
    }
    if post.boost_of:
        by = _bluesky_author(account.handle, account.person)
        item["reason"] = {"$type": "app.bsky.feed.defs#reasonRepost", "by": by, "indexedAt": iso(post.at)}
    return item


def hackernews_hit(account: DemoAccount, post: DemoPost) -> dict[str, Any]:
    number = post.number // 1_000 % 10**8
    kind = "comment" if post.story else "story"
    hit = {
        "objectID": str(number),
        "author": account.handle,
        "created_at": post.at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "created_at_i": int(post.at.timestamp()),
        "_tags": [kind, f"author_{account.handle}", f"story_{number}"],
        "points": None if post.story else 1 + post.number % 200,
    }
    if post.story:
        return hit | {
            "comment_text": hackernews_html(post.text),
            "story_title": post.story,
            "story_id": number - 40,
        }
    told = {"title": post.title, "story_text": hackernews_html(post.text)}
    return hit | told | ({"url": post.url} if post.url else {})


def reddit_child(account: DemoAccount, post: DemoPost) -> dict[str, Any]:
    number = f"{post.number // 1_000:x}"
    created = post.at.timestamp()
    data: dict[str, Any] = {
        "id": number,
        "author": account.handle,
        "subreddit": post.community,
        "created_utc": created,
        "edited": created + 600 if post.edited else False,
        "score": 1 + post.number % 60,
    }
    if not post.title:
        data |= {
            "name": f"t1_{number}",
            "body": post.text,
            "body_html": reddit_html(post.text),
            "link_id": "t3_demo",
        }
        data |= {"permalink": f"/r/{post.community}/comments/demo/_/{number}/"}
        return {"kind": "t1", "data": data}
    data |= {"name": f"t3_{number}", "title": post.title, "selftext": post.text, "is_self": True}
    data |= {
        "selftext_html": reddit_html(post.text),
        "permalink": f"/r/{post.community}/comments/{number}/_/",
    }
    return {"kind": "t3", "data": data}


def rss(account: DemoAccount, posts: Sequence[DemoPost], server: str) -> bytes:
    root = ElementTree.Element("rss", version="2.0")
    channel = ElementTree.SubElement(root, "channel")
    _children(channel, title=account.title, link=f"{server}/{account.handle}", description=account.title)
    for post in posts:
        item = ElementTree.SubElement(channel, "item")
        link = f"{server}/{account.handle}/{post.number}"
        _children(item, title=post.title, link=link, pubDate=format_datetime(post.at, usegmt=True))
        ElementTree.SubElement(item, "guid", isPermaLink="false").text = _tag_uri(account, post)
        _children(
            item, description=post.text.split("\n\n")[0], **{f"{{{_CONTENT}}}encoded": feed_html(post.text)}
        )
    return _xml(root)


def atom(account: DemoAccount, posts: Sequence[DemoPost], server: str) -> bytes:
    root = ElementTree.Element(f"{{{_ATOM}}}feed")
    updated = iso(posts[0].at) if posts else "1970-01-01T00:00:00Z"
    _atom(root, title=account.title, id=f"{server}/{account.handle}", updated=updated)
    _atom(ElementTree.SubElement(root, f"{{{_ATOM}}}author"), name=account.person)
    for post in posts:
        entry = ElementTree.SubElement(root, f"{{{_ATOM}}}entry")
        link = f"{server}/{account.handle}/{post.number}"
        _atom(
            entry, title=post.title, id=_tag_uri(account, post), published=iso(post.at), updated=iso(post.at)
        )
        ElementTree.SubElement(entry, f"{{{_ATOM}}}link", href=link)
        ElementTree.SubElement(entry, f"{{{_ATOM}}}content", type="html").text = feed_html(post.text)
    return _xml(root)


def _tag_uri(account: DemoAccount, post: DemoPost) -> str:
    """An id without the server's port, which is another one in every run."""
    return f"tag:taskcast.example,2026:{account.handle}/{post.number}"


def _xml(root: ElementTree.Element) -> bytes:
    written: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return written


def _bluesky_author(handle: str, name: str) -> dict[str, str]:
    return {"did": f"did:plc:{crc32(handle.encode()):024x}", "handle": handle, "displayName": name}


def _children(parent: ElementTree.Element, **texts: str) -> None:
    for name, text in texts.items():
        ElementTree.SubElement(parent, name).text = text


def _atom(parent: ElementTree.Element, **texts: str) -> None:
    _children(parent, **{f"{{{_ATOM}}}{name}": text for name, text in texts.items()})
