"""Draws the circle: recall and drift over time, both releases, and what happened."""

from pathlib import Path
from typing import Any

import numpy as np

from demo.loop.account import Outcome
from demo.loop.story import Story

SLICE_S = 10.0
COLOURS = ("tab:blue", "tab:green")


def draw(story: Story, path: Path) -> None:
    """Write the picture.

    Parameters
    ----------
    story : Story
    path : pathlib.Path
        PNG file.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    events = sorted(story.events)
    begun = events[0][0]
    figure, (quality, drift) = plt.subplots(
        2, 1, figsize=(12, 7.5), sharex=True, height_ratios=(3, 2), layout="constrained"
    )
    _quality(quality, story, begun)
    _drift(drift, story, begun)
    for number, (at, _) in enumerate(events, 1):
        for axes in (quality, drift):
            axes.axvline(at - begun, color="0.55", linewidth=0.8, linestyle=":")
        quality.annotate(
            str(number),
            (at - begun, 1.02 + 0.045 * (number % 2)),
            xycoords=("data", "axes fraction"),
            horizontalalignment="center",
            fontsize=9,
        )
    told = "     ".join(f"{number} {what}" for number, (_, what) in enumerate(events, 1))
    figure.suptitle("A change of the fraud pattern, seen, learned and answered while the stream runs")
    figure.supxlabel(_wrapped(told, 150), fontsize=9)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _wrapped(text: str, width: int) -> str:
    lines = [""]
    for part in text.split("     "):
        if len(lines[-1]) + len(part) > width:
            lines.append("")
        lines[-1] += part + "     "
    return "\n".join(line.strip() for line in lines)


def _quality(axes: Any, story: Story, begun: float) -> None:  # noqa: ANN401  # matplotlib's
    made = list(story.account.made.values())
    for release, colour in zip((story.first, story.second), COLOURS, strict=True):
        at, recall, low, high = _slices([one for one in made if one.release == release], begun)
        axes.plot(at, recall, "o-", color=colour, label=f"recall of release {release}, what was true")
        axes.fill_between(at, low, high, color=colour, alpha=0.18, linewidth=0)
    seen = [(at, figure) for at, figure in _arrived(story) if figure["value"] is not None]
    axes.plot(
        [at - begun for at, _ in seen],
        [figure["value"] for _, figure in seen],
        color="black",
        linewidth=1,
        label="the champion's recall as the monitor sees it: by the labels of the last 20 s",
    )
    axes.set_ylim(0, 1)
    axes.set_ylabel("recall")
    axes.legend(loc="center", fontsize=9)


def _slices(outcomes: list[Outcome], begun: float) -> tuple[list[float], ...]:
    """Return middle, recall and its 95 % Wilson interval of each slice of time."""
    counts: dict[int, list[int]] = {}
    for one in outcomes:
        if one.is_fraud:
            found = counts.setdefault(int((one.decided_at_ms / 1000 - begun) // SLICE_S), [0, 0])
            found[0] += one.is_alarm
            found[1] += 1
    rows = []
    for place, (caught, frauds) in sorted(counts.items()):
        share, z2 = caught / frauds, 1.96**2
        middle = (share + z2 / (2 * frauds)) / (1 + z2 / frauds)
        half = 1.96 * np.sqrt(share * (1 - share) / frauds + z2 / (4 * frauds**2)) / (1 + z2 / frauds)
        rows.append((SLICE_S * (place + 0.5), share, middle - half, middle + half))
    return tuple(list(column) for column in zip(*rows, strict=True)) if rows else ([], [], [], [])


def _arrived(story: Story) -> list[tuple[float, dict[str, Any]]]:
    return [
        (at, one["arrived"]["recall"])
        for at, document in story.monitored.history
        for one in document.get("releases", ())
        if one["role"] == "champion" and one["is_current"]
    ]


def _drift(axes: Any, story: Story, begun: float) -> None:  # noqa: ANN401  # matplotlib's
    for release, colour in zip((story.first, story.second), COLOURS, strict=True):
        found = [
            (at - begun, one["divergence"] / one["threshold"])
            for at, document in story.monitored.history
            for one in document.get("drift", ())
            if (one["role"], one["release"], one["series"]) == ("champion", release, "V14")
        ]
        if found:
            axes.plot(
                *zip(*found, strict=True), color=colour, label=f"V14 against the data of release {release}"
            )
    axes.axhline(1.0, color="tab:red", linewidth=1, linestyle="--", label="alarm")
    axes.set_yscale("log")
    axes.set_ylabel("drift: divergence / threshold")
    axes.set_xlabel("seconds since the stream began")
    axes.legend(loc="upper left", fontsize=9)
