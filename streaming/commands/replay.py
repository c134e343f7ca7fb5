"""Runs `replay`: sends the transactions of a file, with a progress line on a terminal."""

import sys
import threading

from streaming.broker.idempotent_producer import IdempotentProducer
from streaming.broker.topics import prepare_input
from streaming.commands.progress_bar import show_count
from streaming.commands.signals import StopSignals
from streaming.replay.rate_limiter import RateLimiter
from streaming.replay.replay import data_file, repeated, replay
from streaming.settings.load import Settings


def run_replay(settings: Settings) -> None:
    """Send the transactions of a file, with a progress line on a terminal.

    Raises
    ------
    StreamingError
        When the file cannot be read or the broker does not take them.
    """
    stopped = threading.Event()
    signals = StopSignals(forced_status=1)  # records that are not acknowledged by then may be missing
    prepare_input(settings)
    producer = IdempotentProducer(settings.kafka, settings.replay.delivery_timeout_s)
    signals.on_stop(stopped.set)
    options = settings.replay
    rows = options.limit or options.simulated_rows
    try:
        with data_file(options.data, rows) as path, show_count("sent", options.limit) as report:
            done = replay(
                repeated(path, options.loop, options.limit),
                producer,
                settings.topics.input,
                RateLimiter(options.rate, options.tick_ms / 1000),
                report,
                stopped.is_set,
            )
    finally:
        producer.close()
    sys.stdout.write(
        f"{done.transactions} transactions in {done.seconds:.2f} s, {done.per_second:.1f} per second\n"
    )
