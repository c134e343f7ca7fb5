"""The monitor's loop: read, take in, note the offsets, report."""

import threading
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

import structlog

from streaming.errors import BrokerUnavailable, OffsetGone
from streaming.monitor.drift.watch import DriftWatch
from streaming.monitor.intake import Intake
from streaming.monitor.observations import CHALLENGER, CHAMPION, ReleaseDecision
from streaming.monitor.promises import InfoReader, read_promise
from streaming.monitor.quality.report import Reporter
from streaming.monitor.store.state import Position, Stand, State
from streaming.ports import TopicsSource
from streaming.records import InputRecord
from streaming.settings.monitor import MonitorSettings

log = structlog.get_logger()

POLL_MS = 200
# What comes meanwhile shares a transaction of the database.
GATHER_S = 0.5
EXPIRE_S = 1.0
RETRY_S = 0.2
ASK_S = 2.0


class Monitor:
    """Reads until stopped.

    Parameters
    ----------
    topics : TopicsSource
    names : mapping of str to str
        Stream to the name of its topic.
    state : State
    drift : DriftWatch
    info : InfoReader
    settings : MonitorSettings
    """

    def __init__(
        self,
        topics: TopicsSource,
        names: Mapping[str, str],
        state: State,
        drift: DriftWatch,
        info: InfoReader,
        settings: MonitorSettings,
    ) -> None:
        self._topics, self._names, self._state = topics, dict(names), state
        self._streams = {topic: stream for stream, topic in names.items()}
        self._intake = Intake(names)
        self._drift, self._info, self._settings = drift, info, settings
        self._reporter = Reporter(state, settings)
        self._stopped = threading.Event()
        self._ids: dict[str, str] = {}
        self._reported_at = self._expired_at = self._asked_at = float("-inf")
        self.last_turn = time.monotonic()
        self.last_commit = 0.0
        self.broker_answered_at = time.monotonic()
        self.waits_for: str | None = None
        self.document: dict[str, Any] | None = None

    def stop(self) -> None:
        """Let `run` return soon; any thread may ask."""
        self._stopped.set()

    def run(self) -> None:
        """Read until stopped.

        Raises
        ------
        StreamingError
            When the broker refuses, or the database fails.
        """
        self._place()
        self._follow_known()
        while not self._stopped.is_set():
            self._turn()

    def _turn(self) -> None:
        try:
            records = self._gather()
            is_other = self._is_other_topic(records)
        except (OffsetGone, BrokerUnavailable):
            self._stopped.wait(RETRY_S)
            is_other = True
        if is_other:
            self._place()  # what was gathered may be of either topic: it is read again
            return
        if records:
            self._take_in(records)
        self.last_turn = time.monotonic()
        self.broker_answered_at = self._topics.answered_at
        self._keep_house()

    def _is_other_topic(self, records: list[InputRecord]) -> bool:
        """Return whether a topic was made again since the offsets were placed; without records ask seldom."""
        if not records and time.monotonic() - self._asked_at < ASK_S:
            return False
        # Asked after the records were fetched: as long as the ids are the same, so are the topics.
        self._asked_at = time.monotonic()
        return self._topics.topic_ids() != self._ids

    def _gather(self) -> list[InputRecord]:
        most = self._settings.max_batch_records
        records = self._topics.poll(POLL_MS, most)
        until = time.monotonic() + GATHER_S
        while records and len(records) < most and (left := until - time.monotonic()) > 0:
            records += self._topics.poll(max(1, int(left * 1000)), most - len(records))
        return records

    def _take_in(self, records: list[InputRecord]) -> None:
        batch = self._intake.read(records)
        drift = self._drift.update(batch.payments, batch.decisions)
        ids = {self._streams[topic]: identity for topic, identity in self._ids.items()}
        self._state.apply(batch, ids, drift)
        self.last_commit = time.time()
        self._follow_releases(batch.decisions)

    def _follow_releases(self, decisions: list[ReleaseDecision]) -> None:
        latest = {one.role: one.release for one in decisions}
        for role, release in latest.items():
            self._follow(role, release)

    def _follow_known(self) -> None:
        """Watch the releases that decide now, as far as the database knows."""
        for role in (CHAMPION, CHALLENGER):
            for one in self._reporter.running(role)[:1]:
                self._follow(role, one.name)

    def _follow(self, role: int, release: str) -> None:
        if not self._drift.watches(role, release):
            self._drift.follow(role, release, read_promise(self._state.document(role, release)))

    def _keep_house(self) -> None:
        now = time.monotonic()
        while not self._info.documents.empty():
            found = self._info.documents.get()
            self._state.note_document(found.role, found.release, found.text)
            self._follow_known()
        if now - self._expired_at > EXPIRE_S:
            self._expired_at = now
            self._state.expire()
        if now - self._reported_at > self._settings.refresh_s:
            self._reported_at = now
            report = self._reporter.report(int(time.time() * 1000))
            self.document = report | {"lag_records": self._lags()}

    def _lags(self) -> dict[str, int]:
        lags: Counter[str] = Counter(dict.fromkeys(self._names, 0))
        for (topic, _), records in self._topics.lags().items():
            lags[self._streams[topic]] += records
        return dict(lags)

    def _place(self) -> None:
        """Find out where to go on: where the database says, unless those records or that topic are gone."""
        bounds = self._wait_for_bounds()
        if self._stopped.is_set():
            return
        kept = self._state.positions()
        by_stream = {(self._streams[topic], partition): ends for (topic, partition), ends in bounds.items()}
        for stream, topic in self._names.items():
            mine = {stand: ends for stand, ends in by_stream.items() if stand[0] == stream}
            self._place_stream(stream, self._ids.get(topic, ""), mine, kept)
        positions = self._state.positions()
        self._topics.seek(
            {(self._names[stream], n): positions[stream, n].next_offset for stream, n in by_stream}
        )

    def _wait_for_bounds(self) -> dict[tuple[str, int], tuple[int, int]]:
        """Return where the topics begin and end, and keep their ids; nothing once stopped."""
        while not self._stopped.is_set():
            try:
                self._ids = self._topics.topic_ids()
                bounds = self._topics.bounds()
                if self._topics.topic_ids() == self._ids:
                    self.waits_for = None
                    return bounds
            except BrokerUnavailable as error:
                if self.waits_for != str(error):
                    log.warning("waiting for the broker", error=str(error))
                self.waits_for = str(error)
            self._stopped.wait(RETRY_S)
            self.last_turn = time.monotonic()
            self.broker_answered_at = self._topics.answered_at
        return {}

    def _place_stream(
        self,
        stream: str,
        topic_id: str,
        bounds: Mapping[Stand, tuple[int, int]],
        kept: Mapping[Stand, Position],
    ) -> None:
        begin = {stand: Position(topic_id, first) for stand, (first, _) in bounds.items()}
        known = {stand: kept[stand] for stand in bounds if stand in kept}
        if any(_is_other(known[stand], topic_id, bounds[stand][1]) for stand in known):
            log.warning(
                "topic made again: its records are read from the beginning", topic=self._names[stream]
            )
            self._state.begin_anew(stream, begin)
            return
        moved, missed = {}, 0
        for stand, (first, last) in bounds.items():
            offset = known[stand].next_offset if stand in known else first
            missed += max(0, first - offset)
            if offset > last:
                # An unclean change of leaders: what comes under these offsets once more is not counted again.
                log.warning(
                    "broker lost records that were read", topic=self._names[stream], records=offset - last
                )
            moved[stand] = Position(topic_id, min(last, max(first, offset)))
        if missed:
            log.warning("records deleted before they were read", topic=self._names[stream], records=missed)
        self._state.move(moved, {stream: missed} if missed else {})


def _is_other(position: Position, topic_id: str, end: int) -> bool:
    """Return whether a position is of another making of the topic."""
    if position.topic_id and topic_id:
        return position.topic_id != topic_id
    return position.next_offset > end
