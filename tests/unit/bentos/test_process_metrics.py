import datetime
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from prometheus_client import CollectorRegistry

from bentos.process_metrics import ProcessMetrics, find_processes

SERVE = """
import subprocess, sys, time
worker = "import sys; print(len(bytearray(50_000_000)), flush=True); sys.stdin.read()"
for name in ("fraud_detection", "XGBoostRunner"):
    command = [sys.executable, "-c", worker, "--service-name", name, "--worker-id", "1"]
    print(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE).pid, flush=True)
sys.stdin.read()
"""


def write_certificate(file: Path, *ends: datetime.datetime) -> None:
    """Write a chain of self-signed certificates, one for each end."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    chain = b""
    for end in ends:
        builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        dated = builder.not_valid_before(end - datetime.timedelta(days=30)).not_valid_after(end)
        chain += dated.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    file.write_bytes(chain)


def test_processes_of_the_service_are_its_workers_and_their_parent() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SERVE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as started:
        assert started.stdout
        gateway, runner = (int(started.stdout.readline()) for _ in range(2))
        found = {process.pid for process in find_processes(psutil.Process(gateway))}
        started.kill()
        psutil.Process(gateway).kill()
        psutil.Process(runner).kill()
    assert found == {started.pid, gateway, runner}


def test_memory_and_processor_time_are_those_of_the_process() -> None:
    registry = CollectorRegistry()
    ProcessMetrics(registry).update()
    own = psutil.Process()
    memory = registry.get_sample_value("process_resident_memory_bytes", {"process": "main"})
    cpu = registry.get_sample_value("process_cpu_seconds_total", {"process": "main"})
    assert memory == pytest.approx(own.memory_info().rss, rel=0.1)
    assert cpu == pytest.approx(sum(own.cpu_times()[:2]), abs=0.5)


def test_the_certificate_that_ends_first_counts(tmp_path: Path) -> None:
    later, sooner = (datetime.datetime(2031, month, 1, tzinfo=datetime.UTC) for month in (6, 2))
    write_certificate(tmp_path / "chain.pem", later, sooner)
    registry = CollectorRegistry()
    ProcessMetrics(registry).set_certificate(tmp_path / "chain.pem")
    expiry = registry.get_sample_value("fraud_certificate_expiry_timestamp_seconds")
    assert expiry == sooner.timestamp()


def test_a_certificate_that_is_replaced_is_followed(tmp_path: Path) -> None:
    before, after = (datetime.datetime(year, 1, 1, tzinfo=datetime.UTC) for year in (2031, 2032))
    registry, file = CollectorRegistry(), tmp_path / "chain.pem"
    metrics = ProcessMetrics(registry)
    write_certificate(file, before)
    metrics.set_certificate(file)
    file.write_text("half of it")
    metrics.set_certificate(file)
    assert registry.get_sample_value("fraud_certificate_expiry_timestamp_seconds") == before.timestamp()
    write_certificate(file, after)
    metrics.set_certificate(file)
    assert registry.get_sample_value("fraud_certificate_expiry_timestamp_seconds") == after.timestamp()
