"""The strata in which the random control sample stands for transactions without a label.

What is done with a transaction decides how its class becomes known: of an approved one by its chargeback, of
a reviewed one from an investigator, of a declined one from nobody. So a transaction of the sample stands only
for those of its release that were treated alike. The export weighs by these strata, and the monitor's figures
rest on them.
"""

APPROVED, REVIEWED, ALARMED = range(3)
#: A review without an alarm is one for its expected loss.
STRATA = ("approved", "reviewed without an alarm", "alarmed")


def find_stratum(decision: str, is_alarm: bool) -> int:
    """Return the index in `STRATA` of a decision.

    Parameters
    ----------
    decision : str
        ``approve``, ``review`` or ``decline``.
    is_alarm : bool
        Whether a model raised an alarm: ``is_fraud`` of the decision record.

    Examples
    --------
    >>> STRATA[find_stratum("review", is_alarm=False)]
    'reviewed without an alarm'
    """
    if decision == "approve":
        return APPROVED
    return ALARMED if is_alarm else REVIEWED
