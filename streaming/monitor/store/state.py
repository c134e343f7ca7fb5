"""All that the monitor knows: takes batches in, each in one transaction with the offsets that follow it."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from streaming.errors import SettingsError
from streaming.monitor.observations import Payment, ReleaseDecision
from streaming.monitor.store.cells import Cells, drop_old_cells
from streaming.monitor.store.database import Database
from streaming.monitor.store.joining import EPOCH_BITS, OFFSET_BITS, Joiner
from streaming.monitor.store.labelling import Given, Labels
from streaming.settings.monitor import MonitorSettings

DAY_MS = 86_400_000
# Most rows of each kind that are deleted at once: more than come in a second.
MOST_EXPIRED = 20_000

Stand = tuple[str, int]
"""Stream and partition."""


class Position(NamedTuple):
    """Where to go on in a partition, and of which topic; `topic_id` is empty where the broker tells none."""

    topic_id: str
    next_offset: int


@dataclass
class Batch:
    """Records of all streams, read, and the offsets that follow them."""

    payments: list[Payment] = field(default_factory=list)
    decisions: list[ReleaseDecision] = field(default_factory=list)
    labels: list[Given] = field(default_factory=list)
    fates: Counter[tuple[str, str]] = field(default_factory=Counter)
    next_offsets: dict[Stand, int] = field(default_factory=dict)


@dataclass(frozen=True)
class DriftState:
    """A role's detector, as it is kept."""

    role: int
    release: str
    state: str
    findings: str


