# SPDX-License-Identifier: Apache-2.0
"""The heads of msgpack objects in a file, read one by one; what they announce can be stepped over.

The msgpack library reads whole objects, and one array of the release is larger than many machines' memory. Source of
the codes: the msgpack specification.
"""

from __future__ import annotations

from io import BufferedReader

_LENGTHS = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4, 0xDC: 2, 0xDD: 4, 0xDE: 2, 0xDF: 4,
            0xC7: 1, 0xC8: 2, 0xC9: 4, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8}  # fmt: skip
"""Code -> bytes of the length (or number) behind it."""
_FIXED_EXTENSIONS = {0xD4: 1, 0xD5: 2, 0xD6: 4, 0xD7: 8, 0xD8: 16}
_MOST_ENTRIES = 1024
"""Longest list, map or name that makes sense in a tree of weights."""


class Damage(Exception):
    """The bytes are not what they should be; the message says how."""


class HeadReader:
    """Reads heads of msgpack objects from the start of a file on.

    Attributes:
        position: of the next byte.
        size: of the file [bytes].
    """

    def __init__(self, file: BufferedReader, size: int):
        self._file, self.size, self.position = file, size, 0

    def skip(self, count: int) -> None:
        """Step over bytes."""
        if self.position + count > self.size:
            raise Damage(f"{count} bytes are announced, {self.size - self.position} are there")
        self.position += count
        self._file.seek(self.position)

    def array(self, wanted: int | None = None) -> int:
        """Read the head of a list and return its length, which must be `wanted` if that is given."""
        code = self._byte()
        length = code & 0x0F if 0x90 <= code <= 0x9F else self._length(code, (0xDC, 0xDD), "list")
        if length > _MOST_ENTRIES or (wanted is not None and length != wanted):
            raise Damage(f"a list has {length} entries")
        return length

    def is_map(self) -> bool:
        """Return whether the next object is a map."""
        code = self._byte()
        self.position -= 1
        self._file.seek(self.position)
        return 0x80 <= code <= 0x8F or code in (0xDE, 0xDF)

    def map(self) -> int:
        """Read the head of a map and return its length."""
        code = self._byte()
        length = code & 0x0F if 0x80 <= code <= 0x8F else self._length(code, (0xDE, 0xDF), "map")
        if length > _MOST_ENTRIES:
            raise Damage(f"a map has {length} entries")
        return length

    def raw(self) -> int:
        """Read the head of bytes and return their number; older writers mark them as text."""
        code = self._byte()
        if 0xA0 <= code <= 0xBF:
            return code & 0x1F
        return self._length(code, (0xC4, 0xC5, 0xC6, 0xD9, 0xDA, 0xDB), "bytes")

    def text(self) -> str:
        """Read a name."""
        length = self.raw()
        if length > _MOST_ENTRIES:
            raise Damage(f"a name has {length} characters")
        try:
            return self._take(length).decode("utf-8")
        except UnicodeDecodeError as error:
            raise Damage("a name is no text") from error

    def number(self) -> int:
        """Read a number that is not negative."""
        code = self._byte()
        return code if code <= 0x7F else self._length(code, (0xCC, 0xCD, 0xCE, 0xCF), "number")

    def truth(self) -> bool:
        """Read a boolean."""
        if (code := self._byte()) not in (0xC2, 0xC3):
            raise Damage(f"code {code:#04x} is no boolean")
        return code == 0xC3

    def extension(self) -> tuple[int, int]:
        """Read the head of an extension and return its type and length."""
        code = self._byte()
        length = _FIXED_EXTENSIONS.get(code)
        if length is None:
            length = self._length(code, (0xC7, 0xC8, 0xC9), "array")
        return self._byte(), length

    def _length(self, code: int, codes: tuple[int, ...], what: str) -> int:
        if code not in codes:
            raise Damage(f"code {code:#04x} is no {what}")
        return int.from_bytes(self._take(_LENGTHS[code]), "big")

    def _byte(self) -> int:
        return self._take(1)[0]

    def _take(self, count: int) -> bytes:
        data = self._file.read(count)
        if len(data) != count:
            raise Damage("the file ends")
        self.position += count
        return data
