"""Works out ``/quality.json``, which is all that the page and the metrics show."""

import json
import shutil
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, NamedTuple

from streaming.monitor.observations import CHALLENGER, CHAMPION, PAIR, ROLES
from streaming.monitor.promises import Promise, read_promise
from streaming.monitor.quality.alarms import KINDS, Alarm, Bounds, Recent, advise, drift_alarm, judge_quality
from streaming.monitor.quality.figures import (
    ALARMS,
    Judgement,
    Slice,
    Sums,
    add_up,
    paired_figures,
    precision,
    recall,
    window_figures,
)
from streaming.monitor.quality.intervals import quantile_of, share
from streaming.monitor.quality.series import points
from streaming.monitor.store.cells import ARRIVAL, DAY, DAY_MS, FINE, TOTAL
from streaming.monitor.store.state import State
from streaming.settings.monitor import MonitorSettings

SCHEMA = 1
WINDOWS = {"hour": 3_600_000, "day": DAY_MS, "week": 7 * DAY_MS}
SINCE = "since_release"
# Releases shown for each role, the newest first.
RELEASES_SHOWN = 5
ALARMS_SHOWN = 50


class Running(NamedTuple):
    """A release that a role has decided with.

    Attributes
    ----------
    number : int
        In the table `releases`.
    since_ms, until_ms : int
        Beginning of its first, end of its last slice.
    """

    role: int
    number: int
    name: str
    since_ms: int
    until_ms: int


