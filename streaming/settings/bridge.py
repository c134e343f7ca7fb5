"""Settings of the bridge itself."""

from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from streaming.settings.sections import Section, refuse_dots


class BridgeSettings(Section):
    """The consumer group, the transaction and the life cycle."""

    group: str = Field("fraud-bridge", min_length=1, max_length=249, description="Consumer group.")
    instance_id: Annotated[str, AfterValidator(refuse_dots)] = Field(
        "bridge-0",
        min_length=1,
        max_length=200,
        pattern=r"^[a-zA-Z0-9._-]+$",
        description="Identity of this bridge in its group: group instance and transactional id; "
        "a restart under the same id takes over at once, two processes must never share one.",
    )
    max_in_flight_batches: int = Field(
        8, ge=1, le=100, description="Largest number of batches between fetched and committed."
    )
    max_in_flight_bytes: int = Field(
        33_554_432,
        ge=1024,
        le=4_294_967_296,
        description="Largest number of bytes of transactions between fetched and committed.",
    )
    poll_timeout_ms: int = Field(
        100, ge=1, le=10_000, description="Longest wait for new records, milliseconds."
    )
    fetch_interval_ms: float = Field(
        16.0,
        ge=0,
        le=1000,
        description="Shortest time between two fetches, milliseconds; records that arrive meanwhile share "
        "a request and a transaction.",
    )
    session_timeout_ms: int = Field(
        10_000,
        ge=1000,
        le=1_800_000,
        description="The group gives a bridge's partitions to others after this silence, milliseconds.",
    )
    max_poll_interval_ms: int = Field(
        120_000,
        ge=10_000,
        le=3_600_000,
        description="Longest time a rebalance waits for a bridge, milliseconds.",
    )
    transaction_timeout_ms: int = Field(
        20_000,
        ge=1000,
        le=900_000,
        description="The broker aborts a transaction that is open longer, milliseconds; "
        "other bridges wait that long for the partitions of one that was killed.",
    )
    transaction_deadline_s: float = Field(
        10.0,
        gt=0,
        le=600,
        description="Limit for the sends and the commit of one transaction, seconds; "
        "the producer is replaced when it passes.",
    )
    revoke_timeout_s: float = Field(
        3.0,
        ge=0,
        le=60,
        description="How long a rebalance waits for work in flight before it is dropped, seconds; "
        "less than half of session_timeout_ms.",
    )
    stop_timeout_s: float = Field(
        5.0,
        ge=0,
        le=8,
        description="How long SIGTERM waits for work in flight before it is dropped, seconds.",
    )
    leave_on_stop: bool = Field(
        True,
        description="Leave the group at the end, so that others get the partitions at once; "
        "false: keep them for session_timeout_ms, for a quick restart without a rebalance.",
    )
    accept_gap: bool = Field(
        False,
        description="Go on where committed records are gone from the log (an unclean leader election), as "
        "`bridge --accept-gap` does once; records that retention removed never stop the bridge.",
    )
    membership_check_s: float = Field(
        3.0,
        gt=0,
        le=600,
        description="Time between two checks of the group, seconds: whether another process has the instance "
        "id, and whether every partition has a reader.",
    )

    @model_validator(mode="after")
    def _times_fit(self) -> "BridgeSettings":
        if self.transaction_deadline_s * 1000 >= self.transaction_timeout_ms:
            raise ValueError("bridge.transaction_deadline_s must be shorter than transaction_timeout_ms")
        if 2 * self.revoke_timeout_s * 1000 >= self.session_timeout_ms:
            message = "twice bridge.revoke_timeout_s must be shorter than session_timeout_ms, or the group "
            raise ValueError(message + "gives the bridge up while it finishes, then drops, what is in flight")
        return self
