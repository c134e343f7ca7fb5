"""The consumer that this project replaces, re-made from its description: one blocking HTTP call per message.

It reads a topic, posts each message to the service, waits, prints frauds, publishes nothing and
drops what fails. Run as ``python -m benchmarks.streaming_original SERVERS TOPIC URL SECONDS``; it
prints how many messages it got through and in how many seconds.
"""

import json
import sys
import time

import requests
from kafka import KafkaConsumer


def consume(servers: str, topic: str, url: str, seconds: float) -> tuple[int, float]:
    """Return the messages decided and the seconds from the first to the last of them."""
    consumer = KafkaConsumer(
        topic,
        bootstrap_servers=servers,
        group_id=f"original-{time.time_ns()}",
        auto_offset_reset="earliest",
        enable_auto_commit=True,
        consumer_timeout_ms=60_000,
    )
    decided, begun = 0, 0.0
    for message in consumer:
        begun = begun or time.perf_counter()
        try:
            answer = requests.post(url, json=json.loads(message.value), timeout=5)
            answer.raise_for_status()
            answer.json()
        except (requests.RequestException, ValueError) as error:
            print(f"Error: {error}")  # and the message is gone
            continue
        decided += 1
        if time.perf_counter() - begun > seconds:
            break
    elapsed = time.perf_counter() - begun
    consumer.close(autocommit=False)
    return decided, elapsed


if __name__ == "__main__":
    count, elapsed = consume(sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4]))
    print(json.dumps({"decided": count, "seconds": elapsed}))
