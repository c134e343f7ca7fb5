"""The circle, step by step: what is done, what is waited for, and when it happened."""

import json
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq
from kafka import KafkaConsumer, OffsetAndMetadata, TopicPartition

from demo.brokers import Broker
from demo.errors import DemoError
from demo.loop.account import Account
from demo.loop.data import Data, misjoin_labels
from demo.loop.parts import REFUSED, Parts, wait_status
from demo.loop.watch import (
    FOLLOW_EVERY_S,
    LOOK_EVERY_S,
    PROBE_EVERY_S,
    Follower,
    Monitored,
    Prober,
    Thread,
    wait_for,
)
from demo.processes import Process
from demo.screen import Screen

PROBED_ROWS = 5
# Steps take twice to four times as long on a busy machine.
TIMEOUT_S = 300.0


@dataclass
class Story:
    """What a run has come to.

    Attributes
    ----------
    events : list of (float, str)
        Seconds since 1970, and what happened.
    worse_status : int
        Exit status of the promotion of the worse challenger.
    worse_said, promoted_said : str
        What the gate said of either.
    """

    parts: Parts
    data: Data
    broker: Broker
    account: Account
    follower: Follower
    prober: Prober
    monitored: Monitored
    first: str
    second: str = ""
    events: list[tuple[float, str]] = field(default_factory=list)
    worse_status: int = -1
    worse_said: str = ""
    promoted_said: str = ""

    def note(self, what: str) -> None:
        """Remember when something happened."""
        self.events.append((time.time(), what))

    @property
    def seen(self) -> int:
        """Transactions read back from the stream."""
        return len(self.account.produced_at_ms)


def begin(parts: Parts, data: Data, broker: Broker, stack: ExitStack, screen: Screen) -> Story:
    """Start service, bridge and monitor, and look at them from outside."""
    with screen.step("Start service, bridge and monitor") as step:
        service = parts.start_service()
        bridge = parts.start_bridge(service.url, parts.topics.stream, "bridge")
        monitor = parts.start_monitor(service.url)
        for part in (service, bridge, monitor):
            part.wait()
        monitored = Monitored(monitor.url)
        account = Account(fraud=data.fraud, place=data.place)
        follower = Follower(broker.address, parts.topics.stream, account)
        stack.callback(follower.close)
        prober = Prober(service.url, _body(data.stream))
        prober.turn()
        story = Story(parts, data, broker, account, follower, prober, monitored, prober.releases[-1][1])
        for turn, every_s in (
            (follower.turn, FOLLOW_EVERY_S),
            (prober.turn, PROBE_EVERY_S),
            (monitored.turn, LOOK_EVERY_S),
        ):
            stack.enter_context(Thread(turn, every_s))
        step.done(f"{broker.description}; the monitor's page: {monitored.url}/")
    return story


def _body(stream: Path) -> bytes:
    rows = pq.read_table(stream).slice(0, PROBED_ROWS).to_pylist()
    for row in rows:
        del row["Class"]
    return json.dumps(rows).encode()


def stream_until_alarm(story: Story, screen: Screen) -> tuple[Process, Process]:
    """Stream, let labels follow, and wait until the monitor has seen the change."""
    plan, monitored = story.parts.plan, story.monitored
    with screen.step("Stream; labels follow; the fraud pattern changes; the monitor raises alarms") as step:
        replay = story.parts.start_replay(story.data.stream)
        wait_for("The first transaction", lambda: story.seen > 0, 60)
        story.note("the stream begins")
        wait_for("Waiting for labels", lambda: story.seen >= plan.label_delay_s * plan.rate, TIMEOUT_S)
        labels = story.parts.start_labels(story.data.labels)
        story.note("labels begin to arrive")
        wait_for("The change", lambda: story.seen >= plan.change_at, TIMEOUT_S)
        story.note("the fraud pattern changes")
        for kind, what in (("drift", "alarm: inputs drift"), ("recall", "alarm: recall falls")):
            story.events.append((_wait_for_alarm(story, kind), what))
        step.done(monitored.latest["retraining"]["sentence"])
    return replay, labels


def _wait_for_alarm(story: Story, kind: str) -> float:
    """Return when the monitor raised an alarm on the champion, seconds since 1970."""

    def raised_at_ms() -> int | None:
        return story.monitored.first_alarm_ms(kind, story.first)

    wait_for(f"The alarm of {kind}", lambda: raised_at_ms() is not None, TIMEOUT_S)
    return (raised_at_ms() or 0) / 1000


