"""The judge is judged: a bridge that cheats must be caught."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from streaming.records import OutputRecord
from tests.e2e.verifier import Report, Seen, verify
from tests.fakes import FakeBroker, FakeSink
from tests.unit.streaming.bridge.test_loop import feed, make_rig

Cheat = Callable[[list[OutputRecord]], list[OutputRecord]]


def loses(outputs: list[OutputRecord]) -> list[OutputRecord]:
    return outputs[:-1]


def doubles(outputs: list[OutputRecord]) -> list[OutputRecord]:
    return [*outputs, outputs[-1]]


def swaps_values(outputs: list[OutputRecord]) -> list[OutputRecord]:
    first, *rest = [o for o in outputs if o.kind == "decision"]
    for other in rest:
        one, two = json.loads(first.value), json.loads(other.value)
        if one["source"]["partition"] == two["source"]["partition"] and one["scores"] != two["scores"]:
            one["source"], two["source"] = two["source"], one["source"]
            changed = {id(first): _with(first, json.dumps(one)), id(other): _with(other, json.dumps(two))}
            return [changed.get(id(o), o) for o in outputs]
    raise AssertionError("nothing to swap")


def reorders(outputs: list[OutputRecord]) -> list[OutputRecord]:
    return outputs[::-1]


def misfiles_decisions(outputs: list[OutputRecord]) -> list[OutputRecord]:
    return [_as_letter(o) if o.kind == "decision" else o for o in outputs]


def misfiles_letters(outputs: list[OutputRecord]) -> list[OutputRecord]:
    return [_as_decision(o) if o.kind == "dead_letter" else o for o in outputs]


def changes_keys(outputs: list[OutputRecord]) -> list[OutputRecord]:
    return [msgspec.structs.replace(o, key=b"other") for o in outputs]


def changes_letters(outputs: list[OutputRecord]) -> list[OutputRecord]:
    return [msgspec.structs.replace(o, value=o.value + b" ") if o.headers else o for o in outputs]


def changes_stages(outputs: list[OutputRecord]) -> list[OutputRecord]:
    return [
        msgspec.structs.replace(
            o, headers=[(n, b"classify" if n == "error.stage" else v) for n, v in o.headers]
        )
        for o in outputs
    ]


def forgets_headers(outputs: list[OutputRecord]) -> list[OutputRecord]:
    return [
        msgspec.structs.replace(o, headers=[(n, v) for n, v in o.headers if n != "error.reason"])
        for o in outputs
    ]


def invents(outputs: list[OutputRecord]) -> list[OutputRecord]:
    return [_with(o, o.value.replace(b'"offset":', b'"offset":9')) for o in outputs]


def garbles(outputs: list[OutputRecord]) -> list[OutputRecord]:
    return [_with(o, b"{}") if o.kind == "decision" else o for o in outputs]


def moves(outputs: list[OutputRecord]) -> list[OutputRecord]:
    return [msgspec.structs.replace(o, partition=1 - o.partition) for o in outputs]


def _with(output: OutputRecord, value: Any) -> OutputRecord:
    return msgspec.structs.replace(output, value=value.encode() if isinstance(value, str) else value)


def _as_letter(output: OutputRecord) -> OutputRecord:
    source = json.loads(output.value)["source"]
    headers = [(f"error.{name}", str(value).encode()) for name, value in source.items()]
    return msgspec.structs.replace(output, kind="dead_letter", headers=[*headers, ("error.stage", b"parse")])


def _as_decision(output: OutputRecord) -> OutputRecord:
    found = {name.removeprefix("error."): value.decode() for name, value in output.headers}
    source = {"topic": found["topic"], "partition": int(found["partition"]), "offset": int(found["offset"])}
    value = json.dumps({"decision": "approve", "source": source, "decided_at_ms": 1})
    return msgspec.structs.replace(output, kind="decision", value=value.encode(), headers=[])


class CheatingSink(FakeSink):
    """Publishes something else than it was given, in every transaction."""

    def __init__(self, broker: FakeBroker, cheat: Cheat) -> None:
        super().__init__(broker)
        self._cheat = cheat

    def kept(self, outputs: Sequence[OutputRecord]) -> Sequence[OutputRecord]:
        return self._cheat(list(outputs))


CHEATS: list[tuple[Cheat, str]] = [
    (loses, "lost"),
    (doubles, "duplicate"),
    (swaps_values, "wrong"),
    (reorders, "disordered"),
    (misfiles_decisions, "wrong"),
    (misfiles_letters, "wrong"),
    (changes_keys, "wrong"),
    (changes_letters, "wrong"),
    (changes_stages, "wrong"),
    (forgets_headers, "wrong"),
    (invents, "wrong"),
    (garbles, "wrong"),
    (moves, "wrong"),
]


def _judged(cheat: Cheat) -> Report:
    broker = FakeBroker()
    rig = make_rig(broker, CheatingSink(broker, cheat), records=50)
    feed(broker, 200, bad_share=0.3)
    rig.start().wait_drained()
    rig.stop()
    return verify(*broker.seen())


@pytest.mark.parametrize(("cheat", "fault"), CHEATS, ids=lambda value: getattr(value, "__name__", value))
def test_a_cheating_bridge_is_caught(cheat: Cheat, fault: str) -> None:
    report = _judged(cheat)
    assert getattr(report, fault), report
    assert not report.is_clean


def test_an_honest_bridge_is_not_accused() -> None:
    report = _judged(list)
    assert report.is_clean, report
    assert report.decided
    assert report.dead_letters


def test_outputs_may_have_fewer_partitions_where_that_is_said() -> None:
    record = Seen("in", 3, 7, b"k", b"{")
    headers = {"topic": "in", "partition": "3", "offset": "7", "stage": "parse", "reason": "x"}
    headers |= {"message": "x", "attempts": "0", "at_ms": "1"}
    pairs = tuple((f"error.{name}", value.encode()) for name, value in headers.items())
    letters = [Seen("dead", partition, 0, b"k", b"{", pairs) for partition in (1, 0)]
    assert verify([record], [], letters[:1], output_partitions=2).is_clean
    assert "is in partition 0, not 1" in str(verify([record], [], letters[1:], output_partitions=2))


def test_the_report_names_its_faults() -> None:
    record = Seen("in", 0, 7, b"k", b"{")
    assert "('in', 0, 7) has no outcome" in str(verify([record], [], []))
    assert "1 lost" in str(replace(verify([record], [], [])))
