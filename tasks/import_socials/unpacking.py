"""Undoes the compression of an answer, never to more than may be kept.

httpx unpacks each chunk whole, and every coding that the server names: two layers of gzip make gigabytes
of one chunk before anybody can count them.
"""

from __future__ import annotations

import zlib

_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS
_PACKED = frozenset({"gzip", "x-gzip", "deflate"})
_AS_IT_IS = frozenset({"", "identity"})


class Unpacker:
    """Unpacks the chunks of one answer, by its `Content-Encoding`.

    Raises:
        ValueError: a coding that we did not ask for, or several; or, while unpacking, broken data.
    """

    def __init__(self, encoding: str) -> None:
        coding = encoding.strip().lower()
        if coding not in _PACKED | _AS_IT_IS:
            raise ValueError(f"cannot unpack {coding!r:.40}")
        self._packed = zlib.decompressobj(_GZIP_OR_ZLIB) if coding in _PACKED else None
        self._may_be_raw = coding == "deflate"

    def unpack(self, chunk: bytes, most: int) -> bytes:
        """What the chunk adds, cut at one byte more than `most`."""
        if self._packed is None:
            return chunk
        try:
            return self._packed.decompress(chunk, most + 1)
        except zlib.error as error:
            if not self._may_be_raw:
                raise ValueError("broken compression") from error
            # Some servers send deflate without the zlib header that the standard asks for.
            self._may_be_raw, self._packed = False, zlib.decompressobj(-zlib.MAX_WBITS)
            return self.unpack(chunk, most)
