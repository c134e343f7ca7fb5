"""Reads request bodies within limits of size, time and memory."""

from __future__ import annotations

from collections.abc import Mapping

from bentos.asgi import ClientGoneError, Receive
from bentos.errors import BodyTimeoutError, BodyTooLargeError, OverloadedError
from bentos.settings.sections import RequestSettings
from bentos.task_timer import TaskTimer

# A body up to this size is never refused for want of memory: others' large bodies cannot shut out a caller
# with a few transactions, and even 1,000 such bodies are 64 MiB.
SMALL_BODY_BYTES = 64 * 1024


class BodyReader:
    """Reads bodies; their bytes count from when they arrive to when their request has been answered.

    Parameters
    ----------
    settings : RequestSettings
        The limits.
    retry_after_s : int
        When a caller that is refused for want of memory should come back.
    """

    def __init__(self, settings: RequestSettings, retry_after_s: int) -> None:
        self._settings = settings
        self._retry_after_s = retry_after_s
        self._timer = TaskTimer(settings.body_timeout_s, settings.body_timeout_s / 4)
        self.buffered_bytes = 0
        """Bytes of all bodies that are arriving or being answered."""

    async def read(self, headers: Mapping[bytes, bytes], receive: Receive) -> bytes:
        """Return the body of a request; `release` gives its memory back.

        Raises
        ------
        BodyTooLargeError
            If it is announced as, or grows, larger than the limit.
        BodyTimeoutError
            If it does not arrive in time.
        OverloadedError
            If the bodies that have arrived fill the memory that is set aside for them.
        ClientGoneError
            If the caller hung up.
        """
        if int(headers.get(b"content-length", 0)) > self._settings.max_body_bytes:
            raise self._too_large()
        chunks: list[bytes] = []
        length, has_more = 0, True
        try:
            with self._timer.limit():
                while has_more:
                    message = await receive()
                    if message["type"] != "http.request":
                        raise ClientGoneError
                    has_more = message.get("more_body", False)
                    chunks.append(message.get("body", b""))
                    length += len(chunks[-1])
                    self._count(len(chunks[-1]), length)
        except BaseException as error:
            self.release(length)
            if isinstance(error, TimeoutError):
                raise BodyTimeoutError("The body did not arrive in time.") from None
            raise
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def release(self, length: int) -> None:
        """Give back the memory of a body of `length` bytes."""
        self.buffered_bytes -= length

    def _count(self, new: int, length: int) -> None:
        """Count `new` bytes of a body of which `length` have arrived, and refuse what is too much."""
        self.buffered_bytes += new
        if length > self._settings.max_body_bytes:
            raise self._too_large()
        if length > SMALL_BODY_BYTES and self.buffered_bytes > self._settings.max_buffered_bytes:
            raise OverloadedError("Too many bytes are waiting.", self._retry_after_s)

    def _too_large(self) -> BodyTooLargeError:
        return BodyTooLargeError(f"The body is over {self._settings.max_body_bytes} bytes.")
