"""How much is streamed, how fast, and what must hold at the end."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Plan:
    """The sizes of one run; two simulated days go by in less than three minutes.

    Attributes
    ----------
    day_rows : int
        Transactions of two simulated days: of the first training, and of each file of the stream.
    files : int
        Files of the stream: more than a slow machine needs, it ends when the circle is closed.
    prevalence : float
        Share of fraud: more than in the ULB set, so that minutes bring as many frauds as weeks do there.
    change_at : int
        Transaction of the stream after which the fraud pattern is another.
    rate : int
        Transactions, and labels, per second.
    label_delay_s : float
        Time from a transaction to its label, seconds; weeks in real life.
    control_share : float
        Share of the transactions that belong to the random control sample.
    retrain_rows : int
        Labelled transactions after the change that the retraining waits for.
    shadow_frauds : int
        Labelled frauds that both releases have decided, before the gate is asked.
    after_rows : int
        Transactions after the change of release by which it is judged.
    drift_bound, recall_bound : int
        Transactions after the change within which the monitor has to raise the alarm.
    recall_loss : float
        How far recall may stay below what it was before the change.
    training : mapping
        Variables of simulator and training: small models, so that two cores have them in seconds.
    streaming : mapping
        Variables of every streaming command: larger batches, since each costs bridge, broker and monitor the
        same whatever it holds, and two cores train meanwhile.
    """

    day_rows: int = 40_000
    files: int = 7
    prevalence: float = 0.02
    change_at: int = 14_000
    rate: int = 400
    label_delay_s: float = 5.0
    control_share: float = 0.05
    retrain_rows: int = 22_000
    shadow_frauds: int = 100
    after_rows: int = 14_000
    drift_bound: int = 6000
    recall_bound: int = 8000
    recall_loss: float = 0.05
    training: Mapping[str, str] = field(
        default_factory=lambda: {
            # All frauds follow the new pattern: minutes bring too few to learn two patterns at once.
            "TRAINING__SIMULATE__CHANGED_FRAUD_SHARE": "1",
            "TRAINING__NETWORK__HIDDEN": "[64, 32]",
            "TRAINING__NETWORK__EPOCHS": "8",
            "TRAINING__XGBOOST__TREES": "80",
            "TRAINING__EVALUATION__RESAMPLES": "100",
            "TRAINING__GATE__RESAMPLES": "100",
        }
    )

    streaming: Mapping[str, str] = field(
        default_factory=lambda: {
            "STREAMING__BRIDGE__FETCH_INTERVAL_MS": "200",
            "STREAMING__REPLAY__TICK_MS": "100",
            "STREAMING__LABEL__TICK_MS": "100",
            # The monitor's day is twenty seconds.
            "STREAMING__MONITOR__BUCKET_S": "5",
            "STREAMING__MONITOR__ALARM_WINDOW_S": "20",
            "STREAMING__MONITOR__REFRESH_S": "1",
            "STREAMING__MONITOR__INFO_REFRESH_S": "2",
        }
    )
