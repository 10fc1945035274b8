"""What the gateway reads of a model's use out of its answers, on the three wires."""

from __future__ import annotations

import json
import random
import tracemalloc
from typing import Any

import pytest

from rebyte_cli.local.gateway.model_prices import ModelPrices
from rebyte_cli.local.gateway.model_usage import MOST_OTHERS, UsageReader
from tests.agents.scripted_model import Call, Chat, Gemini, Messages, Responses, Turn

TURN = Turn([("user", "hello")], {}, "scripted", True)
CALL = Call("bash", {"command": 'echo "usage": {\\'})
BOM = b"\xef\xbb\xbf"
# What the scripted model says of each of its answers.
SCRIPTED = {"input_tokens": 10, "cached_input_tokens": 4, "output_tokens": 5}
WIRES = {"openai": (Chat, Responses), "anthropic": (Messages,), "gemini": (Gemini,)}


def stream(*events: tuple[str | None, Any]) -> bytes:
    """Server-sent events as the scripted model sends them."""
    return b"".join(
        (f"event: {name}\n" if name else "").encode()
        + b"data: "
        + (data if isinstance(data, str) else json.dumps(data)).encode()
        + b"\n\n"
        for name, data in events
    )


def read(wire: str, *parts: bytes) -> UsageReader:
    reader = UsageReader(wire)
    for part in parts:
        reader.feed(part)
    return reader


STREAMS = [
    pytest.param(wire, stream(*api.stream(TURN, answer)), id=f"{api.__name__}-{kind}")
    for wire, apis in WIRES.items()
    for api in apis
    for kind, answer in (("text", "All is well."), ("call", CALL))
]

# Whole answers, as the vendors' references show them.
MESSAGE = {
    "id": "msg_013Zva2CMHLNnXjNJJKqJ2EF",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-4-5-20250929",
    "content": [{"type": "text", "text": 'The "usage": {"output_tokens": 7777}, \\'}],
    "stop_reason": "end_turn",
    "usage": {
        "input_tokens": 2095,
        "cache_creation_input_tokens": 2051,
        "cache_read_input_tokens": 2000,
        "cache_creation": {"ephemeral_5m_input_tokens": 2051, "ephemeral_1h_input_tokens": 0},
        "output_tokens": 503,
        "service_tier": "standard",
    },
}
RESPONSE = {
    "id": "resp_67ccd2bed1ec8190",
    "object": "response",
    "status": "completed",
    "model": "gpt-5.1-codex",
    "output": [
        {"type": "message", "content": [{"type": "output_text", "text": "Hi", "usage": {}}]}
    ],
    "reasoning": {"effort": None, "summary": None},
    "usage": {
        "input_tokens": 36,
        "input_tokens_details": {"cached_tokens": 12},
        "output_tokens": 87,
        "output_tokens_details": {"reasoning_tokens": 64},
        "total_tokens": 123,
    },
    "metadata": {"usage": {"input_tokens": 1}},
}
COMPLETION = {
    "id": "chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT",
    "object": "chat.completion",
    "model": "gpt-5.4",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}}],
    "usage": {
        "prompt_tokens": 19,
        "completion_tokens": 10,
        "total_tokens": 29,
        "prompt_tokens_details": {"cached_tokens": 3, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 2, "audio_tokens": 0},
    },
}
CONTENT = {
    "candidates": [{"content": {"parts": [{"text": "Hi"}], "role": "model"}, "index": 0}],
    "usageMetadata": {
        "promptTokenCount": 100,
        "cachedContentTokenCount": 60,
        "candidatesTokenCount": 20,
        "thoughtsTokenCount": 30,
        "toolUsePromptTokenCount": 5,
        "totalTokenCount": 155,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 100}],
    },
    "modelVersion": "gemini-3-pro",
    "responseId": "x",
}
FIRST_CONTENT = {
    "candidates": [{"content": {"parts": [{"text": "[{"}]}}],
    "usageMetadata": {"promptTokenCount": 100, "totalTokenCount": 100},
}
WHOLE = [
    ("anthropic", MESSAGE, "claude-sonnet-4-5-20250929", (6146, 2000, 503, None)),
    ("openai", RESPONSE, "gpt-5.1-codex", (36, 12, 87, 64)),
    ("openai", COMPLETION, "gpt-5.4", (19, 3, 10, 2)),
    ("gemini", CONTENT, "gemini-3-pro", (105, 60, 50, 30)),
    ("gemini", [FIRST_CONTENT, CONTENT], "gemini-3-pro", (105, 60, 50, 30)),
    ("gemini", {"response": CONTENT, "traceId": "y"}, "gemini-3-pro", (105, 60, 50, 30)),
]


