"""What ``kubectl`` asks of a cluster, where there is none.

It is no cluster: objects are held to the API's types, kept, and called ready; nothing is scheduled and
nothing runs. It shows that documented commands exist, that what they send is valid, and that it fits
together: namespaces that are there, names that are found.
"""

import json
import re
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

#: Of each resource: group and version, kind, and whether it lives in a namespace.
RESOURCES = {
    "namespaces": ("v1", "Namespace", False),
    "serviceaccounts": ("v1", "ServiceAccount", True),
    "secrets": ("v1", "Secret", True),
    "services": ("v1", "Service", True),
    "configmaps": ("v1", "ConfigMap", True),
    "persistentvolumeclaims": ("v1", "PersistentVolumeClaim", True),
    "pods": ("v1", "Pod", True),
    "deployments": ("apps/v1", "Deployment", True),
    "statefulsets": ("apps/v1", "StatefulSet", True),
    "cronjobs": ("batch/v1", "CronJob", True),
    "jobs": ("batch/v1", "Job", True),
    "poddisruptionbudgets": ("policy/v1", "PodDisruptionBudget", True),
    "horizontalpodautoscalers": ("autoscaling/v2", "HorizontalPodAutoscaler", True),
    "networkpolicies": ("networking.k8s.io/v1", "NetworkPolicy", True),
    "scaledobjects": ("keda.sh/v1alpha1", "ScaledObject", True),
}
#: What kubectl sends of a built-in kind starts so; the object follows in protobuf.
PROTOBUF = b"k8s\x00"
READY = {"conditions": [{"type": "Ready", "status": "True"}]}
COMPLETE = {"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "readyReplicas": 1}
STATUS: dict[str, dict[str, Any]] = {
    "Pod": {"phase": "Running", **READY},
    "Deployment": COMPLETE | {"availableReplicas": 1},
    "StatefulSet": COMPLETE | {"currentReplicas": 1, "currentRevision": "a", "updateRevision": "a"},
}

Key = tuple[str, str, str]


class Cluster(ThreadingHTTPServer):
    """Keeps objects by resource, namespace and name.

    Parameters
    ----------
    check : callable
        Returns the places of an object that its type does not declare; raises `ValueError` where a
        value is of another type.
    """

    daemon_threads = True

    def __init__(self, check: Callable[[dict[str, Any]], list[str]]) -> None:
        super().__init__(("127.0.0.1", 0), Requests)
        self.check = check
        self.objects: dict[Key, dict[str, Any]] = {}

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.server_port}"

    def find_faults(self, document: dict[str, Any]) -> str:
        """Return what is wrong with an object, empty where nothing is."""
        try:
            return ", ".join(f"unknown field {place}" for place in self.check(document))
        except ValueError as error:
            return str(error)

    def add(self, resource: str, namespace: str, document: dict[str, Any]) -> dict[str, Any]:
        """Keep an object as a cluster would that had made it run at once."""
        name, kind = document["metadata"]["name"], document["kind"]
        document["metadata"] |= {"uid": name, "resourceVersion": "1", "generation": 1}
        if namespace:
            document["metadata"]["namespace"] = namespace
        if kind in ("Deployment", "StatefulSet"):
            document["spec"].setdefault("replicas", 1)
            document["spec"].setdefault("updateStrategy", {"type": "RollingUpdate"})
        document["status"] = STATUS.get(kind, {})
        self.objects[resource, namespace, name] = document
        if kind == "Namespace":
            account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
            self.add("serviceaccounts", name, account)
        if kind == "Job":
            labels = {"batch.kubernetes.io/job-name": name}
            document["spec"] = {"selector": {"matchLabels": labels}}
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"{name}-abcde", "labels": labels}}
            self.add("pods", namespace, pod | {"spec": {"containers": [{"name": "training"}]}})
        return document