def offer_worse(story: Story, screen: Screen) -> None:
    """Train on labels that stand beside the wrong transactions; the gate has to refuse it."""
    parts = story.parts
    with screen.step("Offer a worse challenger: its labels were joined to other transactions") as step:
        parts.export(parts.folder / "export-early.parquet")
        misjoin_labels(parts.folder / "export-early.parquet", parts.folder / "misjoined.parquet")
        wait_status(parts.train(parts.folder / "misjoined.parquet", "train-worse", "--challenge"))
        promotion = parts.promote_challenger(None, "promote-worse")
        story.worse_status = wait_status(promotion)
        story.worse_said = _answer(promotion)
        story.note("a worse challenger is refused")
        if story.worse_status != REFUSED:
            raise DemoError("The gate let a challenger pass that was trained on wrong labels.", promotion.log)
        step.done(story.worse_said)


def _answer(promotion: Process) -> str:
    """Return the gate's sentence, without what stands around it."""
    lines = [line.strip() for line in promotion.log.read_text().splitlines()]
    said = [line for line in lines if line.startswith(("gate ", "live comparison", "error: "))]
    return said[-1].removeprefix("error: ") if said else promotion.last_line()


def retrain(story: Story, screen: Screen) -> None:
    """Export what is labelled, and train a challenger on it."""
    plan, parts = story.parts.plan, story.parts
    enough = plan.change_at + plan.retrain_rows + int((plan.label_delay_s + 2) * plan.rate)
    with screen.step("Export labelled transactions, train a challenger, keep it beside the champion") as step:
        wait_for("Enough labels", lambda: story.seen >= enough, TIMEOUT_S)
        parts.export(parts.folder / "export.parquet")
        story.note("retraining begins")
        training = parts.train(parts.folder / "export.parquet", "train-challenger", "--challenge")
        wait_status(training)
        parts.run("The import", "training", "import", "--challenger")
        step.done(training.last_line())


def run_shadow(story: Story, screen: Screen) -> None:
    """Let the challenger decide beside the champion what neither was trained on."""
    parts = story.parts
    with screen.step("Let the challenger decide in shadow, compare on labelled transactions") as step:
        _begin_at_end(story)
        service = parts.start_challenger()
        bridge = parts.start_bridge(service.url, parts.topics.shadow, "bridge-shadow")
        for part in (service, bridge):
            part.wait()
        story.note("the challenger decides in shadow")
        wait_for(
            "The comparison of champion and challenger",
            lambda: story.monitored.shadow().get("frauds", 0) >= parts.plan.shadow_frauds,
            TIMEOUT_S,
        )
        shadow = story.monitored.shadow()
        difference = shadow["differences"]["recall"]
        step.done(
            f"on {shadow['frauds']} labelled frauds that both decided: recall {difference['value']:+.3f} "
            f"[{difference['low']:+.3f}, {difference['high']:+.3f}]"
        )


def _begin_at_end(story: Story) -> None:
    """Commit the ends of the stream for the shadow's group: it is not judged by what it was trained on."""
    topics = story.parts.topics
    consumer = KafkaConsumer(
        bootstrap_servers=story.broker.address,
        group_id=story.parts.group("bridge-shadow"),
        enable_auto_commit=False,
    )
    numbers = consumer.partitions_for_topic(topics.stream.transactions)
    places = [TopicPartition(topics.stream.transactions, number) for number in sorted(numbers)]
    consumer.assign(places)
    ends = consumer.end_offsets(places)
    consumer.commit({place: OffsetAndMetadata(offset, "", -1) for place, offset in ends.items()})
    consumer.close(autocommit=False)


def promote(story: Story, screen: Screen) -> None:
    """Ask the gate, which reads the live comparison too; the service changes over under traffic."""
    with screen.step("Promote the challenger; the service changes over while it is asked") as step:
        story.note("promotion: the gate is asked")
        promotion = story.parts.promote_challenger(
            f"{story.monitored.url}/quality.json", "promote-challenger"
        )
        status = wait_status(promotion)
        story.promoted_said = _answer(promotion)
        if status == REFUSED:
            raise DemoError(f"The gate refused the challenger: {story.promoted_said}", promotion.log)
        wait_for("The change of release", lambda: story.prober.releases[-1][1] != story.first, 30)
        moment, story.second = story.prober.releases[-1]
        story.events.append((moment, f"release {story.second} decides"))
        step.done(story.promoted_said)


def stream_on(story: Story, screen: Screen, replay: Process, labels: Process) -> None:
    """Let the new release decide for a while, then end the stream and read it to its end."""
    plan, account = story.parts.plan, story.account
    with screen.step("Stream on, end the stream, read it to its end") as step:
        enough = story.seen + plan.after_rows
        wait_for("The stream", lambda: story.seen >= enough or replay.poll() is not None, TIMEOUT_S)
        replay.stop()
        wait_for("The last decision", lambda: account.is_complete(1), 60)
        time.sleep(plan.label_delay_s)  # the labels of the last transactions
        labels.stop()
        with story.follower.lock:
            account.settle()
        step.done(f"{story.seen:,} transactions, {story.prober.asked:,} requests of another caller")
