"""What a registry server asks of the API of Kubernetes, over HTTPS: reviews of tokens, and lists of role bindings.

It is strict: it takes the server's own bearer token alone, and refuses paths, methods, parameters and bodies that the real one would
not take, or that a server has no reason to send. Its lists have pages, as those of a large cluster. It notes every call.
"""

from __future__ import annotations

import json
import re
import ssl
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
ROLE_BINDINGS = f"{RBAC}/rolebindings"
CLUSTER_ROLE_BINDINGS = f"{RBAC}/clusterrolebindings"
LISTS = re.compile(rf"{RBAC}/(?:namespaces/(?P<namespace>[a-z0-9-]+)/)?(?P<kind>rolebindings|clusterrolebindings)")
NAMESPACE = "feast"
OWN_AUDIENCE = "https://kubernetes.default.svc"


@dataclass(frozen=True)
class Call:
    method: str
    path: str
    #: Whose token was reviewed.
    token: str | None
    status: int


def account(name: str, namespace: str) -> dict[str, str]:
    """A service account, as a subject of a binding."""
    return {"kind": "ServiceAccount", "name": name, "namespace": namespace}


def user(name: str) -> dict[str, str]:
    return {"kind": "User", "name": name, "apiGroup": "rbac.authorization.k8s.io"}


def group(name: str) -> dict[str, str]:
    return {"kind": "Group", "name": name, "apiGroup": "rbac.authorization.k8s.io"}