def words(counts: tuple[int | None, ...]) -> dict[str, int]:
    names = ("input_tokens", "cached_input_tokens", "output_tokens", "reasoning_tokens")
    return {name: n for name, n in zip(names, counts, strict=True) if n is not None}


@pytest.mark.parametrize(("wire", "answer"), STREAMS)
def test_a_streamed_answer(wire: str, answer: bytes) -> None:
    reader = read(wire, answer)
    more = {} if wire == "anthropic" else {"reasoning_tokens": 2}
    assert reader.usage() == {**SCRIPTED, **more}
    assert reader.model == (None if wire == "gemini" else "scripted")
    assert reader.is_final(has_ended=True)


@pytest.mark.parametrize(("wire", "answer", "model", "counts"), WHOLE)
@pytest.mark.parametrize("indent", [None, 2])
def test_a_whole_answer(
    wire: str, answer: Any, model: str, counts: tuple[int | None, ...], indent: int | None
) -> None:
    reader = read(wire, json.dumps(answer, indent=indent).encode())
    assert (reader.usage(), reader.model) == (words(counts), model)
    assert reader.is_final(has_ended=True)


def pieces(whole: bytes, seed: int) -> list[bytes]:
    """The bytes, cut at random places."""
    places = random.Random(seed)
    cuts = sorted(places.randrange(len(whole) + 1) for _ in range(20))
    return [whole[i:j] for i, j in zip([0, *cuts], [*cuts, len(whole)], strict=True)]


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("mark", [b"", BOM])
@pytest.mark.parametrize(("wire", "answer"), STREAMS)
def test_a_stream_may_be_cut_anywhere(
    wire: str, answer: bytes, mark: bytes, line_end: bytes
) -> None:
    whole = mark + answer.replace(b"\n", line_end)
    for seed in range(20):
        assert read(wire, *pieces(whole, seed)).usage() == read(wire, answer).usage(), seed


@pytest.mark.parametrize(("wire", "answer", "model", "counts"), WHOLE)
def test_a_whole_answer_may_be_cut_anywhere(
    wire: str, answer: Any, model: str, counts: tuple[int | None, ...]
) -> None:
    whole = json.dumps(answer).encode()
    for seed in range(20):
        reader = read(wire, *pieces(whole, seed))
        assert (reader.usage(), reader.model) == (words(counts), model), seed


@pytest.mark.parametrize(("wire", "answer"), STREAMS)
def test_a_stream_may_come_byte_by_byte(wire: str, answer: bytes) -> None:
    for line_end in (b"\n", b"\r\n", b"\r"):
        whole = BOM + answer.replace(b"\n", line_end)
        parts = [whole[i : i + 1] for i in range(len(whole))]
        reader = read(wire, *parts)
        assert reader.usage() == read(wire, answer).usage() != {}


def test_data_of_several_lines_is_one_text() -> None:
    lines = json.dumps(RESPONSE, indent=1).splitlines()
    text = "event: x\n: a comment\nid: 7\n" + "".join(f"data:{line}\r\n" for line in lines) + "\r\n"
    assert read("openai", text.encode()).usage() == words((36, 12, 87, 64))


def test_the_counts_of_a_message_grow_while_it_streams() -> None:
    start = {"input_tokens": 25, "cache_read_input_tokens": None, "output_tokens": 1}
    events = stream(
        ("message_start", {"type": "message_start", "message": {"model": "m", "usage": start}}),
        ("ping", {"type": "ping"}),
    )
    reader = read("anthropic", events)
    assert reader.usage() == {"input_tokens": 25, "output_tokens": 1}  # what a killed run keeps
    assert not reader.is_final(has_ended=True)
    reader.feed(
        stream(("message_delta", {"type": "message_delta", "usage": {"output_tokens": 15}}))
    )
    assert reader.usage() == {"input_tokens": 25, "output_tokens": 15}
    assert reader.model == "m"
    assert reader.is_final(has_ended=True)
    assert not reader.is_final(has_ended=False)  # tools of the vendor make several come
    before = reader.changes
    reader.feed(stream(("message_stop", {"type": "message_stop"})))
    assert reader.is_final(has_ended=False)
    assert reader.changes > before


