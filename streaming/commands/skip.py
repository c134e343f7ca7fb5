"""Runs `skip`: has a record that the service fails on sent to the dead letters, by hand and recorded."""

import sys
import time

from streaming.broker.admin import Admin
from streaming.broker.group.group_membership import skip_group
from streaming.broker.range_reader import RangeReader
from streaming.commands.topics import find_topic
from streaming.errors import DataError, SettingsError
from streaming.settings.load import Settings

POLL_S = 1.0


def run_skip(settings: Settings) -> None:
    """Order the bridge that holds a record to skip it, and wait until it has.

    The bridge itself writes the dead letter (stage ``classify``, reason ``skipped``) and commits the offset
    in one transaction, so that the record never has two outcomes. The order is kept in the offsets of a group
    of its own and waits for a bridge.

    Raises
    ------
    StreamingError
        If there is no such record, it has an outcome already, or no bridge has skipped it in time.
    """
    order, topic, group = settings.skip, settings.topics.input, settings.bridge.group
    if order.partition is None or order.offset is None or not order.reason:
        raise SettingsError("streaming skip needs --partition, --offset and --reason.")
    where = f"{topic}, partition {order.partition}, offset {order.offset}"
    find_topic(settings, topic)
    with RangeReader(settings.kafka, group) as reader, Admin(settings.kafka) as admin:
        first, end = (
            reader.resolve(topic, bound).get(order.partition, 0) for bound in ("earliest", "latest")
        )
        if not first <= order.offset < end:
            raise DataError(f"There is no record at {where}: the partition has {first} to {end}.")
        if reader.committed(topic).get(order.partition, 0) > order.offset:
            raise DataError(f"{where} has an outcome already: group {group} has gone past it.")
        admin.write_note(skip_group(group), topic, order.partition, order.offset, order.reason)
        deadline = time.monotonic() + order.wait_s
        while reader.committed(topic).get(order.partition, 0) <= order.offset:
            if time.monotonic() > deadline:
                raise DataError(
                    f"The order to skip {where} is kept, but no bridge of group {group} has stood at it "
                    f"within {order.wait_s:g} s: a bridge follows it when the service fails on the record."
                )
            time.sleep(POLL_S)
    sys.stdout.write(f"{where} was skipped: its dead letter has the reason `skipped` and your text.\n")
