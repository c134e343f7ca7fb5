"""Runs `label`: sends the labels of a file, with a progress line on a terminal."""

import sys
import threading
import time

from streaming.broker.idempotent_producer import IdempotentProducer
from streaming.broker.topics import prepare_labels
from streaming.commands.progress_bar import show_count
from streaming.commands.signals import StopSignals
from streaming.errors import SettingsError
from streaming.labels.label_files import read_label_rows
from streaming.labels.send import Labelled, LabelTopics, send_labels
from streaming.replay.rate_limiter import RateLimiter
from streaming.settings.load import Settings


def run_label(settings: Settings) -> None:
    """Send the labels of a file, with a progress line on a terminal.

    Raises
    ------
    StreamingError
        When the file cannot be read, the topics do not fit together, or the broker does not take the labels.
    """
    options, names = settings.label, settings.topics
    if options.data is None:
        raise SettingsError("--data is missing: name a CSV or parquet file with labels.")
    rows = read_label_rows(options.data, options.origin, lambda: time.time_ns() // 1_000_000, options.limit)
    stopped = threading.Event()
    signals = StopSignals(forced_status=1)  # labels that are not acknowledged by then may be missing
    prepare_labels(settings)
    producer = IdempotentProducer(settings.kafka, options.delivery_timeout_s)
    signals.on_stop(stopped.set)
    try:
        with show_count("labels sent", options.limit) as report:
            done = send_labels(
                rows,
                producer,
                LabelTopics(names.labels, names.labels_dead_letter),
                RateLimiter(options.rate, options.tick_ms / 1000),
                report,
                stopped.is_set,
            )
    finally:
        producer.close()
    sys.stdout.write(_sentence(done))


def _sentence(done: Labelled) -> str:
    parts = ", ".join(f"{count} {said}" for said, count in sorted(done.labels.items())) or "none"
    text = f"{done.labels.total()} labels in {done.seconds:.2f} s: {parts}\n"
    if done.rejected:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(done.rejected.items()))
        text += f"{done.rejected.total()} rows are no labels, see the dead letters: {reasons}\n"
    return text
