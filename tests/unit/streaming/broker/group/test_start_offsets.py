"""Where a group begins in a partition, and what is said when records are missing."""

import pytest

from streaming.broker.group.start_offsets import CommittedOffset, Log, StartOffset, choose_start
from streaming.errors import OffsetGap

LOG = Log("transactions", 3, first=100, end=200, topic_id="now")


@pytest.mark.parametrize(
    ("committed", "decided_until", "start"),
    [
        (CommittedOffset(150, 7, "now"), None, StartOffset(150, 7)),
        (CommittedOffset(200, 7), None, StartOffset(200, 7)),
        (CommittedOffset(60, 7, "now"), None, StartOffset(100, skipped=40, reason="removed")),
        (CommittedOffset(150, 7, "before"), None, StartOffset(100, reason="recreated")),
        (CommittedOffset(999, 7, "before"), None, StartOffset(100, reason="recreated")),
        (None, None, StartOffset(100)),
        (None, 150, StartOffset(150, reason="expired")),
        (None, 60, StartOffset(100, skipped=40, reason="removed")),
        (None, 201, StartOffset(100, reason="recreated")),
    ],
)
def test_a_group_begins_where_its_work_ends(
    committed: CommittedOffset | None, decided_until: int | None, start: StartOffset
) -> None:
    assert choose_start(LOG, committed, decided_until, accept_gap=False) == start


def test_a_log_that_lost_committed_records_stops_the_bridge_until_somebody_accepts_it() -> None:
    committed = CommittedOffset(250, 7, "now")
    with pytest.raises(OffsetGap) as caught:
        choose_start(LOG, committed, None, accept_gap=False)
    for part in ("transactions, partition 3", "offset 250", "100 to 200", "--accept-gap"):
        assert part in str(caught.value)
    without_epoch = CommittedOffset(250, -1, "now")
    assert choose_start(LOG, without_epoch, None, accept_gap=True) == StartOffset(200, reason="truncated")


def test_what_was_written_since_the_cut_is_not_skipped_with_an_accepted_gap() -> None:
    """The end of the log lies beyond the cut: the leader tells by the epoch where it is."""
    committed = CommittedOffset(250, 7, "now")
    assert choose_start(LOG, committed, None, accept_gap=True) == StartOffset(250, 7)
