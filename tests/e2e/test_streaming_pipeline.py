"""The bridge on the served bento: what it publishes is what the service says when it is asked again."""

import contextlib
import json
import random
from pathlib import Path
from typing import Any

import httpx
import pytest
from kafka import KafkaProducer

from tests.e2e.bad_records import all_kinds
from tests.e2e.faults import World, read_topic
from tests.e2e.verifier import Report, Seen, deserves, verify
from tests.scripted_service import FEATURES

pytestmark = pytest.mark.timeout(170)

COMPARED = ("transaction_id", "decision", "is_fraud", "risk_level", "release")


def rows(count: int) -> list[bytes]:
    rng = random.Random(4)
    found = []
    for number in range(count):
        row = {name: round(rng.gauss(0, 3), 6) for name in FEATURES}
        row |= {"Time": float(number), "Amount": round(rng.expovariate(1 / 88), 2)}
        found.append(json.dumps({"transaction_id": f"T-{number}", **row}).encode())
    return found


def ask_again(url: str, value: bytes) -> dict[str, Any]:
    answer: dict[str, Any] = httpx.post(
        f"{url}/classify", content=value, headers={"content-type": "application/json"}
    ).json()
    return answer


def test_decisions_on_the_topic_are_the_services_own(world: World, served_bento: str) -> None:
    good = rows(1500)
    producer = KafkaProducer(bootstrap_servers=world.servers)
    for number, value in enumerate(good):
        producer.send(world.input, key=f"card-{number % 50}".encode(), value=value)
    for key, value in all_kinds():
        if key is not None or value is not None:
            producer.send(world.input, key=key, value=value)
    producer.flush(30)
    producer.close(timeout=5)
    world.start_bridge("a", SERVICE__CLASSIFY_URL=f"{served_bento}/classify")
    world.wait_drained(90)
    world.bridges["a"].stop()
    inputs, decisions, letters = (
        read_topic(world.servers, name) for name in (world.input, world.output, world.letters)
    )
    _compare(served_bento, inputs, decisions)
    # The rest is judged as ever: none lost, none twice, in order, each bad record in its place.
    report = _without_values(verify(inputs, decisions, letters))
    assert report.is_clean, report
    assert len(letters) > 110


def _compare(url: str, inputs: list[Seen], decisions: list[Seen]) -> None:
    by_source = {record.source: record.value or b"" for record in inputs}
    sample = random.Random(1).sample(decisions, 150)
    for decision in sample:
        found = json.loads(decision.value or b"")
        source = found["source"]
        again = ask_again(url, by_source[source["topic"], source["partition"], source["offset"]])
        assert {name: found.get(name) for name in COMPARED} == {name: again.get(name) for name in COMPARED}
        for name, score in found["scores"].items():
            assert score == pytest.approx(again["scores"][name], abs=1e-6)


def _without_values(report: Report) -> Report:
    # The verifier recomputes the scripted service's decisions, not the models'.
    report.wrong = [fault for fault in report.wrong if "differs in" not in fault]
    return report


def test_every_kind_of_bad_record_is_judged_alike_by_bridge_and_service(served_bento: str) -> None:
    for _, value in all_kinds():
        with contextlib.suppress(httpx.TransportError):
            status = httpx.post(
                f"{served_bento}/classify", content=value or b"", headers={"content-type": "application/json"}
            ).status_code
            is_list = bool(value) and value.lstrip()[:1] == b"["
            if not is_list:
                assert (status == 200) == isinstance(deserves(value), dict), value


def test_nothing_of_a_transaction_is_logged(world: World, tmp_path: Path) -> None:
    secret = 123456.789123
    value = json.dumps({"transaction_id": "T", **dict.fromkeys(FEATURES, 0.5), "Amount": secret})
    bad = json.dumps({**dict.fromkeys(FEATURES, 0.5), "Amount": str(secret)})
    producer = KafkaProducer(bootstrap_servers=world.servers)
    for text in (value, bad, value[:-1], value.replace("0.5", "1e999")):
        producer.send(world.input, key=b"k", value=text.encode())
    producer.flush(30)
    producer.close(timeout=5)
    bridge = world.start_bridge("a", LOG__LEVEL="debug", LOG__SUMMARY_S=0.2)
    world.wait_drained(60)
    bridge.stop()
    assert "123456" not in bridge.log.read_text()
    assert "summary" in bridge.log.read_text()
    for letter in read_topic(world.servers, world.letters):
        assert all(b"123456" not in text for _, text in letter.headers)
