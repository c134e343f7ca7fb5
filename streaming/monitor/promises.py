"""What a release promised: its figures and its reference, from the service's ``GET /info``."""

import queue
import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import msgspec
import structlog

from streaming.monitor.observations import CHALLENGER, CHAMPION

log = structlog.get_logger()
TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Promise:
    """What a release is measured against; None where its document does not say.

    Attributes
    ----------
    recall, precision, alarm_rate : float or None
        On the test set, at the prevalence of the real stream.
    review_cost : float or None
        Cost of an alarm, account currency.
    reference : mapping or None
        How inputs and scores were distributed in validation.
    """

    recall: float | None = None
    precision: float | None = None
    alarm_rate: float | None = None
    review_cost: float | None = None
    reference: Mapping[str, Any] | None = None


def read_promise(document: str | None) -> Promise:
    """Return what a release's document promises.

    Examples
    --------
    >>> read_promise('{"metrics": {"pair.recall": {"value": 0.8, "low": 0.7, "high": 0.9}}}').recall
    0.8
    >>> read_promise(None).recall is None
    True
    """
    found = msgspec.json.decode(document) if document else {}
    metrics = found.get("metrics") or {}

    def value(name: str) -> float | None:
        figure = metrics.get(f"pair.{name}")
        return figure.get("value") if isinstance(figure, dict) else None

    return Promise(
        value("recall"),
        value("precision"),
        value("alarm_rate"),
        found.get("review_cost"),
        found.get("reference"),
    )


@dataclass(frozen=True)
class Document:
    """What a service said about the release that it serves."""

    role: int
    release: str
    text: str


class InfoReader:
    """Asks the services for their release's document, on a thread of its own.

    Parameters
    ----------
    urls : mapping of int to str
        Role to the address of ``GET /info``.
    every_s : float
    api_key : str or None
    trust : ssl.SSLContext
        Certificate authorities, for https.
    """

    def __init__(
        self,
        urls: Mapping[int, str],
        every_s: float,
        api_key: str | None,
        trust: ssl.SSLContext,
    ) -> None:
        self._urls, self._every_s = dict(urls), every_s
        self._headers, self._trust = {"x-api-key": api_key} if api_key else {}, trust
        self._stopped = threading.Event()
        self._known: dict[int, str] = {}
        self.documents: queue.SimpleQueue[Document] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="info", daemon=True).start()

    def _run(self) -> None:
        with httpx.Client(
            timeout=TIMEOUT_S, headers=self._headers, verify=self._trust, trust_env=False
        ) as client:
            while not self._stopped.is_set():
                for role, url in self._urls.items():
                    self._ask(client, role, url)
                self._stopped.wait(self._every_s)

    def _ask(self, client: httpx.Client, role: int, url: str) -> None:
        try:
            text = client.get(url).raise_for_status().text
            release = msgspec.json.decode(text)["release"]
        except (httpx.HTTPError, msgspec.DecodeError, KeyError, TypeError) as error:
            # The service may be down for a while: the release that decides is the one known already.
            if self._known.get(role) != "":
                log.warning("no release document", url=url, error=type(error).__name__)
                self._known[role] = ""
            return
        if self._known.get(role) != text:
            self._known[role] = text
            self.documents.put(Document(role, str(release), text))

    def close(self) -> None:
        """Ask no more."""
        self._stopped.set()


def info_urls(info_url: str | None, shadow_info_url: str | None, classify_url: str) -> dict[int, str]:
    """Return role to the address of ``GET /info``.

    Examples
    --------
    >>> info_urls(None, None, "http://service:3000/classify")
    {0: 'http://service:3000/info'}
    """
    beside = httpx.URL(classify_url).join("info")
    urls = {CHAMPION: info_url or str(beside)}
    if shadow_info_url:
        urls[CHALLENGER] = shadow_info_url
    return urls
