"""Bodies on their way out: read as they are sent, so that memory stays flat."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import BadUsage, NotFound

if TYPE_CHECKING:
    from .wire import Wire


class Outgoing:
    """A file, or bytes, on its way out: exactly `size` bytes, counted.

    A file that shrinks meanwhile cannot be sent whole; one that grows is sent as it was.
    """

    def __init__(
        self, source: Path | bytes, size: int, wire: Wire, progress: Callable[[int], None] | None
    ) -> None:
        self._source = source
        self._file: Any = None
        self._left = size
        self._wire = wire
        self._progress = progress

    def read(self, amount: int = -1) -> bytes:
        """At most `amount` bytes (all that is left for -1); none at the end."""
        if self._left == 0:
            return b""
        self._wire.left()
        if self._file is None:
            # Opened only when its turn comes: a form of a thousand files holds one open.
            self._file = _opened(self._source)
        wanted = self._left if amount < 0 else min(amount, self._left)
        try:
            data: bytes = self._file.read(wanted)
        except OSError as error:  # a broken disk is no fault of the network
            raise BadUsage(f"cannot read {self._source!r}: {error.strerror}") from None
        self._left -= len(data)
        if not data or self._left == 0:
            self._file.close()
        if not data:
            raise BadUsage("the file became shorter while it was being sent")
        if self._progress is not None:
            self._progress(len(data))
        return data


def _opened(source: Path | bytes) -> Any:
    import io

    if isinstance(source, bytes):
        return io.BytesIO(source)
    try:
        return source.open("rb")
    except OSError as error:
        raise BadUsage(f"cannot read {source}: {error.strerror}") from None


def file_size(path: Path) -> int:
    """The size of a plain file in bytes; BadUsage for a folder or a pipe, NotFound for none."""
    try:
        info = path.stat()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "not a file name"
        raise NotFound(f"cannot read {path}: {why}") from None
    import stat

    if stat.S_ISDIR(info.st_mode):
        raise BadUsage(f"{path} is a folder; give a file")
    if not stat.S_ISREG(info.st_mode):
        raise BadUsage(f"{path} is not a plain file")
    if not os.access(path, os.R_OK):
        raise NotFound(f"cannot read {path}: Permission denied")
    return info.st_size


class Form:
    """Files as multipart/form-data, each in a part named `part`.

    `size` is that of the whole body in bytes. Raises as `file_size` does.
    """

    def __init__(
        self, part: str, files: Sequence[Path], progress: Callable[[int], None] | None
    ) -> None:
        self._boundary = os.urandom(16).hex()
        self._progress = progress
        self._sent = 0
        self._parts: list[tuple[bytes, Path, int]] = [
            (self._head(part, path), path, file_size(path)) for path in files
        ]
        self._tail = f"--{self._boundary}--\r\n".encode()
        self.content_type = f"multipart/form-data; boundary={self._boundary}"
        self.size = len(self._tail) + sum(len(head) + size + 2 for head, _, size in self._parts)

    def open(self, wire: Wire) -> _FormReader:
        """A reader of the whole body, from its first byte."""
        wire.untimed()
        if self._progress is not None and self._sent:
            self._progress(-self._sent)
        self._sent = 0
        pieces: list[Any] = []
        for head, path, size in self._parts:
            pieces += [head, Outgoing(path, size, wire, self._count), b"\r\n"]
        return _FormReader([*pieces, self._tail])

    def _count(self, amount: int) -> None:
        self._sent += amount
        if self._progress is not None:
            self._progress(amount)

    def _head(self, part: str, path: Path) -> bytes:
        import mimetypes

        # As browsers write it: quotes and line breaks would end the header.
        name = path.name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
        kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        return (
            f"--{self._boundary}\r\n"
            f'Content-Disposition: form-data; name="{part}"; filename="{name}"\r\n'
            f"Content-Type: {kind}\r\n\r\n"
        ).encode(errors="replace")


class _FormReader:
    def __init__(self, pieces: list[Any]) -> None:
        self._pieces = pieces

    def read(self, amount: int = -1) -> bytes:
        while self._pieces:
            piece = self._pieces[0]
            if isinstance(piece, bytes):
                self._pieces.pop(0)
                return piece
            data: bytes = piece.read(amount)
            if data:
                return data
            self._pieces.pop(0)
        return b""
