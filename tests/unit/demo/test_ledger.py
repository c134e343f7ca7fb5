"""The ledger must see what goes missing, what is doubled and what is invented."""

import json

from demo.ledger import Ledger


def decision(offset: int, partition: int = 0, name: str = "T-1", kind: str = "approve") -> bytes:
    return json.dumps(
        {
            "transaction_id": name,
            "decision": kind,
            "is_fraud": kind != "approve",
            "fraud_probability": 0.25,
            "release": "3",
            "source": {"topic": "transactions", "partition": partition, "offset": offset},
        }
    ).encode()


def test_every_input_decided_once_adds_up() -> None:
    ledger = Ledger()
    for offset in range(3):
        ledger.book_input((0, offset), 1000)
        ledger.book_decision(decision(offset), 1025.5)
    assert [d.latency_ms for d in ledger.settle()] == [25.5] * 3
    assert (ledger.lost, ledger.duplicates, ledger.strangers) == (0, 0, 0)
    assert ledger.is_complete(3)
    assert not ledger.is_complete(4)


def test_a_decision_may_be_read_before_its_transaction() -> None:
    ledger = Ledger()
    ledger.book_decision(decision(0, kind="decline"), 50.0)
    assert ledger.settle() == []
    ledger.book_input((0, 0), 10)
    assert [(d.is_alarm, d.latency_ms) for d in ledger.settle()] == [(True, 40.0)]


def test_lost_doubled_and_invented_records_are_counted() -> None:
    ledger = Ledger()
    for offset in range(4):
        ledger.book_input((0, offset), 0)
    ledger.book_decision(decision(0), 1.0)
    ledger.book_decision(decision(1), 1.0)
    ledger.book_decision(decision(1), 1.0)
    ledger.book_dead_letter((0, 1), "malformed")
    ledger.book_decision(decision(0, partition=9), 1.0)
    assert (ledger.lost, ledger.duplicates, ledger.strangers) == (2, 2, 1)
    assert not ledger.is_complete(4)