@pytest.mark.parametrize("value", ["message_stop", "x", {"usage": 1}, ["message_stop"], 7])
def test_what_follows_the_end_of_a_message_does_no_harm(value: object) -> None:
    used = {"input_tokens": 2, "output_tokens": 1}
    events = [(None, {"usage": used}), (None, {"type": "message_stop"})]
    reader = read("anthropic", stream(*events, (None, {"type": value}), *events))
    assert reader.usage() == used
    assert reader.is_final(has_ended=False)


BEGUN = {"input_tokens": 9, "output_tokens": 0, "total_tokens": 9}
DONE = {"input_tokens": 9, "output_tokens": 40, "total_tokens": 49}


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("status", [{}, {"status": "in_progress"}])
@pytest.mark.parametrize("last", ["completed", "incomplete", "failed", "done"])
def test_a_response_that_is_under_way_has_not_said_all(
    last: str, status: dict[str, str], order: int
) -> None:
    """Some routers say at first what was read."""

    def event(kind: str, response: object) -> tuple[None, dict[str, object]]:
        return None, dict([("type", f"response.{kind}"), ("response", response)][::order])

    begun = [event(kind, {**status, "usage": BEGUN}) for kind in ("created", "in_progress")]
    for events in (begun[:1], begun):
        reader = read("openai", stream(*events))
        assert reader.usage() == {"input_tokens": 9, "output_tokens": 0}
        assert not reader.is_final(has_ended=False)
        assert not reader.is_final(has_ended=True)
    reader = read("openai", stream(*begun, event(last, {"usage": None})))
    assert not reader.is_final(has_ended=True)
    reader = read("openai", stream(*begun, event(last, {"usage": DONE})))
    assert reader.is_final(has_ended=False)
    assert reader.usage() == {"input_tokens": 9, "output_tokens": 40}


@pytest.mark.parametrize(
    ("status", "is_final"),
    [
        *(("queued", False), ("in_progress", False), ("IN_PROGRESS", False), ("running", False)),
        *(("completed", True), ("incomplete", True), ("failed", True), ("cancelled", True)),
        *(("COMPLETED", True), (None, True)),
    ],
)
def test_the_status_of_a_whole_answer(status: str | None, *, is_final: bool) -> None:
    """What is asked for in the background is answered before it is done."""
    fields: list[tuple[str, object]] = [("status", status), ("usage", BEGUN)]
    for order in (1, -1):
        reader = read("openai", json.dumps(dict(fields[::order])).encode())
        assert reader.is_final(has_ended=True) == is_final
    chunk = {"choices": [{}], "status": "PENDING", "usage": BEGUN}  # of Perplexity's streams
    assert read("openai", stream((None, chunk), (None, "[DONE]"))).is_final(has_ended=True)


@pytest.mark.parametrize(
    ("wire", "told"),
    [
        ("anthropic", {"usage": {"input_tokens": 7, "output_tokens": 1}}),
        ("openai", {"usage": {"prompt_tokens": 5, "completion_tokens": 1}}),
        ("gemini", {"usageMetadata": {"promptTokenCount": 5, "candidatesTokenCount": 1}}),
    ],
)
def test_counts_before_an_error_in_the_middle_are_not_the_last(wire: str, told: Any) -> None:
    error = {"error": {"message": "overloaded"}}
    assert not read(wire, stream((None, told), (None, error))).is_final(has_ended=True)
    assert not read(wire, json.dumps([told, error]).encode()).is_final(has_ended=True)
    for indent in (None, 2):  # as Google's servers say it, in a stream as well
        plain = stream((None, told)) + json.dumps(error, indent=indent).encode()
        assert not read(wire, plain).is_final(has_ended=True)
    for line in (
        b": ping\n\n",
        b"id\n\n",
        b"data\n\n",
        b"retry: 1\n\n",
        b"event: x\n\n",
        b"\r\n",
        b" \n",
    ):
        assert read(wire, stream((None, told)) + line).is_final(has_ended=True)
    assert read(wire, stream((None, told), (None, {"error": None}))).is_final(has_ended=True)
    assert read(wire, stream((None, error | told))).is_final(has_ended=True)


