"""What the demo says at its end, to people and as a file."""

import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from demo.brokers import Broker
from demo.figures import Estimate, Quality
from demo.ledger import Ledger
from demo.pipeline import Links
from demo.promotion import Promotion


@dataclass(frozen=True)
class Summary:
    """Everything that is told about one run.

    Attributes
    ----------
    info : dict
        Answer of the service's ``GET /info``: release, models, data.
    seconds : float
        From the first transaction produced to the last decision read.
    promotion : Promotion
        A change of releases under traffic, after that; its transactions count apart.
    """

    info: dict[str, Any]
    broker: Broker
    ledger: Ledger
    quality: Quality
    seconds: float
    links: Links
    promotion: Promotion

    @property
    def decisions(self) -> dict[str, int]:
        """Number of decisions of each kind."""
        counts = Counter(d.decision for d in self.ledger.decided.values())
        return {kind: counts[kind] for kind in ("approve", "review", "decline")}

    @property
    def latency_ms(self) -> dict[str, float]:
        """Median and 99th percentile from produced to decision readable."""
        latencies = [d.latency_ms for d in self.ledger.decided.values()]
        return {f"p{q}": round(float(np.percentile(latencies, q)), 1) for q in (50, 99)}

    @property
    def per_second(self) -> float:
        """Transactions per second from the first produced to the last decision read."""
        return len(self.ledger.decided) / self.seconds

    def write(self, path: Path) -> None:
        """Write the figures as JSON."""
        document = {
            "data": self.info["data"],
            "release": self.info["release"],
            "models": self.info["models"],
            "broker": asdict(self.broker),
            "decisions": self.decisions,
            "dead_letters": dict(self.ledger.dead_letters),
            "quality": asdict(self.quality),
            "lost": self.ledger.lost,
            "duplicates": self.ledger.duplicates,
            "transactions_per_second": round(self.per_second, 1),
            "latency_ms": self.latency_ms,
            "promotion": self.promotion.document(),
        }
        path.write_text(json.dumps(document, indent=2) + "\n")

    def show(self, console: Console) -> None:
        """Print the summary as a table."""
        table = Table(title="A decided stream", title_style="bold", show_header=False, title_justify="left")
        table.add_column(style="bold")
        table.add_column()
        for name, text in self._rows():
            table.add_row(name, text)
        console.print(table, highlight=False)

    def _rows(self) -> list[tuple[str, str]]:
        data = self.info["data"]
        decisions = ", ".join(f"{count:,} {kind}" for kind, count in self.decisions.items())
        return [
            ("data", f"{data['name']}: {data['rows']:,} rows, {data['frauds']} frauds"),
            ("fingerprint", data["fingerprint"][:16]),
            ("release", f"{self.info['release']}: " + ", ".join(self.info["models"].values())),
            ("broker", self.broker.description),
            ("decisions", decisions + self._dead_letters()),
            ("frauds", f"{self.quality.caught} of {self.quality.frauds} caught; the models never saw them"),
            ("recall", self._estimate(self.quality.recall)),
            ("precision", self._estimate(self.quality.precision)),
            (
                "cost saved",
                self._estimate(self.quality.cost_saved) + " of the amount at risk",
            ),
            ("prevalence", f"{self.quality.prevalence:.3%} fraud in the stream; the figures hold at it"),
            ("exactly once", self._accounting()),
            ("speed", f"{self.per_second:,.0f} transactions/s replayed and decided"),
            ("promotion", str(self.promotion)),
            ("produced to readable", "p50 {p50} ms, p99 {p99} ms".format(**self.latency_ms)),
            *self._links(),
        ]

    def _dead_letters(self) -> str:
        total = self.ledger.dead_letters.total()
        return f", {total} dead letters" if total else ""

    def _accounting(self) -> str:
        counts = (
            f"{len(self.ledger.produced_at_ms):,} transactions in, {self.ledger.lost} lost, "
            f"{self.ledger.duplicates} decided twice (by topic, partition, offset)"
        )
        if self.broker.is_genuine:
            return counts
        # It hands aborted records to readers, so even a clean count would prove nothing.
        return "not claimed on the embedded broker; set KAFKA_HOME for genuine Kafka"

    def _links(self) -> list[tuple[str, str]]:
        links = [
            ("service", f"{self.links.service}/  (try the example on its page)"),
            ("metrics", f"{self.links.service}/metrics, {self.links.bridge_metrics}"),
        ]
        # MLflow's first page says nothing of what was trained.
        mlflow = f"{self.links.mlflow.rstrip('/')}/#/models" if self.links.mlflow else ""
        return [*links, ("MLflow", mlflow or "run `.venv/bin/mlflow ui` in this folder")]

    @staticmethod
    def _estimate(estimate: Estimate | None) -> str:
        return str(estimate) if estimate is not None else "cannot be told: no fraud or no alarm in the stream"
