"""Batches that cannot be read, or would fill the memory: named, and no reason to spin."""

import gzip
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kafka import TopicPartition, codec
from kafka.errors import CorruptRecordError
from kafka.record import MemoryRecords, MemoryRecordsBuilder, default_records, legacy_records
from kafka.record.default_records import DefaultRecordBatch

from streaming.broker.compat import bounded_decompression as bounded
from streaming.broker.compat.unreadable_batches import UnreadableBatchError, _EndingRecords

LIMIT = 1_000_000
NAMES = ("gzip", "snappy", "lz4", "zstd")
PLACE = TopicPartition("transactions", 3)


@pytest.fixture(autouse=True)
def limit(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    kept = {
        (module, name): getattr(module, name)
        for module in (default_records, legacy_records)
        for name in bounded.DECODERS
        if hasattr(module, name)
    }
    bounded.bound_decompression(LIMIT)
    yield
    for (module, name), decode in kept.items():
        setattr(module, name, decode)


def codecs() -> list[tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]]:
    pairs = [(getattr(codec, f"{name}_encode"), getattr(bounded, f"decode_{name}")) for name in NAMES]
    return [*pairs, (lambda plain: bytes(codec.snappy_encode(plain, xerial_compatible=False)), pairs[1][1])]


@pytest.mark.parametrize(("encode", "decode"), codecs(), ids=(*NAMES, "snappy without blocks"))
def test_each_codec_is_read_up_to_the_limit_and_no_further(encode: Any, decode: Any) -> None:
    for plain in (b"{}", bytes(range(256)) * 3000, b"x" * LIMIT):
        assert decode(encode(plain)) == plain
    with pytest.raises(bounded.DecompressedTooLargeError, match=r"kafka\.max_decompressed_bytes"):
        decode(encode(b"x" * (LIMIT + 1)))


@pytest.mark.parametrize(("encode", "decode"), codecs()[:3], ids=NAMES[:3])  # zstd: the records end early
def test_what_is_cut_off_is_no_record(encode: Any, decode: Any) -> None:
    packed = encode(bytes(range(256)) * 300)
    with pytest.raises(Exception):  # noqa: B017  # each library has its own
        decode(packed[: len(packed) // 2])


def test_members_of_gzip_follow_each_other_within_one_limit() -> None:
    assert bounded.decode_gzip(gzip.compress(b"one") + gzip.compress(b"two")) == b"onetwo"
    with pytest.raises(bounded.DecompressedTooLargeError):
        bounded.decode_gzip(gzip.compress(b"x" * 600_000) * 2)


def batch(*values: bytes, compression: int = 0) -> bytes:
    builder = MemoryRecordsBuilder(magic=2, compression_type=compression, batch_size=10**7)
    for value in values:
        builder.append(timestamp=0, key=None, value=value)
    builder.close()
    return bytes(builder.buffer())


def records(data: bytes) -> Any:
    return _EndingRecords(0, PLACE, MemoryRecords(data))


def test_what_was_read_before_is_kept_and_the_error_names_the_partition(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checksums = iter((True, False))
    monkeypatch.setattr(DefaultRecordBatch, "validate_crc", lambda _: next(checksums))
    found = records(batch(b"a", b"b") + batch(b"c"))
    assert [record.value for record in found.take(10)] == [b"a", b"b"]
    with pytest.raises(UnreadableBatchError, match="at offset 2 cannot be read: CorruptRecordError") as told:
        found.take(10)
    assert (told.value.topic_partition, told.value.held.offset) == (PLACE, 2)
    assert told.value.held.next_batch is None, "its head, offset 0 here, contradicts"
    assert isinstance(told.value.__cause__, CorruptRecordError)
    assert not found, "kafka-python asks it again for ever"


@pytest.mark.parametrize("damage", ["too large", "unknown codec", "no gzip"])
def test_compressed_data_that_cannot_be_read_name_their_place(damage: str) -> None:
    data = bytearray(batch(b"x" * (2 * LIMIT if damage == "too large" else 100), compression=1))
    if damage == "unknown codec":
        data[22] = 7  # the attributes' low byte
    elif damage == "no gzip":
        data[61:] = b"\xff" * (len(data) - 61)
    found = _EndingRecords(0, PLACE, MemoryRecords(bytes(data)), check_crcs=False)
    with pytest.raises(UnreadableBatchError, match="the batch at offset 0 cannot be read") as told:
        found.take(10)
    assert not found
    assert told.value.held.next_batch == 1