class State:
    """The database and what joins in it.

    Parameters
    ----------
    settings : MonitorSettings

    Raises
    ------
    SettingsError
        If the folder cannot be used.
    """

    def __init__(self, settings: MonitorSettings) -> None:
        self.database = Database(settings.state)
        self.connection = self.database.connection
        self._check_layout(settings)
        self._label_delay_ms = int(settings.label_delay_days * DAY_MS)
        self._cells = Cells(settings.bucket_s, settings.amount_bands)
        self.labels = Labels(self.connection)
        self.joiner = Joiner(self.connection, self._cells, self.labels.verdicts_of)
        self.epoch = int(self.database.remember("epoch", "0"))
        self.as_of_ms = int(self.database.remember("as_of_ms", "0"))

    def _check_layout(self, settings: MonitorSettings) -> None:
        """Refuse to go on counting in other slices, bands or partitions than before."""
        for key, value in (
            ("bucket_ms", str(settings.bucket_s * 1000)),
            ("amount_bands", str(list(settings.amount_bands))),
            ("partitions", str(list(settings.partitions or ()))),
        ):
            found = self.database.remember(key, value)
            if found != value:
                self.close()
                raise SettingsError(
                    f"{settings.state} was counted with {key} {found}, and the settings say {value}: set it "
                    "back, or give another --state, in which the monitor counts anew from the topics."
                )

    def positions(self) -> dict[Stand, Position]:
        """Return where each partition was left."""
        rows = self.connection.execute("SELECT stream, partition, topic_id, next_offset FROM positions")
        return {(stream, partition): Position(*rest) for stream, partition, *rest in rows}

    def apply(self, batch: Batch, topic_ids: Mapping[str, str], drift: list[DriftState]) -> None:
        """Take a batch in, and note where the streams go on.

        Parameters
        ----------
        batch : Batch
        topic_ids : mapping of str to str
            Stream to the id of its topic.
        drift : list of DriftState
            As it is after this batch.

        Raises
        ------
        StateError
            If the database fails; nothing of the batch is kept then.
        """
        with self.database.transaction():
            fates = self.joiner.join(batch.payments, batch.decisions, self.epoch)
            for made, fate in zip(batch.decisions, fates, strict=True):
                batch.fates["shadow" if made.role else "decisions", fate] += 1
            for fate in self.labels.give(batch.labels, self.joiner.relabel):
                batch.fates["labels", fate] += 1
            batch.fates["transactions", "used"] += len(batch.payments)
            self._cells.write(self.connection)
            for (stream, fate), count in batch.fates.items():
                self.database.count("records", stream, fate, count)
            for stand, offset in batch.next_offsets.items():
                self._note_position(stand, Position(topic_ids.get(stand[0], ""), offset))
            self._note_time(max((one.at_ms for one in batch.payments), default=0))
            for one in drift:
                row = (one.role, one.release, one.state, one.findings)
                self.connection.execute("INSERT OR REPLACE INTO drift VALUES (?, ?, ?, ?)", row)

    def _note_position(self, stand: Stand, position: Position) -> None:
        self.connection.execute("INSERT OR REPLACE INTO positions VALUES (?, ?, ?, ?)", (*stand, *position))

    def _note_time(self, at_ms: int) -> None:
        if at_ms > self.as_of_ms:
            self.as_of_ms = at_ms
            self.connection.execute("UPDATE meta SET value = ? WHERE key = 'as_of_ms'", (str(at_ms),))

    def move(self, positions: Mapping[Stand, Position], missed: Mapping[str, int]) -> None:
        """Note that partitions go on elsewhere, and how many records of a stream are lost by it."""
        with self.database.transaction():
            for stand, position in positions.items():
                self._note_position(stand, position)
            for stream, count in missed.items():
                self.database.count("missed", stream, "", count)

    def begin_anew(self, stream: str, positions: Mapping[Stand, Position]) -> None:
        """Go on with a topic that was made again: its offsets name other records than before."""
        with self.database.transaction():
            if stream == "transactions":
                self.epoch = (self.epoch + 1) % 2**EPOCH_BITS
                self.connection.execute("UPDATE meta SET value = ? WHERE key = 'epoch'", (str(self.epoch),))
            for stand, position in positions.items():
                self._note_position(stand, position)
            self.database.count("made_again", stream, "")

    def drift(self) -> dict[int, DriftState]:
        """Return the detectors by role, as they were left."""
        rows = self.connection.execute("SELECT role, release, state, findings FROM drift")
        return {row[0]: DriftState(*row) for row in rows}

    def note_document(self, role: int, release: str, document: str) -> None:
        """Keep what a service says about the release that it serves."""
        with self.database.transaction():
            row = (role, release, document)
            self.connection.execute("INSERT OR REPLACE INTO documents VALUES (?, ?, ?)", row)

    def document(self, role: int, release: str) -> str | None:
        """Return what was kept about a release, under the role or another."""
        found = self.connection.execute(
            "SELECT document FROM documents WHERE release = ? ORDER BY role != ?", (release, role)
        ).fetchone()
        return str(found[0]) if found is not None else None

    def expire(self) -> None:
        """Delete some of what is older than the label delay; called often, it keeps up with what comes."""
        before_ms = self.as_of_ms - self._label_delay_ms
        if before_ms <= 0:
            return
        with self.database.transaction():
            for base in self._first_sources():
                self._expire_outcomes(base, before_ms)
            self.joiner.identities.shrink(before_ms // DAY_MS, MOST_EXPIRED)
            unmatched = self.labels.expire(before_ms, MOST_EXPIRED)
            if unmatched:
                self.database.count("labels_expired", "labels", "", unmatched)
            drop_old_cells(self.connection, self.as_of_ms, self._label_delay_ms)

    def _first_sources(self) -> list[int]:
        """Return the lowest source of each partition that has any, of each making of the topic."""
        found: list[int] = []
        width = 1 << OFFSET_BITS
        following = 0
        while True:
            row = self.connection.execute(
                "SELECT source FROM outcomes WHERE source >= ? ORDER BY source LIMIT 1", (following,)
            ).fetchone()
            if row is None:
                return found
            found.append(row[0])
            following = (row[0] // width + 1) * width

    def _expire_outcomes(self, first: int, before_ms: int) -> None:
        last = first | ((1 << OFFSET_BITS) - 1)
        if not self._is_old(first, last, before_ms):
            return
        rows = self.connection.execute(
            "SELECT source, at_ms FROM outcomes WHERE source BETWEEN ? AND ? ORDER BY source LIMIT ?",
            (first, last, MOST_EXPIRED),
        ).fetchall()
        expired = [index for index, (_, at_ms) in enumerate(rows) if at_ms is not None and at_ms < before_ms]
        if not expired:
            return
        # A decision whose transaction was never seen goes with its neighbours.
        gone = [(source,) for source, at_ms in rows[: expired[-1] + 1] if at_ms is None or at_ms < before_ms]
        self.connection.executemany("DELETE FROM outcomes WHERE source = ?", gone)

    def _is_old(self, first: int, last: int, before_ms: int) -> bool:
        sql = "SELECT min(at_ms) FROM (SELECT at_ms FROM outcomes WHERE source BETWEEN ? AND ? LIMIT 100)"
        found = self.connection.execute(sql, (first, last)).fetchone()[0]
        return found is not None and found < before_ms

    def close(self) -> None:
        """Give the database up."""
        self.database.close()