class Requests(BaseHTTPRequestHandler):
    """The part of the Kubernetes API that the documented commands use."""

    server: Cluster
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer discovery, an object, a list, a watch or a log."""
        path, query = urlsplit(self.path).path, parse_qs(urlsplit(self.path).query)
        if (found := discovery(path)) is not None:
            self._answer(found)
            return
        resource, namespace, name, part = locate(path)
        if part == "log":
            self._answer(b"a line of the log\n")
        elif name:
            self._answer_one((resource, namespace, name))
        else:
            self._answer_many(resource, namespace, query)

    def do_POST(self) -> None:
        """Make an object; refused where its namespace is missing, its name taken, or a field unknown."""
        resource, namespace, _, _ = locate(urlsplit(self.path).path)
        document = read_object(self._body(), resource)
        if namespace and ("namespaces", "", namespace) not in self.server.objects:
            self._refuse(404, "NotFound", f'namespaces "{namespace}" not found')
        elif (resource, namespace, document["metadata"]["name"]) in self.server.objects:
            self._refuse(409, "AlreadyExists", f"{document['metadata']['name']} already exists")
        elif faults := self.server.find_faults(document):
            self._refuse(400, "BadRequest", f"strict decoding error: {faults}")
        else:
            self._answer(self.server.add(resource, namespace, document), 201)

    def do_PATCH(self) -> None:
        """Change an object."""
        key = locate(urlsplit(self.path).path)[:3]
        patch = json.loads(self._body())
        if key in self.server.objects:
            merge(self.server.objects[key], patch)
        self._answer_one(key)

    def do_DELETE(self) -> None:
        """Forget an object."""
        self._body()
        key = locate(urlsplit(self.path).path)[:3]
        self._answer_one(key)
        self.server.objects.pop(key, None)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _answer_one(self, key: Key) -> None:
        if key in self.server.objects:
            self._answer(self.server.objects[key])
        else:
            self._refuse(404, "NotFound", f'{key[0]} "{key[2]}" not found')

    def _answer_many(self, resource: str, namespace: str, query: dict[str, list[str]]) -> None:
        wanted = query.get("fieldSelector", [""])[0].removeprefix("metadata.name=")
        found = [
            document
            for (one, where, name), document in self.server.objects.items()
            if one == resource and where == namespace and wanted in ("", name)
        ]
        if "watch" in query:
            events = ({"type": "MODIFIED", "object": document} for document in found)
            self._answer(b"".join(json.dumps(event).encode() + b"\n" for event in events))
            return
        version, kind, _ = RESOURCES[resource]
        head = {"apiVersion": version, "kind": f"{kind}List", "metadata": {"resourceVersion": "1"}}
        self._answer(head | {"items": found})

    def _refuse(self, code: int, reason: str, message: str) -> None:
        status = {"apiVersion": "v1", "kind": "Status", "status": "Failure"}
        self._answer(status | {"reason": reason, "message": message, "code": code}, code)

    def _answer(self, content: dict[str, Any] | bytes, code: int = 200) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def discovery(path: str) -> dict[str, Any] | None:
    """Return what says which resources there are, and that unknown fields are refused."""
    versions = sorted({version for version, _, _ in RESOURCES.values()})
    roots = {("api/" if version == "v1" else "apis/") + version: version for version in versions}
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    if path == "/apis":
        named = [
            (version.split("/")[0], {"groupVersion": version, "version": version.split("/")[1]})
            for version in versions
            if "/" in version
        ]
        groups = [{"name": name, "versions": [one], "preferredVersion": one} for name, one in named]
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
    if path == "/openapi/v3":
        return {"paths": {root: {"serverRelativeURL": f"/openapi/v3/{root}"} for root in roots}}
    if path.removeprefix("/openapi/v3/") in roots:
        return openapi(roots[path.removeprefix("/openapi/v3/")])
    if path.removeprefix("/") in roots:
        return resource_list(roots[path.removeprefix("/")])
    return None


def resource_list(version: str) -> dict[str, Any]:
    """Return the resources of a group and version."""
    verbs = ["create", "delete", "get", "list", "patch", "update", "watch"]
    found = [
        {"name": name, "singularName": kind.lower(), "namespaced": namespaced, "kind": kind, "verbs": verbs}
        for name, (where, kind, namespaced) in RESOURCES.items()
        if where == version
    ]
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": found}


def openapi(version: str) -> dict[str, Any]:
    """Return that resources of `version` are validated strictly: else kubectl would want whole schemas."""
    group, _, number = version.rpartition("/")
    strict = [{"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}]
    paths = {
        f"/{'apis' if group else 'api'}/{version}/{name}/{{name}}": {
            "patch": {
                "parameters": strict,
                "responses": {},
                "x-kubernetes-action": "patch",
                "x-kubernetes-group-version-kind": {"group": group, "version": number, "kind": kind},
            }
        }
        for name, (where, kind, _) in RESOURCES.items()
        if where == version
    }
    return {"openapi": "3.0.0", "info": {"title": "API", "version": "1"}, "paths": paths}


def locate(path: str) -> tuple[str, str, str, str]:
    """Return resource, namespace, name and part of an object's path, each empty where there is none.

    Of another path the resource is empty, and the name is the path: so nothing is found under it.
    """
    found = re.fullmatch(r"/api/v1/(namespaces)(?:/([^/]+))?", path)
    if found:
        return found[1], "", found[2] or "", ""
    parts = r"(?:api/v1|apis/[^/]+/[^/]+)/namespaces/([^/]+)/([a-z]+)(?:/([^/]+))?(?:/([a-z]+))?"
    found = re.fullmatch(f"/{parts}", path)
    if not found or found[2] not in RESOURCES:
        return "", "", path, ""
    return found[2], found[1], found[3] or "", found[4] or ""


def read_object(body: bytes, resource: str) -> dict[str, Any]:
    """Return an object that was sent as JSON; of one sent as protobuf its name and a secret's keys."""
    if not body.startswith(PROTOBUF):
        document: dict[str, Any] = json.loads(body)
        return document
    content = fields(dict(fields(body.removeprefix(PROTOBUF)))[2])
    version, kind, _ = RESOURCES[resource]
    name = dict(fields(dict(content)[1]))[1].decode()
    document = {"apiVersion": version, "kind": kind, "metadata": {"name": name}}
    if kind == "Secret":
        document["data"] = {dict(fields(entry))[1].decode(): "" for number, entry in content if number == 2}
    return document


def fields(message: bytes) -> list[tuple[int, Any]]:
    """Return number and bytes of each length-delimited field of a protobuf message."""
    found, at = [], 0
    while at < len(message):
        tag, at = varint(message, at)
        number, at = varint(message, at)
        if tag & 7 == 2:
            found.append((tag >> 3, message[at : at + number]))
            at += number
    return found


def varint(message: bytes, at: int) -> tuple[int, int]:
    """Return the number that starts at `at`, and where it ends."""
    value, shift = 0, 0
    while True:
        value |= (message[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if message[at - 1] < 128:
            return value, at


def merge(into: dict[str, Any], patch: dict[str, Any]) -> None:
    """Change `into` as a merge patch says."""
    for key, value in patch.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            merge(into[key], value)
        elif value is None:
            into.pop(key, None)
        else:
            into[key] = value
