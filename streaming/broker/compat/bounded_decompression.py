"""Bounds what a batch of the input may decompress to.

kafka-python 3.0.12 decompresses a batch whole, whatever comes out: one gzip record of 120 MB takes 1 MiB on
the wire and 516 MiB of memory.
"""

import io
import struct
import zlib
from collections.abc import Callable

import lz4.frame
import zstandard
from kafka import codec
from kafka.record import default_records, legacy_records

from streaming.errors import BrokerRefused

Decode = Callable[[bytes], bytes]

# Names under which kafka-python's record classes call their decoders.
DECODERS = ("gzip_decode", "snappy_decode", "lz4_decode", "zstd_decode")
XERIAL_HEADER_BYTES = 16
_limit_bytes = 0


class DecompressedTooLargeError(ValueError):
    """A batch decompresses to more than the limit."""

    def __init__(self) -> None:
        super().__init__(
            f"it decompresses to more than {_limit_bytes} bytes (kafka.max_decompressed_bytes): produce "
            "smaller batches, or raise the limit and the memory with it"
        )


def bound_decompression(limit_bytes: int) -> None:
    """Let no batch that any consumer of this process reads decompress to more than `limit_bytes`.

    Raises
    ------
    BrokerRefused
        If the installed kafka-python decodes in another way.
    """
    global _limit_bytes  # noqa: PLW0603  # kafka-python calls module functions
    _limit_bytes = limit_bytes
    missing = [name for name in DECODERS if not hasattr(default_records, name)]
    if missing:
        raise BrokerRefused(
            f"The installed kafka-python lacks {', '.join(missing)}: install the version of constraints.txt."
        )
    for name, decode in zip(DECODERS, (decode_gzip, decode_snappy, decode_lz4, decode_zstd), strict=True):
        for module in (default_records, legacy_records):
            if hasattr(module, name):
                setattr(module, name, decode)


def decode_gzip(payload: bytes) -> bytes:
    """Return what gzip members one after another decompress to."""
    parts: list[bytes] = []
    rest = bytes(payload)
    while rest:
        member = zlib.decompressobj(wbits=31)
        # 0 would mean no limit.
        parts.append(member.decompress(rest, _limit_bytes + 1 - sum(map(len, parts))))
        if sum(map(len, parts)) > _limit_bytes:
            raise DecompressedTooLargeError
        if not member.eof:
            raise EOFError("the compressed data end too early")
        rest = member.unused_data
    return parts[0] if len(parts) == 1 else b"".join(parts)


def decode_lz4(payload: bytes) -> bytes:
    """Return what an LZ4 frame decompresses to."""
    frame = lz4.frame.LZ4FrameDecompressor()
    found: bytes = frame.decompress(payload, max_length=_limit_bytes + 1)
    if len(found) > _limit_bytes:
        raise DecompressedTooLargeError
    if not frame.eof:
        raise EOFError("the compressed data end too early")
    return found


def decode_zstd(payload: bytes) -> bytes:
    """Return what Zstandard frames decompress to; a frame cannot ask for a window above the limit either."""
    # 1 KiB is the smallest window that the format knows.
    window = 1 << max(10, (_limit_bytes - 1).bit_length())
    decompressor = zstandard.ZstdDecompressor(max_window_size=window)
    with decompressor.stream_reader(io.BytesIO(payload), read_across_frames=True) as reader:
        found: bytes = reader.read(_limit_bytes + 1)
    if len(found) > _limit_bytes:
        raise DecompressedTooLargeError
    return found


def decode_snappy(payload: bytes) -> bytes:
    """Return what Snappy data, in blocks or not, decompress to: their sizes are written before them."""
    if sum(_snappy_sizes(payload)) > _limit_bytes:
        raise DecompressedTooLargeError
    found: bytes = codec.snappy_decode(payload)
    return found


def _snappy_sizes(payload: bytes) -> list[int]:
    if not codec._detect_xerial_stream(payload):
        return [_varint(payload, 0)]
    sizes, position = [], XERIAL_HEADER_BYTES
    while position < len(payload):
        (length,) = struct.unpack_from("!i", payload, position)
        if length <= 0:
            raise ValueError("a block of the compressed data has no length")
        sizes.append(_varint(payload, position + 4))
        position += 4 + length
    return sizes


def _varint(payload: bytes, position: int) -> int:
    number = shift = 0
    for byte in payload[position : position + 5]:
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number
        shift += 7
    raise ValueError("the compressed data have no size")