def test_counts_that_come_with_each_piece_are_final_at_the_end() -> None:
    """As vLLM sends them if it is asked to, and Gemini always."""
    piece = {"model": "m", "usage": {"prompt_tokens": 9, "completion_tokens": 1}}
    reader = read("openai", stream((None, piece)))
    assert not reader.is_final(has_ended=False)
    assert reader.is_final(has_ended=True)


def test_what_compaction_used_counts() -> None:
    """Anthropic's top-level counts leave it out."""
    usage = {
        "input_tokens": 23_000,
        "output_tokens": 1_000,
        "iterations": [
            {"type": "compaction", "input_tokens": 180_000, "output_tokens": 3_500},
            {"type": "message", "input_tokens": 23_000, "output_tokens": 1_000},
        ],
    }
    expected = {"input_tokens": 203_000, "output_tokens": 4_500}
    assert read("anthropic", json.dumps({"usage": usage}).encode()).usage() == expected
    start = {"message": {"model": "m", "usage": {"input_tokens": 23_000, "output_tokens": 1}}}
    events = stream(("message_start", start), ("message_delta", {"usage": usage}))
    assert read("anthropic", events).usage() == expected
    whole = json.dumps({"usage": usage | {"iterations": []}}).encode()
    assert read("anthropic", whole).usage() == {"input_tokens": 23_000, "output_tokens": 1_000}


def test_a_model_that_another_one_asked_is_told_apart() -> None:
    """As Anthropic's advisor: its counts come again, and grow, with each event of a stream."""
    own = {"type": "message", "input_tokens": 400, "output_tokens": 30}
    other = {"type": "advisor_message", "model": "dear", "output_tokens": 200}
    asked = [{**other, "input_tokens": 9, "cache_read_input_tokens": 1000}, {**other, "x": 1}]
    compaction = {"type": "compaction", "input_tokens": 50, "output_tokens": 1}
    usage = {"input_tokens": 400, "output_tokens": 30}
    events = stream(
        ("message_start", {"message": {"model": "m", "usage": {"input_tokens": 400}}}),
        ("message_delta", {"usage": {**usage, "iterations": [own, asked[0]]}}),
        ("message_delta", {"usage": {**usage, "iterations": [own, compaction, *asked, "x"]}}),
    )
    reader = read("anthropic", events)
    dear = {"input_tokens": 1009, "cached_input_tokens": 1000, "output_tokens": 400}
    assert reader.usage() == {
        "input_tokens": 1459, "cached_input_tokens": 1000, "output_tokens": 431,
        "others": [{"model": "dear", **dear}],
    }  # fmt: skip
    assert (reader.model, reader.is_final(has_ended=True)) == ("m", True)


@pytest.mark.parametrize("name", [None, 7, "", "x" * 201, "a\nb", "\U00020000" * 17])
def test_a_model_that_another_one_asked_may_have_no_name(name: object) -> None:
    iterations = [{"type": "advisor_message", "model": name, "input_tokens": 7}]
    answer = json.dumps({"model": "m", "usage": {"input_tokens": 1, "iterations": iterations}})
    used = read("anthropic", answer.encode()).usage()
    assert used == {"input_tokens": 7, "others": [{"model": None, "input_tokens": 7}]}


def test_of_many_other_models_the_rest_has_no_name() -> None:
    iterations = [{"model": f"m{number}", "input_tokens": 7} for number in range(99)] * 2
    answer = json.dumps({"model": "m", "usage": {"input_tokens": 1, "iterations": iterations}})
    used = read("anthropic", answer.encode()).usage()
    names = [other["model"] for other in used["others"]]
    assert names == [*(f"m{number}" for number in range(MOST_OTHERS)), None]
    assert sum(other["input_tokens"] for other in used["others"]) == used["input_tokens"] == 1386


def test_counts_under_both_names_are_not_added_up() -> None:
    both = {"input_tokens": 7, "prompt_tokens": 7, "completion_tokens": 2, "output_tokens": 2}
    answer = json.dumps({"usage": both}).encode()
    assert read("openai", answer).usage() == {"input_tokens": 7, "output_tokens": 2}


