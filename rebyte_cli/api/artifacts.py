"""Files that a workspace hands out. The paths are documented, every shape is a guess."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..errors import BadUsage, BrokenAnswer
from .base import Calls
from .origin import check_id


class Artifacts(Calls):
    """The calls under `/workspaces/{id}/artifacts`."""

    def list_artifacts(self, workspace_id: str) -> list[dict[str, Any]]:
        """The artifacts; an entry has `filename` or `name`, perhaps `size`, a URL (inferred).

        Taken from a bare list, or from `data`, `artifacts` or `files` of an object.
        """
        return self._rows(_path(workspace_id), "data", "artifacts", "files")

    def get_artifact(
        self,
        workspace_id: str,
        name: str,
        target: Path,
        *,
        overwrite: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """Download one into `target`, which appears only when it is whole.

        A redirect is followed, without the key when it leaves the API (inferred).
        """
        path = _path(workspace_id, name)
        self.transport.download(path, target, overwrite=overwrite, progress=progress)

    def artifact_size(self, workspace_id: str, name: str) -> int | None:
        """The size of one in bytes, without its body; None where the service does not tell."""
        return self.transport.length(_path(workspace_id, name))

    def put_artifacts(
        self,
        workspace_id: str,
        paths: Iterable[str | Path],
        *,
        progress: Callable[[int], None] | None = None,
    ) -> list[dict[str, Any]]:
        """Upload files in one request: multipart, parts named `files` (inferred from the API
        inside the VM). Returns what the answer lists, possibly nothing. Memory stays flat.
        """
        files = [Path(path) for path in paths]
        if not files:
            raise BadUsage("no files to upload")
        answer = self.transport.post_files(_path(workspace_id), "files", files, progress=progress)
        rows = answer.data
        if isinstance(rows, dict):
            rows = next((rows[n] for n in ("data", "artifacts", "files") if n in rows), [])
        return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []

    def artifact_upload_urls(
        self, workspace_id: str, files: Iterable[Mapping[str, Any]]
    ) -> list[dict[str, Any]]:
        """Signed URLs for large files, in the order of `files` (`name`, `contentType`, optional
        `public`): `uploadUrl`, perhaps `publicUrl` (inferred). Use `transport.put_signed`.
        """
        wanted = [dict(file) for file in files]
        path = f"{_path(workspace_id)}/upload-url"
        answer = self._object("POST", path, body={"files": wanted})
        urls = answer.get("urls")
        if not isinstance(urls, list) or len(urls) != len(wanted):
            raise BrokenAnswer(f"POST {path}: not one URL per file", response=answer)
        for url in urls:
            if not isinstance(url, dict) or not isinstance(url.get("uploadUrl"), str):
                raise BrokenAnswer(f"POST {path}: an entry holds no uploadUrl", response=answer)
        return urls

    def delete_artifact(self, workspace_id: str, name: str) -> None:
        """Remove one artifact (path documented, answer inferred)."""
        self._delete(_path(workspace_id, name))

    def delete_artifacts(self, workspace_id: str) -> None:
        """Remove every artifact of a workspace (path documented, answer inferred)."""
        self._delete(_path(workspace_id))


def _path(workspace_id: str, name: str | None = None) -> str:
    path = f"/workspaces/{check_id(workspace_id, 'workspace id')}/artifacts"
    if name is None:
        return path
    if name in ("", ".", "..") or "\0" in name:
        # The HTTP library would resolve these, quoted or not, into another path.
        raise BadUsage(f"{name!r} is not the name of an artifact")
    try:
        return f"{path}/{quote(name, safe='')}"
    except UnicodeEncodeError:
        raise BadUsage(f"{name!r} is not the name of an artifact") from None
