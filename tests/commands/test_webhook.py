"""`rebyte webhook`: registering them, and receiving what they deliver."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from urllib.request import Request, urlopen

import pexpect
import pytest

from tests.conftest import COMMAND, IN_BACKGROUND, Done
from tests.fork_server import commands
from tests.servers import RawServer, json_reply
from tests.terminals import finish
from tests.waiting import eventually

Run = Callable[..., Done]
Aim = Callable[[Any], Any]
URL = "https://hooks.example.com/a"
EVENT = ("--event", "task.completed")


def test_create_list_show_delete(inside_local: Run) -> None:
    made = inside_local("webhook", "create", URL, *EVENT, "--event", "task.failed").json
    assert made["events"] == ["task.completed", "task.failed"]
    assert inside_local("webhook", "show", made["id"]).json["url"] == URL
    assert inside_local("webhook", "list", "-o", "id").out == f"{made['id']}\n"
    assert inside_local("webhook", "delete", made["id"]).json["deleted"] is True
    assert inside_local("webhook", "delete", made["id"]).status == 4
    assert inside_local("webhook", "list").json == {"data": []}


def test_a_unique_prefix_of_an_id_will_do(inside: Run, aim: Aim) -> None:
    ids = [f"{start}-e29b-41d4-a716-446655440006" for start in ("880e8400", "880e9500", "99990000")]
    asked: list[str] = []

    def answer(request: Any) -> Any:
        asked.append(f"{request.method} {request.path.removeprefix('/v1/webhooks')}")
        hooks = [{"id": each, "url": URL, "events": []} for each in ids]
        return json_reply(hooks if request.path == "/v1/webhooks" else hooks[0])

    with RawServer(answer) as server:
        aim(server)
        assert inside("webhook", "show", "880e84").status == 0
        assert asked == ["GET ", f"GET /{ids[0]}"]
        assert inside("webhook", "delete", ids[1], "9999", ids[2]).status == 0
        assert sorted(asked[3:]) == [f"DELETE /{ids[1]}", f"DELETE /{ids[2]}"]
        ambiguous = inside("webhook", "delete", "880e")
        assert (ambiguous.status, ids[1] in ambiguous.err) == (2, True)
        del asked[:]
        inside("webhook", "delete", ids[1])
        inside("webhook", "show", "880")
        assert asked == [f"DELETE /{ids[1]}", "GET ", "GET /880"]


def test_the_fourth_is_refused_by_the_service_in_one_line(inside_local: Run) -> None:
    for number in range(3):
        assert inside_local("webhook", "create", f"{URL}{number}", *EVENT).status == 0
    done = inside_local("webhook", "create", f"{URL}3", *EVENT)
    assert done.status == 1
    error = json.loads(done.err)["error"]
    assert error["code"] == "limit_exceeded"
    assert "`rebyte webhook delete ID`" in error["hint"]


def test_the_local_service_says_that_it_has_no_public_key(inside_local: Run) -> None:
    done = inside_local("webhook", "public-key", "-q")
    assert (done.status, done.out) == (4, "")
    reason = "there is none: the local service does not sign its deliveries"
    assert done.err == f"Error: public_key: {reason}\n"


def test_only_what_was_chosen_is_sent(inside: Run, aim: Aim) -> None:
    with RawServer(json_reply({"id": "w"}, 201)) as server:
        aim(server)
        inside("webhook", "create", URL, *EVENT)
        inside(
            "webhook", "create", URL, *EVENT, "--description", "CI", "--secret", "-", stdin="s3\n"
        )
    assert [request.json for request in server.requests] == [
        {"url": URL, "events": ["task.completed"]},
        {"url": URL, "events": ["task.completed"], "description": "CI", "secret": "s3"},
    ]


def test_a_secret_that_comes_back_is_not_printed(inside: Run, aim: Aim) -> None:
    with RawServer(json_reply({"id": "w1", "url": URL, "secret": "hunter2"}, 201)) as server:
        aim(server)
        for output in ("json", "jsonl", "table", "csv"):
            for words in (["create", URL, *EVENT], ["show", "w1"]):
                assert "hunter2" not in inside("webhook", *words, "-o", output).out


def test_a_near_miss_is_a_mistake_and_an_unknown_event_is_passed_on(inside: Run, aim: Aim) -> None:
    with RawServer(json_reply({"id": "w"}, 201)) as server:
        aim(server)
        near = inside("webhook", "create", URL, "--event", "task.complete")
        assert near.status == 2
        assert "task.completed" in json.loads(near.err)["error"]["hint"]
        assert server.requests == []
        assert inside("webhook", "create", URL, "--event", "quota.low").status == 0


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example.com/", "hooks.example.com", "ftp://a/", "", "https://0.com*",
        "https://user:pw@h/x", "https://pw@h/x", "https://a b.example/", "https://h/a b",
        "https://h\x07/", "https://hööks.example/", "https://h:99999/", "https://[::1/x",
        "https://-x.com/", "https://x-.com/", "https://x..com/", "https://.x.com/", "https://x.com../",
        f"https://{'a' * 64}.com/", f"https://{'abc.' * 63}com/",
    ],
)  # fmt: skip
def test_a_url_that_cannot_be_used_is_not_sent(inside: Run, aim: Aim, url: str) -> None:
    with RawServer(json_reply({"id": "w"}, 201)) as server:
        aim(server)
        done = inside("webhook", "create", url, *EVENT)
        assert server.requests == []
    assert done.status == 2
    assert "pw" not in done.err


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("https://h\u00f6\u00f6ks.example/", "in punycode (xn--"),
        ("https://h:99999/", "port 99999"),
        ("https://h:x/", "port x"),
    ],
)
def test_what_is_wrong_with_a_url_is_said(inside: Run, service: Any, url: str, said: str) -> None:
    assert said in inside("webhook", "create", url, *EVENT).err


@pytest.mark.parametrize(
    "url",
    [
        URL, "https://h:8443/a?b=c", "https://[2001:db8::1]/", "http://127.0.0.1:9/x",
        "https://xn--hks-sna.example./", f"https://{'a' * 63}.com/", f"https://{'abc.' * 62}comab/",
        "https://h_1.example/",
    ],
)  # fmt: skip
def test_a_url_that_can_be_used_is_sent_as_it_is(inside: Run, aim: Aim, url: str) -> None:
    with RawServer(json_reply({"id": "w"}, 201)) as server:
        aim(server)
        assert inside("webhook", "create", url, *EVENT).status == 0
        assert server.requests[0].json["url"] == url


def test_a_secret_is_never_an_argument(inside: Run, home: object) -> None:
    for words in (["--secret", "hunter2"], ["--secret=hunter2"]):
        done = inside("webhook", "create", URL, *EVENT, *words)
        assert done.status == 2
        assert "hunter2" not in done.err
        assert "--secret -" in done.err


@pytest.mark.parametrize("secret", ["", "\n", "with\x00nul\n", "ü\n", " edge \n", "x" * 501 + "\n"])
def test_a_secret_that_no_header_can_carry_is_refused(inside: Run, secret: str) -> None:
    assert inside("webhook", "create", URL, *EVENT, "--secret", "-", stdin=secret).status == 2


def test_off_a_terminal_there_is_no_prompt(inside: Run) -> None:
    done = inside("webhook", "create", URL, *EVENT, "--secret")
    assert done.status == 2
    assert "--secret -" in json.loads(done.err)["error"]["hint"]


def test_on_a_terminal_the_secret_is_asked_for_without_echo(inside_local: Run) -> None:
    child = pexpect.spawn(
        COMMAND[0],
        [*COMMAND[1:], "webhook", "create", URL, *EVENT, "--secret"],
        env=dict(os.environ),
        timeout=60,
        encoding="utf-8",
    )
    child.expect_exact("Secret: ")
    child.sendline("hunter2")
    assert finish(child) == 0
    assert "hunter2" not in str(child.before)
    assert inside_local("webhook", "list").json["data"][0]["hasSecret"] is True


@contextmanager
def listening(*words: str, secret: str | None = None) -> Iterator[tuple[Any, str]]:
    """`rebyte webhook listen` in a process: the process and its URL."""
    words = (*words, "--secret", "-") if secret else words
    with subprocess.Popen(
        [commands() / "rebyte", "webhook", "listen", "--port", "0", *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin
        assert process.stderr
        process.stdin.write(f"{secret}\n")
        process.stdin.close()
        process.stdin = None  # `communicate` would want to write to it
        said = process.stderr.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+/", said)
        assert found, said
        try:
            yield process, found[0]
        finally:
            process.kill()


def deliver(url: str, document: Any, secret: str | None = None) -> int:
    headers = {"Content-Type": "application/json"}
    headers |= {"X-Webhook-Secret": secret} if secret else {}
    with urlopen(Request(url, json.dumps(document).encode(), headers), timeout=60) as answer:
        return int(answer.status)


def test_listen_prints_each_as_a_line_and_ctrl_c_ends_it_with_130(home: object) -> None:
    with listening() as (process, url):
        for number in range(3):
            assert deliver(url, {"taskId": f"t{number}", "event": "task.completed"}) == 200
            line = json.loads(process.stdout.readline())
            assert line == {"taskId": f"t{number}", "event": "task.completed"}
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert process.stdout.read() == ""


def test_listen_takes_only_those_with_the_secret(home: object) -> None:
    with listening("--count", "1", secret="s3") as (process, url):
        for wrong in (None, "s4", "s33"):
            with pytest.raises(OSError, match="401"):
                deliver(url, {"taskId": "bad"}, wrong)
        assert deliver(url, {"taskId": "good"}, "s3") == 200
        assert [json.loads(line)["taskId"] for line in process.stdout] == ["good"]
        assert process.wait(60) == 0


def test_a_delivery_whose_task_id_is_an_option_is_refused(home: Any) -> None:
    with listening("--count", "1", "-o", "id") as (process, url):
        for name in ("--exec=touch pwned", "a b", ["a"]):
            with pytest.raises(OSError, match="400"):
                deliver(url, {"taskId": name})
        assert deliver(url, {"taskId": "good"}) == 200
        out, _ = process.communicate(timeout=60)
    assert out == "good\n"


def test_exec_gets_json_on_stdin_and_a_failing_one_is_told(home: Any) -> None:
    (home / "see.py").write_text(
        "import json, sys\nseen = json.load(sys.stdin)\n"
        "print('saw', seen['event'], len(sys.argv), flush=True)\n"
        "sys.exit(3 if seen['event'] == 'bad' else 0)\n"
    )
    command = f"{sys.executable} {home / 'see.py'}"
    with listening("--count", "2", "--exec", command, "--jobs", "1") as (process, url):
        deliver(url, {"taskId": "t1", "event": "bad"})
        deliver(url, {"taskId": "t2", "event": "$(touch pwned); good"})
        out, err = process.communicate(timeout=60)
    assert out == "saw bad 1\nsaw $(touch pwned); good 1\n"
    assert "exited with status 3" in err
    assert process.returncode == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_children_of_a_delivery_command_end_with_it(home: Any, number: signal.Signals) -> None:
    program = f"echo > {home}/started; trap '' INT; sleep 60; true"
    with listening("--exec", program) as (process, url):
        deliver(url, {"taskId": "t1"})
        eventually((home / "started").exists)
        process.send_signal(number)
        # stderr ends when every process that holds it has ended, the sleep included.
        assert process.communicate(timeout=60) == ("", "")
        assert process.returncode == 128 + number


def test_deliveries_of_the_service_arrive(inside_local: Run) -> None:
    with listening("--count", "2", secret="s3") as (process, url):
        words = ["--event", "task.created", "--event", "task.completed", "--secret", "-"]
        inside_local("webhook", "create", url, *words, stdin="s3\n")
        task = inside_local("create", "Say hello [[run=50ms]]", "-o", "id").out.strip()
        rows = [json.loads(line) for line in process.stdout]
    assert {(row["event"], row["taskId"]) for row in rows} == {
        ("task.created", task),
        ("task.completed", task),
    }


SERVERS = [("local", "serve", "--port", "0"), ("webhook", "listen", "--port", "0")]


@pytest.mark.slow
@pytest.mark.parametrize("words", SERVERS, ids=["serve", "listen"])
def test_case_56_two_quick_signals_end_a_server_once(home: Any, words: tuple[str, ...]) -> None:
    """At any distance from each other, and without a word: what is not ended hangs or complains."""

    def end(gap: float) -> tuple[int, str]:
        with subprocess.Popen(
            [*COMMAND, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "REBYTE_STATE_DIR": str(home / f"state-{gap}")},
            text=True,
        ) as process:
            assert process.stderr
            while "Ctrl-C" not in (line := process.stderr.readline()) and "Listening" not in line:
                assert line, process.poll()
            process.send_signal(signal.SIGTERM)
            time.sleep(gap)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=60)
            return process.returncode, err

    with ThreadPoolExecutor(2) as pool:
        ended = list(pool.map(end, [0, 0.0005, 0.005, 0.02, 0.1]))
    # Of two that arrive at the same moment either may count as the first.
    assert set(ended) <= {(143, ""), (130, "")}


@pytest.mark.slow
@pytest.mark.parametrize("words", SERVERS, ids=["serve", "listen"])
def test_a_server_in_the_background_of_a_script_leaves_ctrl_c_to_others(
    home: Any, words: tuple[str, ...]
) -> None:
    with subprocess.Popen(
        [*IN_BACKGROUND, *COMMAND, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr
        while "Ctrl-C" not in (line := process.stderr.readline()) and "Listening" not in line:
            assert line, process.poll()
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143
