"""Counts the entries of recorded feeds without a feed parser, to check the importer that uses one."""

from __future__ import annotations

import contextlib
import gzip
import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from html import unescape

_ENTRY = re.compile(
    r"<(?:\w+:)?(item|entry)[\s>/](?!\s*=)(.*?)(?=<(?:\w+:)?(?:item|entry)[\s>/]|\Z)", re.DOTALL | re.I
)
_IDS = [
    re.compile(
        rf"<(?:\w+:)?{name}\b[^>]*>\s*(?:<!\[CDATA\[)?\s*(.*?)\s*(?:\]\]>)?\s*</(?:\w+:)?{name}\s*>",
        re.DOTALL,
    )
    for name in ("guid", "id", "link")
]
_FEED = re.compile(r"<(?:\w+:)?(rss|feed|rdf|channel)\b", re.I)


@dataclass(frozen=True)
class FeedContent:
    """What a feed holds: the ids of its entries (empty where an entry has none), or that it is none."""

    ids: tuple[str, ...]
    is_feed: bool = True

    @property
    def posts(self) -> int:
        """How many posts an import stores of it: each id once, and each entry without one."""
        return len(set(filter(None, self.ids))) + self.ids.count("")


def feed_content(body: bytes) -> FeedContent:
    """The entries of a feed of any format, broken ones as far as a plain search for their tags finds them."""
    body = (gzip.decompress(body) if body.startswith(b"\x1f\x8b") else body).strip()
    if body.lstrip(b"\xef\xbb\xbf").startswith(b"{"):
        return _of_json(body)
    root = _parsed(body)
    if root is None:
        return _of_broken(body.decode("utf-8", "replace"))
    named = [element for element in root.iter() if _name(element) in ("item", "entry")]
    elements = [element for element in named if _id(element) or _has_text(_text(element))]
    return FeedContent(
        tuple(map(_id, elements)), bool(elements) or _name(root) in ("rss", "feed", "RDF", "channel")
    )


def _parsed(body: bytes) -> ET.Element | None:
    """The document's root; its tags are ASCII, so in an encoding that the parser lacks any other will do."""
    with contextlib.suppress(ET.ParseError, ValueError, LookupError):
        return ET.fromstring(body)  # noqa: S314  # recordings of one's own choice, read for a check only
    encoding = "utf-16-be" if body.startswith(b"\x00") else "latin-1"
    text = re.sub(r"^\s*<\?xml[^>]*\?>", "", body.decode(encoding, "replace"))
    with contextlib.suppress(ET.ParseError):
        return ET.fromstring(text)  # noqa: S314
    return None


def _of_json(body: bytes) -> FeedContent:
    try:
        feed = json.loads(body.decode("utf-8-sig"))
    except ValueError:
        return FeedContent((), is_feed=False)
    ids = tuple(str(item.get("id") or item.get("url") or "") for item in feed.get("items") or [])
    return FeedContent(ids, "jsonfeed" in str(feed.get("version")))


def _of_broken(text: str) -> FeedContent:
    text = re.sub("<!--.*?-->", "", text, flags=re.DOTALL)
    entries = [match[2] for match in _ENTRY.finditer(text)]
    ids = tuple(_found_id(entry) for entry in entries if _has_text(entry))
    return FeedContent(ids, bool(ids))


def _has_text(markup: str) -> bool:
    return bool(re.sub(r"<[^>]*(?:>|\Z)|&\w+;", "", unescape(markup)).strip())


def _found_id(entry: str) -> str:
    return next((unescape(match[1]) for pattern in _IDS if (match := pattern.search(entry)) and match[1]), "")


def _id(element: ET.Element) -> str:
    return next(filter(None, _candidates(element)), "")


def _candidates(element: ET.Element) -> Iterator[str]:
    for wanted in ("guid", "id", "link"):
        for child in element:
            if _name(child) == wanted and child.attrib.get("rel", "alternate") == "alternate":
                yield (child.text or "").strip() or child.attrib.get("href", "")
    yield from (value for key, value in element.attrib.items() if key.endswith("}about"))


def _text(element: ET.Element) -> str:
    texts = ("title", "description", "summary", "content", "encoded")
    return "".join("".join(child.itertext()) for child in element if _name(child) in texts)


def _name(element: ET.Element) -> str:
    return element.tag.rsplit("}", 1)[-1] if isinstance(element.tag, str) else ""