@pytest.mark.parametrize("total", [{}, {"total_tokens": 1697}])
@pytest.mark.parametrize(("read_", "written"), [(0, 0), (1340, 0), (0, 357), (13, 35)])
def test_zeros_under_one_name_hide_no_counts_under_the_other(
    total: dict[str, int], read_: int, written: int
) -> None:
    """As of resellers that fill in both; which one they mean differs."""
    real = {"prompt_tokens": 1340, "completion_tokens": 357, **total}
    real["prompt_tokens_details"] = {"cached_tokens": 24_576}
    zeros = {"input_tokens": read_, "output_tokens": written, "input_tokens_details": None}
    expected = words((1340 + 24_576, 24_576, 357, None))
    for usage in (real | zeros, zeros | real):
        reader = read("openai", json.dumps({"usage": usage}).encode())
        assert reader.usage() == expected
        assert reader.is_final(has_ended=True)
    other = {"prompt_tokens": 0, "completion_tokens": 0, "prompt_tokens_details": None}
    usage = RESPONSE["usage"] | other  # type: ignore[operator]  # a dictionary
    assert read("openai", json.dumps({"usage": usage}).encode()).usage() == words((36, 12, 87, 64))


HALVES = [
    *(
        "0",
        "null",
        "-5",
        "NaN",
        '"12.5"',
        '"\uff11\uff12"',
        "1e16",
        "9" * 30,
        "1e400",
        "true",
        "[7]",
    ),
    *('"x"', '{"a": 7}'),
]


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize(
    ("wire", "read_", "written", "usage"),
    [
        ("openai", "prompt_tokens", "completion_tokens", "usage"),
        ("openai", "input_tokens", "output_tokens", "usage"),
        ("anthropic", "input_tokens", "output_tokens", "usage"),
        ("gemini", "promptTokenCount", "candidatesTokenCount", "usageMetadata"),
    ],
)
def test_half_a_usage_is_not_the_last_word(
    wire: str, read_: str, written: str, usage: str, half: str
) -> None:
    """A model that reads nothing is none; it may write nothing."""

    def is_final(*fields: str) -> bool:
        told = f'{{"{usage}": {{{", ".join(fields)}}}}}'
        return read(wire, told.encode()).is_final(has_ended=True)

    assert is_final(f'"{read_}": 7', f'"{written}": 7')
    assert is_final(f'"{read_}": 7', f'"{written}": 0')
    assert not is_final(f'"{written}": 7')
    assert not is_final(f'"{read_}": 7')
    assert not is_final(f'"{read_}": {half}', f'"{written}": 7')
    assert is_final(f'"{read_}": 7', f'"{written}": {half}') == (half == "0")


def test_half_a_usage_may_be_completed() -> None:
    """By the cache, by another event, and by a total."""
    start = {"message": {"usage": {"input_tokens": 0, "output_tokens": 0}}}
    delta = {"usage": {"output_tokens": 40}}
    assert not read("anthropic", stream((None, start), (None, delta))).is_final(has_ended=True)
    cached = {"usage": {"input_tokens": 0, "cache_read_input_tokens": 9, "output_tokens": 4}}
    assert read("anthropic", json.dumps(cached).encode()).is_final(has_ended=True)
    late = {"usage": {"input_tokens": 9, "output_tokens": 40}}
    assert read("anthropic", stream((None, start), (None, late))).is_final(has_ended=True)
    refused = {"usageMetadata": {"promptTokenCount": 9, "totalTokenCount": 9}}
    assert read("gemini", json.dumps(refused).encode()).is_final(has_ended=True)
    odd = {"usageMetadata": {"promptTokenCount": 9, "totalTokenCount": -9}}
    assert not read("gemini", json.dumps(odd).encode()).is_final(has_ended=True)


def test_a_cost_on_the_wire_is_taken() -> None:
    answer = json.dumps({"usage": {"prompt_tokens": 1, "cost": 0.0125}}).encode()
    assert read("openai", answer).usage() == {"input_tokens": 1, "cost_usd": 0.0125}
    assert "cost_usd" not in read("anthropic", answer).usage()


def test_what_a_search_read_and_thought_is_beside_the_total() -> None:
    """Perplexity's reference shows it so. SGLang's `reasoning_tokens` are within the total."""
    usage = {
        "prompt_tokens": 33,
        "completion_tokens": 11395,
        "total_tokens": 11428,
        "citation_tokens": 19028,
        "reasoning_tokens": 193947,
        "cost": {"total_cost": 0.816},
    }
    used = read("openai", json.dumps({"usage": usage}).encode()).usage()
    assert used == {
        "input_tokens": 33 + 19028,
        "output_tokens": 11395 + 193947,
        "reasoning_tokens": 193947,
        "cost_usd": 0.816,
    }
    del usage["citation_tokens"]
    used = read("openai", json.dumps({"usage": usage}).encode()).usage()
    assert used["input_tokens"] + used["output_tokens"] == 11428


