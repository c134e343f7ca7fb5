"""Keeps the earlier decision of every transaction of a range, in two bytes each."""

from array import array
from collections.abc import Iterator, Mapping

import msgspec

SourceOffset = tuple[int, int]
"""Partition and offset of a transaction."""


class EarlierDecision(msgspec.Struct, frozen=True, gc=False):
    """A decision as it was."""

    decision: str
    release: str


class DecisionTable(Mapping[SourceOffset, EarlierDecision]):
    """Maps the transactions of a range to their earlier decisions.

    There are few different ones (three decisions, some releases): a transaction keeps the number of its own.
    Ten million transactions take 20 MB.

    Parameters
    ----------
    starts, ends : mapping of int to int
        Partition to its first offset, and to the one after its last.
    """

    def __init__(self, starts: Mapping[int, int], ends: Mapping[int, int]) -> None:
        self._starts = {partition: start for partition, start in starts.items() if start < ends[partition]}
        self._numbers = {
            partition: array("H", bytes(2 * (ends[partition] - start)))
            for partition, start in self._starts.items()
        }
        self._known: list[EarlierDecision] = []
        self._number_of: dict[EarlierDecision, int] = {}

    @property
    def starts(self) -> Mapping[int, int]:
        """The first offset of each partition that has a range at all."""
        return self._starts

    def is_in_range(self, source: SourceOffset) -> bool:
        """Return whether a transaction belongs to the range."""
        partition, offset = source
        start = self._starts.get(partition)
        return start is not None and 0 <= offset - start < len(self._numbers[partition])

    def is_at_end(self, source: SourceOffset) -> bool:
        """Return whether a transaction is the last of its partition's range, or behind it."""
        partition, offset = source
        start = self._starts.get(partition)
        return start is not None and offset - start >= len(self._numbers[partition]) - 1

    def put(self, source: SourceOffset, decision: EarlierDecision) -> None:
        """Note the decision of a transaction of the range; of several the last counts."""
        number = self._number_of.get(decision)
        if number is None:
            self._known.append(decision)
            number = self._number_of[decision] = len(self._known)
        partition, offset = source
        self._numbers[partition][offset - self._starts[partition]] = number

    def __getitem__(self, source: SourceOffset) -> EarlierDecision:
        if not self.is_in_range(source):
            raise KeyError(source)
        partition, offset = source
        number = self._numbers[partition][offset - self._starts[partition]]
        if not number:
            raise KeyError(source)
        return self._known[number - 1]

    def __iter__(self) -> Iterator[SourceOffset]:
        for partition, numbers in self._numbers.items():
            start = self._starts[partition]
            yield from ((partition, start + index) for index, number in enumerate(numbers) if number)

    def __len__(self) -> int:
        return sum(len(numbers) - numbers.count(0) for numbers in self._numbers.values())
