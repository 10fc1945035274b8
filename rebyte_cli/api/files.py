"""Files as input of a task: a slot from the API, then the bytes to an object store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import BadUsage, BrokenAnswer
from .base import Calls

# What a slot has when nothing was declared; the PUT must then say it too (vendor docs).
DEFAULT_TYPE = "application/octet-stream"
LONGEST_NAME = 255  # characters (vendor docs)


class Files(Calls):
    """The call `/files` and what comes after it."""

    def create_file(self, filename: str, content_type: str | None = None) -> dict[str, Any]:
        """A slot for an upload: `id`, `filename` (a unique variant), `uploadUrl`, which is good
        for an hour (vendor docs). A slot that is never used does no harm, so it may go out twice.
        """
        # Bytes of a name that are no UTF-8 cannot be sent; the API changes the name anyway.
        filename = filename.encode(errors="replace").decode()
        if not filename or len(filename) > LONGEST_NAME:
            raise BadUsage(f"a file name has 1 to {LONGEST_NAME} characters")
        body = {"filename": filename}
        if content_type is not None:
            body["contentType"] = content_type
        slot = self._object("POST", "/files", body=body)
        for name in ("id", "filename", "uploadUrl"):
            if not isinstance(slot.get(name), str):
                raise BrokenAnswer(f"POST /files: the answer holds no {name}", response=slot)
        return slot

    def upload_file(
        self,
        path: str | Path,
        *,
        content_type: str | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> dict[str, Any]:
        """Upload a file; returns `{"id", "filename"}` as `create_task(files=…)` takes it.

        The file is read as it is sent, so memory stays flat. `progress` is told of each amount
        of bytes that went out, a negative one when sending starts over. When the store refuses
        the URL as expired, another one is asked for, once. BadUsage for a folder, NotFound for
        no such file; both before anything is sent.
        """
        from .outgoing import file_size
        from .transfer import SlotExpired

        path = Path(path)
        file_size(path)
        sent = 0

        def count(amount: int) -> None:
            nonlocal sent
            sent += amount
            if progress is not None:
                progress(amount)

        try:
            return self._upload(path, content_type, count)
        except SlotExpired:
            count(-sent)
            return self._upload(path, content_type, count)

    def _upload(
        self, path: Path, content_type: str | None, count: Callable[[int], None]
    ) -> dict[str, Any]:
        slot = self.create_file(path.name, content_type)
        self.transport.put_signed(
            slot["uploadUrl"], path, content_type or DEFAULT_TYPE, progress=count
        )
        return {"id": slot["id"], "filename": slot["filename"]}