@pytest.mark.parametrize(
    ("cost", "expected"),
    [
        ({"cost": 0, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.25}}, 0.25),
        ({"cost": 0.5, "cost_details": {"upstream_inference_cost": 10}}, 10.5),  # an older answer
        ({"cost": 2, "is_byok": False, "cost_details": {"upstream_inference_cost": 2}}, 2),
        ({"cost": 2, "is_byok": False, "cost_details": None}, 2),
        ({"cost": 0.5, "is_byok": True, "cost_details": {"upstream_inference_cost": None}}, None),
        ({"cost": 0, "is_byok": True}, None),
    ],
)
def test_what_the_users_own_key_pays_is_a_cost(cost: Any, expected: float | None) -> None:
    """OpenRouter's `cost` is its fee alone where a provider's key of the user is used."""
    answer = json.dumps({"usage": {"prompt_tokens": 1, **cost}}).encode()
    assert read("openai", answer).usage().get("cost_usd") == expected


@pytest.mark.parametrize(
    ("wire", "usage"),
    [
        (  # xAI and Gemini, asked in OpenAI's way: thoughts are in the total alone
            "openai",
            {
                "usage": {
                    "prompt_tokens": 12, "completion_tokens": 2, "total_tokens": 331,
                    "completion_tokens_details": {"reasoning_tokens": 317},
                }
            },
        ),
        ("openai", {"response": {"usage": {"input_tokens": 12, "total_tokens": 331}}}),
        (
            "gemini",
            {"usageMetadata": {"promptTokenCount": 12, "totalTokenCount": 331}},
        ),
    ],
)  # fmt: skip
def test_what_is_in_the_total_alone_was_written(wire: str, usage: Any) -> None:
    used = read(wire, stream((None, {"choices": []}), (None, usage))).usage()
    assert (used["input_tokens"], used["output_tokens"]) == (12, 319)


CACHED, THOUGHTS = {"cached_tokens": 1000}, {"reasoning_tokens": 300}


@pytest.mark.parametrize(
    ("wire", "usage"),
    [
        ("openai", {"usage": {
            "prompt_tokens": 10, "prompt_tokens_details": CACHED,
            "completion_tokens": 5, "completion_tokens_details": THOUGHTS,
        }}),
        ("openai", {"response": {"usage": {
            "input_tokens": 10, "input_tokens_details": CACHED, "total_tokens": 1315,
            "output_tokens": 5, "output_tokens_details": THOUGHTS,
        }}}),
        ("gemini", {"usageMetadata": {
            "promptTokenCount": 10, "cachedContentTokenCount": 1000,
            "candidatesTokenCount": 5, "thoughtsTokenCount": 300, "totalTokenCount": 315,
        }}),
    ],
)  # fmt: skip
def test_parts_that_are_counted_beside_the_whole_count(wire: str, usage: Any) -> None:
    """Some servers leave them out of the sum that the vendors' references include them in."""
    used = read(wire, stream((None, {"choices": []}), (None, usage))).usage()
    assert (used["input_tokens"], used["output_tokens"]) == (1010, 305)
    cost = ModelPrices((1.0, 0.5, 2.0)).cost(used, None)
    assert cost == pytest.approx(10e-6 + 500e-6 + 610e-6)


def test_a_cost_is_never_below_zero() -> None:
    """What `others` used is taken from the whole, which may leave more from the cache than read."""
    whole = {"input_tokens": 100, "cached_input_tokens": 90, "output_tokens": 0}
    used = whole | {"others": [{"model": "other", "input_tokens": 100}]}
    assert (
        ModelPrices(named={"own": (9.0, 0.0, 0.0), "other": (0.0, 0.0, 0.0)}).cost(used, "own") == 0
    )


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("is_stream", [True, False])
def test_what_tools_of_the_vendor_used_counts(order: int, is_stream: bool) -> None:
    """As OpenAI's generation of images, which any program may ask for."""
    image = {"input_tokens": 40, "output_tokens": 6240, "total_tokens": 6280,
             "output_tokens_details": {"image_tokens": 6240}}  # fmt: skip
    fields = [
        ("usage", {"input_tokens": 12, "output_tokens": 5, "total_tokens": 17}),
        ("tool_usage", {"image_gen": image, "web_search": {"num_requests": 1}}),
    ]
    answer = dict(fields[::order])
    events = stream((None, {"response": {"usage": None}}), (None, {"response": answer}))
    used = read("openai", events if is_stream else json.dumps(answer).encode()).usage()
    others = [{"model": None, "input_tokens": 40, "output_tokens": 6240}]
    assert used == {"input_tokens": 52, "output_tokens": 6245, "others": others}
    prices = ModelPrices((1.0, 1.0, 1.0), {"m": (1.0, 1.0, 1.0), "dear": (10.0, 1.0, 100.0)})
    assert prices.cost(used, "m") == pytest.approx(17e-6 + 400e-6 + 624_000e-6)
    alone = json.dumps({"tool_usage": {"image_gen": image}}).encode()
    assert not read("openai", alone).is_final(has_ended=True)


