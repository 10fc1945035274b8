"""The receiver of deliveries: what is taken, what is refused, and that junk does not hurt it."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from urllib.parse import urlsplit

import pytest

from rebyte_cli.errors import BadUsage
from rebyte_cli.tasks.webhook_receiver import CONNECTIONS, LARGEST_BODY, WebhookReceiver


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    """One that listens on a free port; deliveries stay in its queue."""
    made = WebhookReceiver(0)
    made._server.start()
    yield made
    made._server.stop()


def talk(receiver: WebhookReceiver, data: bytes) -> bytes:
    """Everything that the receiver answers to these bytes."""
    with socket.create_connection(("127.0.0.1", urlsplit(receiver.url).port), timeout=60) as line:
        line.sendall(data)
        line.shutdown(socket.SHUT_WR)
        found = b""
        try:
            while piece := line.recv(65536):
                found += piece
        except ConnectionError:
            pass
        return found


def post(body: bytes, **headers: str) -> bytes:
    fields = {
        "Host": "localhost",
        "Content_Type": "application/json",
        "Content_Length": str(len(body)),
        **headers,
    }
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
    return f"POST /any/path HTTP/1.1\r\n{lines}\r\n".encode() + body


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/") else 0


def test_a_json_object_is_taken(receiver: WebhookReceiver) -> None:
    assert status(talk(receiver, post(b'{"taskId": "t1", "more": [1]}'))) == 200
    assert receiver.deliveries.get_nowait() == {"taskId": "t1", "more": [1]}


def test_a_chunked_body_is_taken(receiver: WebhookReceiver) -> None:
    fields = b"Host: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked"
    head = b"POST / HTTP/1.1\r\n" + fields + b"\r\n\r\n"
    answer = talk(receiver, head + b'5\r\n{"a":\r\n3;x=y\r\n 1}\r\n0\r\n\r\n')
    assert status(answer) == 200
    assert receiver.deliveries.get_nowait() == {"a": 1}


@pytest.mark.slow
def test_a_body_in_chunks_of_one_byte_costs_no_more_than_its_size(
    receiver: WebhookReceiver,
) -> None:
    """Eight times the body takes about eight times as long, and not twenty times."""

    def seconds(size: int) -> float:
        body = b'{"a": "' + b"x" * size + b'"}'
        fields = b"Host: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked"
        chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body)
        began = time.process_time()
        head = b"POST / HTTP/1.1\r\n" + fields + b"\r\n\r\n"
        assert status(talk(receiver, head + chunks + b"0\r\n\r\n")) == 200
        return time.process_time() - began

    seconds(1000)
    small = min(seconds(15_000) for _ in range(3))
    assert min(seconds(120_000) for _ in range(2)) < 14 * small


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (post(b"[1]"), 400),
        (post(b"nonsense"), 400),
        (post(b"\xff\xfe{"), 400),
        (post(b"[" * 100_000), 400),
        (post(b'{"a": [NaN]}'), 400),
        (post(b'{"a": -Infinity}'), 400),
        (post(b'{"a": 1e999}'), 400),
        (post(b'{"a": ' + b"9" * 5000 + b"}"), 400),
        (post(b""), 400),
        (post(b'{"a":' * 65 + b"1" + b"}" * 65), 400),
        (post(b"{}", Content_Length="abc"), 400),
        (post(b"{}", Content_Length="-1"), 400),
        (post(b"{}", content_length="3"), 400),
        (post(b"{}", Content_Length=str(LARGEST_BODY + 1)), 413),
        (post(b"{}", Content_Length="9" * 5000), 400),
        (post(b"{}", Content_Length="500"), 400),
        (post(b"zz\r\n", Transfer_Encoding="chunked"), 400),
        (post(b"1;" + b"x" * 5000 + b"\r\n", Transfer_Encoding="chunked"), 400),
        (post(b"2\r\n{}x\r\n0\r\n\r\n", Transfer_Encoding="chunked"), 400),
        (post(b"0\r\n" + b"x: y\r\n" * 200, Transfer_Encoding="chunked"), 400),
        (post(b"1_0\r\n" + b"x" * 16 + b"\r\n0\r\n\r\n", Transfer_Encoding="chunked"), 400),
        (post(b"0\r\n\r\n", Content_Length="x", Transfer_Encoding="chunked"), 400),
        (post(b"fffffff\r\n", Transfer_Encoding="chunked"), 400),
        (post(b"-1\r\n", Transfer_Encoding="chunked"), 400),
        (b"PUT / HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
        (b"GET / HTTP/1.1\r\nHost: 127.0.0.1:80\r\n\r\n", 200),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 0),
        (b"", 0),
    ],
)
def test_junk_is_refused_and_survived(
    receiver: WebhookReceiver, data: bytes, expected: int
) -> None:
    assert status(talk(receiver, data)) in (expected, 400 if expected == 0 else expected)
    assert receiver.deliveries.empty()
    assert status(talk(receiver, post(b'{"taskId": "after"}'))) == 200


def test_a_refused_body_is_not_read_as_a_request(receiver: WebhookReceiver) -> None:
    inner = post(b'{"taskId": "smuggled"}')
    talk(receiver, post(inner, Content_Length=str(LARGEST_BODY + 1)))
    assert receiver.deliveries.empty()


@pytest.mark.parametrize(
    ("method", "framing", "body", "expected"),
    [
        ("GET", "Content-Length: 9", b"", 200),
        ("POST", "Transfer-Encoding: gzip, chunked", b"2\r\n{}\r\n0\r\n\r\n", 501),
        ("POST", "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked", b"", 501),
        ("POST", "Transfer-Encoding: chunked\r\nContent-Length: 2", b"0\r\n\r\n", 400),
    ],
)
def test_what_a_tunnel_may_take_for_a_body_is_no_request(
    receiver: WebhookReceiver, method: str, framing: str, body: bytes, expected: int
) -> None:
    fields = f"Host: localhost\r\nContent-Type: application/json\r\n{framing}"
    head = f"{method} / HTTP/1.1\r\n{fields}\r\n\r\n".encode()
    answer = talk(receiver, head + body + post(b"{}"))
    assert status(answer) == expected
    assert answer.count(b" 200 OK") == int(expected == 200)
    assert receiver.deliveries.empty()


def test_many_idle_connections_leave_room_once_they_are_gone(receiver: WebhookReceiver) -> None:
    address = ("127.0.0.1", urlsplit(receiver.url).port)
    idle = [socket.create_connection(address) for _ in range(CONNECTIONS * 2)]
    for line in idle:
        line.close()
    for _ in range(100):
        if status(talk(receiver, post(json.dumps({"taskId": "t"}).encode()))) == 200:
            break
    else:
        pytest.fail("no room")


def test_slow_callers_make_room_for_the_others(receiver: WebhookReceiver) -> None:
    address = ("127.0.0.1", urlsplit(receiver.url).port)
    with ExitStack() as stack:
        slow = [stack.enter_context(socket.create_connection(address)) for _ in range(CONNECTIONS)]
        for line in slow:
            line.sendall(b"POST / HTTP/1.1\r\nHost: x\r\n")
        assert status(talk(receiver, post(b'{"taskId": "t"}'))) == 200
        assert slow[0].recv(10) == b""


def test_a_full_queue_says_so(receiver: WebhookReceiver) -> None:
    receiver.most_waiting = 1
    assert status(talk(receiver, post(b"{}"))) == 200
    assert status(talk(receiver, post(b"{}"))) == 503


def test_a_port_that_is_taken_is_a_usage_error(receiver: WebhookReceiver) -> None:
    with pytest.raises(BadUsage, match="cannot listen on port"):
        WebhookReceiver(urlsplit(receiver.url).port or 0)


def test_case_55_what_a_page_can_send_is_refused(receiver: WebhookReceiver) -> None:
    """A page must not trigger what `--exec` runs, nor one whose name resolves to this machine."""
    for fields, expected in (
        ({"Host": "evil.example"}, 421),
        ({"Host": "127.999.1.1"}, 421),
        ({"Host": ""}, 421),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://localhost"}, 403),
        ({"Sec_Fetch_Site": "same-origin"}, 403),
        ({"Content_Type": "text/plain"}, 415),
        ({"Content_Type": "multipart/form-data; boundary=x"}, 415),
    ):
        assert status(talk(receiver, post(b'{"taskId": "t1"}', **fields))) == expected, fields
    assert receiver.deliveries.empty()


def test_a_tunnel_s_host_and_any_json_type_are_accepted() -> None:
    receiver = WebhookReceiver(0, hosts=["Abc.Tunnel.example"])
    receiver._server.start()
    try:
        named = post(b"{}", Host="abc.tunnel.example:443", Content_Type="application/cloud+json")
        assert status(talk(receiver, named)) == 200
        assert status(talk(receiver, post(b"{}", Host="localhost:8788"))) == 200
        assert status(talk(receiver, post(b"{}", Host="tunnel.example"))) == 421
    finally:
        receiver._server.stop()
