"""A network that goes away while a line's file is uploaded: the line is not sent without it."""

from __future__ import annotations

from pathlib import Path

import pytest

from rebyte_cli.errors import NetworkError

from .servers import RawServer
from .workshop import MADE, Workshop


@pytest.mark.usefixtures("home")
def test_a_line_whose_file_could_not_go_up_is_not_sent(tmp_path: Path) -> None:
    def unreachable(_path: str) -> None:
        raise NetworkError("no route")

    with RawServer(lambda _request: MADE) as server:
        shop = Workshop(tmp_path, server)
        shop.create(0)  # so that it is no wrong address
        sent = len(server.requests)
        shop.upload = unreachable
        assert shop.create(1) == ("unsent", None)
        assert shop.gate.is_down
        shop.close()
        assert len(server.requests) == sent
        assert shop.reports.empty()
        records = (tmp_path / "j").read_text()
        assert '"line":2' not in records