def test_a_total_that_is_smaller_changes_nothing() -> None:
    usage = {"prompt_tokens": 12, "completion_tokens": 5, "total_tokens": 3}
    used = read("openai", json.dumps({"usage": usage}).encode()).usage()
    assert used == {"input_tokens": 12, "output_tokens": 5}


@pytest.mark.parametrize("number", ["7", "7.0", "6.5", '"7"'])
def test_a_count_may_be_spelled_in_several_ways(number: str) -> None:
    answer = f'{{"usage": {{"input_tokens": {number}}}}}'
    assert read("openai", answer.encode()).usage() == {"input_tokens": 7}


@pytest.mark.parametrize("number", ["-1", '"-7"', "true", '"x"', "1e400", "9" * 500, "[7]"])
def test_a_count_that_is_none_is_left_out(number: str) -> None:
    answer = f'{{"usage": {{"input_tokens": {number}, "output_tokens": 2, "cost": {number}}}}}'
    used = read("openai", answer.encode()).usage()
    used.pop("cost_usd", None)
    assert used == {"output_tokens": 2}


def test_a_name_may_be_spelled_with_escapes() -> None:
    answer = rb'{"us\u0061ge": {"input_tokens": 1}, "mod\u0065l": "\u006d", "\ud800\x": 1}'
    reader = read("openai", answer)
    assert (reader.usage(), reader.model) == ({"input_tokens": 1}, "m")


def test_a_model_that_is_no_name_is_left_out() -> None:
    for name in ("", "a\nb", "x" * 201, "\x1b[2J"):
        assert read("openai", json.dumps({"model": name}).encode()).model is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "filling", "after"),
    [
        (b'{"content": "', rb"a line of text with \"quotes\"\n" * 2000, b'", "usage": '),
        (b'{"content": "', b"x" * 65_536, b'", "usage": '),
        (b'{"content": [', b'{"a": [1, 2.5, null], "usage": {}}, ' * 2000, b'0], "usage": '),
        (b'{"content": ', b"[" * 65_536, b', "usage": '),
        (b'data: {"content": "', rb"\\\"" * 20_000, b'", "usage": '),
        (b"", b'data: {"delta": {"content": "word"}}\n\n' * 2000, b'data: {"usage": '),
        (b"", b" \n" * 40_000, b'{"usage": '),
        (b'{"', b"k" * 65_536, b'": 1, "usage": '),
        (b'{"usage": {"', b"k" * 65_536, b'": 1}, "usage": '),
    ],
    ids=["lines", "text", "array", "depth", "escapes", "events", "blanks", "key", "usage"],
)
def test_an_answer_of_any_size_takes_constant_memory(
    before: bytes, filling: bytes, after: bytes
) -> None:
    reader = UsageReader("openai")
    reader.feed(before + filling)
    tracemalloc.start()
    for _ in range(20):
        reader.feed(filling)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 400_000  # a third of what was fed
    reader.feed(after + b'{"prompt_tokens": 5}}\n\n')
    expected = {} if filling.startswith(b"[[") else {"input_tokens": 5}
    assert reader.usage() == expected


def test_a_large_piece_is_read_without_copies_of_its_size() -> None:
    reader = UsageReader("openai")
    piece = b'{"content": "' + rb"\"text\" \n" * 100_000 + b'", "usage": {"prompt_tokens": 5}}'
    tracemalloc.start()
    reader.feed(piece[:10])
    reader.feed(piece[10:])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert reader.usage() == {"input_tokens": 5}
    assert peak < 2.5 * len(piece)
