"""Memory and processor time of every process of the service, and when its certificate ends.

prometheus_client's own ``ProcessCollector`` says nothing in multiprocess mode, and would know one process
only. Here the gateway asks the operating system about its parent and its siblings, the runners among them.
"""

from __future__ import annotations

import contextlib
from itertools import pairwise
from pathlib import Path

import psutil
from cryptography import x509
from prometheus_client import CollectorRegistry, Gauge

NAMES = {"fraud_detection": "gateway", "NeuralNetRunner": "neural_net", "XGBoostRunner": "xgboost"}


class ProcessMetrics:
    """Gauges by process, under the names that Prometheus's clients use everywhere.

    Parameters
    ----------
    registry : CollectorRegistry, optional
        Where they are registered. The default registry has metrics of these names already, so by default
        they are in none: in multiprocess mode what counts is the file that each process writes.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self._memory = Gauge(
            "process_resident_memory_bytes",
            "Resident memory by process.",
            ["process"],
            registry=registry,
            multiprocess_mode="mostrecent",
        )
        # A counter could only be increased; the system tells the whole.
        self._cpu = Gauge(
            "process_cpu_seconds_total",
            "User and system processor time by process.",
            ["process"],
            registry=registry,
            multiprocess_mode="mostrecent",
        )
        self._certificate = Gauge(
            "fraud_certificate_expiry_timestamp_seconds",
            "Unix time at which the certificate of the port ends.",
            registry=registry,
            multiprocess_mode="mostrecent",
        )

    def update(self) -> None:
        """Ask the operating system; a process that ends meanwhile is left out."""
        for process in find_processes(psutil.Process()):
            with contextlib.suppress(psutil.Error), process.oneshot():
                name = name_process(process.cmdline())
                times = process.cpu_times()
                self._memory.labels(name).set(process.memory_info().rss)
                self._cpu.labels(name).set(times.user + times.system)

    def set_certificate(self, file: Path) -> None:
        """Show when the certificate in `file` ends: the earliest of its chain.

        What cannot be read, while the file is being replaced, leaves what was shown.
        """
        with contextlib.suppress(OSError, ValueError):
            self._certificate.set(read_expiry(file))


def find_processes(gateway: psutil.Process) -> list[psutil.Process]:
    """Return the processes of the service that `gateway` belongs to, itself included.

    BentoML's workers are children of the process that ``bentoml serve`` started; a gateway that is no worker
    serves alone.
    """
    parent = gateway.parent()
    if parent is None or "--service-name" not in gateway.cmdline():
        return [gateway]
    return [parent, *parent.children()]


def name_process(command: list[str]) -> str:
    """Return what a process of the service does, from its command line.

    Examples
    --------
    >>> name_process(["python", "-m", "worker", "--service-name", "XGBoostRunner", "--worker-id", "2"])
    'xgboost 2'
    >>> name_process(["python", "bentoml", "serve"])
    'main'
    """
    options = dict(pairwise(command))
    service = options.get("--service-name")
    if service is None:
        return "main"
    return f"{NAMES.get(service, service)} {options.get('--worker-id', '1')}"


def read_expiry(file: Path) -> float:
    """Return the Unix time at which the first certificate of a PEM file's chain ends.

    Raises
    ------
    OSError, ValueError
        If the file cannot be read, or holds no certificate.
    """
    chain = x509.load_pem_x509_certificates(file.read_bytes())
    return min(one.not_valid_after_utc.timestamp() for one in chain)