class Reporter:
    """Reads the state, judges it and notes alarms.

    Parameters
    ----------
    state : State
    settings : MonitorSettings
    """

    def __init__(self, state: State, settings: MonitorSettings) -> None:
        self._state, self._settings = state, settings
        self._connection = state.connection

    def report(self, now_ms: int) -> dict[str, Any]:
        """Return the document of ``/quality.json`` but what only the loop knows: its health and its lags.

        Alarms that begin or end are noted on the way.
        """
        as_of_ms = self._state.as_of_ms
        running = [one for role in (CHAMPION, CHALLENGER) for one in self.running(role)]
        current = self.current(running)
        drift = list(self._drift(current))
        alarms = [alarm for one in current.values() for alarm in self._judge(one)]
        alarms += [
            drift_alarm(
                *(one[key] for key in ("role_number", "release", "series", "divergence", "threshold", "rows"))
            )
            for one in drift
            if one["is_drifted"]
        ]
        self._note(alarms, now_ms)
        champion = current.get(CHAMPION)
        return {
            "schema": SCHEMA,
            "generated_at_ms": now_ms,
            "as_of_ms": as_of_ms or None,
            "retraining": self._advice(alarms, champion)._asdict(),
            "releases": [self._release(one, is_current=current.get(one.role) is one) for one in running],
            "shadow": self._shadow(current),
            "drift": [{key: value for key, value in one.items() if key != "role_number"} for one in drift],
            "alarms": self._alarms(),
            "series": [
                {
                    "role": ROLES[one.role],
                    "release": one.name,
                    "points": points(self._connection, one, as_of_ms, self._how(one)),
                }
                for one in running
            ],
            "counts": self._counts(),
        }

    def running(self, role: int) -> list[Running]:
        """Return the releases of a role, the latest first."""
        rows = self._connection.execute(
            "SELECT release, name, min(start), max(start) FROM decided JOIN releases ON id = release "
            "WHERE level = ? AND role = ? GROUP BY release ORDER BY max(start) DESC, release DESC",
            (DAY, role),
        ).fetchall()
        found = [self._timed(role, *row) for row in rows[: 2 * RELEASES_SHOWN]]
        # Two releases may share their last day; within it the slices tell which came later.
        found.sort(key=lambda one: (one.until_ms, one.number), reverse=True)
        return found[:RELEASES_SHOWN]

    def _timed(self, role: int, number: int, name: str, first_day: int, last_day: int) -> Running:
        first, last = self._connection.execute(
            "SELECT min(start), max(start) FROM decided WHERE level = ? AND role = ? AND release = ?",
            (FINE, role, number),
        ).fetchone()
        width = self._settings.bucket_s * 1000
        if first is None:  # only its days are kept
            return Running(role, number, name, first_day, last_day + DAY_MS)
        # Older slices are gone where the release began on an earlier day than the oldest that is left.
        since = first if first < first_day + DAY_MS else first_day
        return Running(role, number, name, since, last + width)

    def current(self, running: list[Running]) -> dict[int, Running]:
        """Return the release that each role decides with now; a challenger that stands still is none."""
        found: dict[int, Running] = {}
        for one in running:
            is_idle = one.until_ms < self._state.as_of_ms - self._settings.stale_after_s * 1000
            if one.role not in found and not (one.role == CHALLENGER and is_idle):
                found[one.role] = one
        return found

    def _promise(self, one: Running) -> Promise:
        return read_promise(self._state.document(one.role, one.name))

    def _how(self, one: Running) -> Judgement:
        cost = self._promise(one).review_cost
        return Judgement(
            self._settings.confidence,
            self._settings.review_cost if cost is None else cost,
            self._settings.amount_bands,
        )

    def _sums(self, role: int, number: int, window: str) -> tuple[int, Sums]:
        if window == SINCE:
            return 0, add_up(self._connection, Slice(TOTAL, role, number, 0))
        start = self._start(WINDOWS[window])
        return start, add_up(self._connection, Slice(FINE, role, number, start))

    def _start(self, length_ms: float) -> int:
        """Return where a window that ends now begins: at the beginning of a slice."""
        width = self._settings.bucket_s * 1000
        return max(0, int((self._state.as_of_ms - length_ms) // width * width))

    def _release(self, one: Running, *, is_current: bool) -> dict[str, Any]:
        promise, how = self._promise(one), self._how(one)
        windows = {}
        for window in (*WINDOWS, SINCE):
            start, sums = self._sums(one.role, one.number, window)
            ends = {"from_ms": max(start, one.since_ms), "to_ms": self._state.as_of_ms}
            windows[window] = ends | window_figures(sums, how)
        start, arrived = self._arrived(one)
        return {
            "role": ROLES[one.role],
            "release": one.name,
            "is_current": is_current,
            "since_ms": one.since_ms,
            "until_ms": one.until_ms,
            "expected": {
                "recall": promise.recall,
                "precision": promise.precision,
                "alarm_rate": promise.alarm_rate,
            },
            "windows": windows,
            "arrived": {
                "from_ms": start,
                "recall": recall(arrived, how.z)._asdict(),
                "precision": precision(arrived, how.z)._asdict(),
            },
        }

    def _arrived(self, one: Running) -> tuple[int, Sums]:
        """Return the sums over the labels that came lately, however old their transactions are."""
        start = self._start(self._settings.alarm_window_s * 1000)
        return start, add_up(self._connection, Slice(ARRIVAL, one.role, one.number, start))

    def _judge(self, one: Running) -> Iterator[Alarm]:
        settings, promise = self._settings, self._promise(one)
        z = quantile_of(settings.alarm_confidence)
        start, arrived = self._arrived(one)
        lately = add_up(self._connection, Slice(FINE, one.role, one.number, start))
        recent = Recent(
            recall(arrived, z),
            precision(arrived, z),
            share(lately.decided(*ALARMS), lately.decided(), z),
        )
        bounds = Bounds(
            promise.recall,
            promise.precision,
            promise.alarm_rate,
            settings.recall_tolerance,
            settings.precision_tolerance,
            settings.alarm_rate_factor,
            settings.min_frauds,
        )
        yield from judge_quality(one.role, one.name, recent, bounds)

    def _drift(self, current: dict[int, Running]) -> Iterator[dict[str, Any]]:
        for kept in self._state.drift().values():
            if kept.role not in current or current[kept.role].name != kept.release:
                continue
            for finding in json.loads(kept.findings):
                yield {
                    "role": ROLES[kept.role],
                    "role_number": kept.role,
                    "release": kept.release,
                    **finding,
                }

    def _note(self, alarms: list[Alarm], now_ms: int) -> None:
        rows = self._connection.execute(
            "SELECT id, kind, role, release, series FROM alarms WHERE until_ms IS NULL"
        ).fetchall()
        active = {tuple(key): number for number, *key in rows}
        raised = {alarm.key: alarm for alarm in alarms}
        if active.keys() == raised.keys():
            return
        with self._state.database.transaction():
            for key, number in active.items():
                if key not in raised:
                    self._connection.execute("UPDATE alarms SET until_ms = ? WHERE id = ?", (now_ms, number))
            for key, alarm in raised.items():
                if key not in active:
                    self._connection.execute(
                        "INSERT INTO alarms (kind, role, release, series, since_ms, sentence) "
                        "VALUES (?, ?, ?, ?, ?, ?)",
                        (*key, now_ms, alarm.sentence),
                    )
                    self._state.database.count("alarms", "", alarm.kind)

    def _alarms(self) -> list[dict[str, Any]]:
        rows = self._connection.execute(
            "SELECT kind, role, release, series, since_ms, until_ms, sentence FROM alarms "
            "ORDER BY until_ms IS NOT NULL, since_ms DESC, id DESC LIMIT ?",
            (ALARMS_SHOWN,),
        )
        names = ("kind", "role", "release", "series", "since_ms", "until_ms", "sentence")
        found = [dict(zip(names, row, strict=True)) for row in rows]
        return [{**one, "role": ROLES[one["role"]]} for one in found]

    @staticmethod
    def _advice(alarms: list[Alarm], champion: Running | None) -> Any:  # noqa: ANN401
        sentences: defaultdict[str, list[str]] = defaultdict(list)
        for alarm in alarms:
            if alarm.role == CHAMPION:
                sentences[alarm.kind].append(alarm.sentence)
        return advise(sentences, champion.name if champion else None)

    def _shadow(self, current: dict[int, Running]) -> dict[str, Any] | None:
        champion, challenger = current.get(CHAMPION), current.get(CHALLENGER)
        if champion is None or challenger is None:
            return None
        number = self._pair(f"{champion.name}/{challenger.name}")
        if number is None:
            return None
        how = self._how(champion)
        windows = {}
        for window in ("day", "week", SINCE):
            _, sums = self._sums(PAIR, number, window)
            windows[window] = paired_figures(sums, how)
        return {"champion": champion.name, "challenger": challenger.name, "windows": windows}

    def _pair(self, name: str) -> int | None:
        found = self._connection.execute("SELECT id FROM releases WHERE name = ?", (name,)).fetchone()
        return int(found[0]) if found is not None else None

    def _counts(self) -> dict[str, Any]:
        rows = self._connection.execute("SELECT name, stream, outcome, count FROM counters").fetchall()
        records: defaultdict[str, dict[str, int]] = defaultdict(dict)
        for name, stream, outcome, count in rows:
            if name == "records":
                records[stream][outcome] = count
        disk = shutil.disk_usage(self._settings.state)
        return {
            "records": dict(records),
            "missed": {stream: count for name, stream, _, count in rows if name == "missed"},
            "made_again": {stream: count for name, stream, _, count in rows if name == "made_again"},
            "labels_waiting": self._state.labels.waiting(),
            "labels_expired": sum(count for name, _, _, count in rows if name == "labels_expired"),
            "alarms": dict.fromkeys(KINDS, 0) | {of: n for name, _, of, n in rows if name == "alarms"},
            "state_bytes": self._state.database.size,
            "disk_bytes": disk.total,
            "disk_free_bytes": disk.free,
        }