class Refusal(Exception):
    """An answer other than what was asked for, as Kubernetes words it."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.body = {"kind": "Status", "apiVersion": "v1", "status": "Failure"}
        self.body |= {"reason": reason, "message": message, "code": code}


@dataclass
class KubernetesApi:
    """Serves until it is closed; whom its tokens are of, and what is bound to whom, can be changed at any time."""

    certificate: str
    key: str
    #: The token that the registry server must call with.
    own_token: str = "the-registry-server-itself"
    #: Who each token that is good is of (the `user` of a review).
    tokens: dict[str, dict[str, Any]] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    #: While it is set, every call fails with this code.
    failure: int | None = None
    #: The most items that one answer to a list has.
    page: int = 3
    _issued: int = 0
    _audiences: dict[str, str] = field(default_factory=dict)
    _bindings: dict[str, list[dict[str, Any]]] = field(
        default_factory=lambda: {"rolebindings": [], "clusterrolebindings": []}
    )

    def __post_init__(self) -> None:
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        # The handshake is made by the thread of the connection, at its first read.
        self._http.socket = context.wrap_socket(self._http.socket, server_side=True, do_handshake_on_connect=False)
        self.url = f"https://127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def mount(self, folder: Path, authority: Path) -> Path:
        """What a pod has of its service account."""
        folder.mkdir(exist_ok=True)
        (folder / "token").write_text(self.own_token)
        (folder / "ca.crt").write_bytes(authority.read_bytes())
        (folder / "namespace").write_text(NAMESPACE)
        return folder

    def account(self, name: str, namespace: str, audience: str = OWN_AUDIENCE) -> str:
        """The token of a service account, for an audience. Kubernetes puts it in the three groups itself."""
        groups = ["system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated"]
        return self._issue(f"system:serviceaccount:{namespace}:{name}", groups, audience)

    def person(self, name: str, *groups: str) -> str:
        """The token of a user."""
        return self._issue(name, [*groups, "system:authenticated"])

    def _issue(self, username: str, groups: list[str], audience: str = OWN_AUDIENCE) -> str:
        token = f"token-{self._issued}-of-{username.replace(':', '.')}"
        self._issued += 1
        self._audiences[token] = audience
        self.tokens[token] = {"username": username, "uid": f"uid-of-{username}", "groups": groups}
        return token

    def bind(self, role: str, *subjects: dict[str, str], namespace: str = NAMESPACE) -> dict[str, Any]:
        """A RoleBinding."""
        return self._bind("rolebindings", "Role", role, subjects, namespace=namespace)

    def bind_member(self, subject: dict[str, str], namespace: str) -> None:
        """The RoleBinding by which a dashboard makes somebody a member of a namespace."""
        binding = self.bind("edit", subject, namespace=namespace)
        binding["metadata"] |= {"name": "dashboard-permissions-x7k2", "labels": {"opendatahub.io/dashboard": "true"}}

    def unbind(self, binding: dict[str, Any]) -> None:
        self._bindings["rolebindings"].remove(binding)

    def bind_everywhere(self, role: str, *subjects: dict[str, str]) -> None:
        """A ClusterRoleBinding."""
        self._bind("clusterrolebindings", "ClusterRole", role, subjects)

    def _bind(
        self, kind: str, role_kind: str, role: str, subjects: tuple[dict[str, str], ...], **where: str
    ) -> dict[str, Any]:
        bound = self._bindings[kind]
        item: dict[str, Any] = {"metadata": {"name": f"{role}-{len(bound)}", **where}}
        item["roleRef"] = {"apiGroup": "rbac.authorization.k8s.io", "kind": role_kind, "name": role}
        if subjects:
            # The field is left out where there are none.
            item["subjects"] = list(subjects)
        bound.append(item)
        return item

    def reviews_of(self, token: str) -> int:
        return sum(call.token == token for call in list(self.calls))

    def asked(self, path: str) -> int:
        return sum(call.path == path for call in list(self.calls))

    # What it answers.

    def _review(self, content_type: str, body: bytes) -> dict[str, Any]:
        if content_type.partition(";")[0].strip() != "application/json":
            raise Refusal(415, "UnsupportedMediaType", f"the content type is {content_type}")
        try:
            review = json.loads(body)
        except ValueError as error:
            raise Refusal(400, "BadRequest", f"the body is not JSON: {error}") from error
        kind = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview"}
        if not isinstance(review, dict) or {key: review.get(key) for key in kind} != kind:
            raise Refusal(400, "BadRequest", "the body is no TokenReview of authentication.k8s.io/v1")
        spec = review.get("spec")
        token = spec.get("token") if isinstance(spec, dict) else None
        if not (isinstance(token, str) and token):
            raise Refusal(422, "Invalid", "spec.token: Required value")
        # What is false, and what is empty, is left out.
        status: dict[str, Any] = {"user": {}, "error": "[invalid bearer token, token lookup failed]"}
        asked_for = spec.get("audiences") or [OWN_AUDIENCE]
        if token in self.tokens and self._audiences[token] in asked_for:
            status = {"authenticated": True, "user": self.tokens[token], "audiences": [self._audiences[token]]}
        return {**kind, "metadata": {}, "spec": spec, "status": status}

    def _list(self, found: re.Match[str], query: dict[str, list[str]]) -> dict[str, Any]:
        if unknown := set(query) - {"limit", "continue", "resourceVersion"}:
            raise Refusal(400, "BadRequest", f"nobody needs {sorted(unknown)}")
        kind, namespace = found["kind"], found["namespace"]
        if kind == "clusterrolebindings" and namespace:
            raise Refusal(404, "NotFound", "the server could not find the requested resource")
        items = [i for i in self._bindings[kind] if namespace in (None, i["metadata"].get("namespace"))]
        start = int(query.get("continue", ["0"])[0])
        limit = int(query.get("limit", ["0"])[0])
        # Only who asks for pages gets them.
        end = start + min(limit, self.page) if limit else len(items)
        metadata: dict[str, Any] = {"resourceVersion": "7"}
        if end < len(items):
            metadata |= {"continue": str(end), "remainingItemCount": len(items) - end}
        names = {"rolebindings": "RoleBindingList", "clusterrolebindings": "ClusterRoleBindingList"}
        version = "rbac.authorization.k8s.io/v1"
        return {"kind": names[kind], "apiVersion": version, "metadata": metadata, "items": items[start:end]}

    def _answer(self, method: str, target: str, headers: Any, body: bytes) -> tuple[int, Any]:
        url = urlsplit(target)
        if self.failure is not None:
            raise Refusal(self.failure, "InternalError", "it is out of order")
        if headers.get("authorization") != f"Bearer {self.own_token}":
            raise Refusal(401, "Unauthorized", "Unauthorized")
        if url.path == REVIEWS and not url.query:
            if method != "POST":
                raise Refusal(
                    405, "MethodNotAllowed", "the server does not allow this method on the requested resource"
                )
            return 201, self._review(headers.get("content-type", ""), body)
        if found := LISTS.fullmatch(url.path):
            if method != "GET":
                raise Refusal(403, "Forbidden", f"the registry server may not {method} {url.path}")
            return 200, self._list(found, parse_qs(url.query))
        raise Refusal(403, "Forbidden", f"the registry server may not {method} {url.path}")

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def serve(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                try:
                    status, answer = api._answer(self.command, self.path, self.headers, body)
                except Refusal as refusal:
                    status, answer = refusal.code, refusal.body
                token = answer["spec"]["token"] if answer["kind"] == "TokenReview" else None
                api.calls.append(Call(self.command, urlsplit(self.path).path, token, status))
                content = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = serve

            def log_message(self, format: str, *args: Any) -> None:
                pass

        return Handler
