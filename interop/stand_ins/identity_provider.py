"""An identity provider: OpenID Connect discovery, its keys, and a token endpoint, over HTTPS on this machine.

The grants, the check of credentials and the tokens (RFC 6749 and 9068) are Authlib's, the keys joserfc's; only what carries them
over HTTP, and what the tokens say of whom, is ours. A ready-made provider that installs by pip alone was looked for:
`oidc-provider-mock` has neither of the grants that Feast's client asks for, `client_credentials` and `password`.
"""

from __future__ import annotations

import hmac
import json
import ssl
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl

from authlib.oauth2.rfc6749 import AuthorizationServer, ClientMixin, OAuth2Request
from authlib.oauth2.rfc6749.grants import ClientCredentialsGrant, ResourceOwnerPasswordCredentialsGrant
from authlib.oauth2.rfc6749.requests import BasicOAuth2Payload
from authlib.oauth2.rfc9068 import JWTBearerTokenGenerator
from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey

REALM = "/realms/feast"
DISCOVERY = f"{REALM}/.well-known/openid-configuration"
KEYS = f"{REALM}/protocol/openid-connect/certs"
TOKEN = f"{REALM}/protocol/openid-connect/token"
AUTHORIZE = f"{REALM}/protocol/openid-connect/auth"


def new_key() -> RSAKey:
    return RSAKey.generate_key(2048, {"use": "sig", "alg": "RS256"}, auto_kid=True)


@dataclass
class Client(ClientMixin):
    """A registered client; `claims` are what its own tokens say besides."""

    client_id: str
    secret: str
    claims: dict[str, Any] = field(default_factory=dict)

    def get_client_id(self) -> str:
        return self.client_id

    def get_allowed_scope(self, scope: str | None) -> str:
        return scope or ""

    def check_client_secret(self, client_secret: str) -> bool:
        return hmac.compare_digest(self.secret, client_secret)

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return (method, endpoint) == ("client_secret_post", "token")

    def check_grant_type(self, grant_type: str) -> bool:
        return True


@dataclass
class User:
    name: str
    password: str
    claims: dict[str, Any] = field(default_factory=dict)

    def get_user_id(self) -> str:
        return f"id-of-{self.name}"


class Tokens(JWTBearerTokenGenerator):
    """The access tokens of a provider, signed with its newest key, which they name."""

    def __init__(self, provider: IdentityProvider) -> None:
        lifetime = lambda client, grant: provider.lifetime
        super().__init__(provider.issuer, expires_generator=lifetime)
        self.provider = provider

    def get_jwks(self) -> KeySet:
        return KeySet([self.provider.key])

    def get_audiences(self, client: Client, user: User | None, scope: str) -> str:
        return self.provider.audience

    def get_extra_claims(self, client: Client, grant_type: str, user: User | None, scope: str) -> dict[str, Any]:
        # As Keycloak has it: who a client's own token is of has a name too.
        name = user.name if user else f"service-account-{client.client_id}"
        return {"azp": client.client_id, "preferred_username": name, **(user or client).claims}


class ClientCredentials(ClientCredentialsGrant):
    TOKEN_ENDPOINT_AUTH_METHODS = ["client_secret_post"]


class Password(ResourceOwnerPasswordCredentialsGrant):
    TOKEN_ENDPOINT_AUTH_METHODS = ["client_secret_post"]

    def authenticate_user(self, username: str, password: str) -> User | None:
        user = self.server.provider.users.get(username)
        return user if user and hmac.compare_digest(user.password, password) else None


class Grants(AuthorizationServer):
    """Authlib's server; a request is (path, headers, form), a response (status, content)."""

    def __init__(self, provider: IdentityProvider) -> None:
        super().__init__()
        self.provider = provider
        self.register_grant(ClientCredentials)
        self.register_grant(Password)
        self.register_token_generator("default", Tokens(provider))

    def query_client(self, client_id: str) -> Client | None:
        return self.provider.clients.get(client_id)

    def save_token(self, token: dict[str, Any], request: OAuth2Request) -> None:
        who = request.user.name if request.user else request.client.client_id
        self.provider.granted.append((request.payload.grant_type, who))

    def create_oauth2_request(self, request: tuple[str, Any, dict[str, str]]) -> OAuth2Request:
        path, headers, form = request
        out = OAuth2Request("POST", self.provider.url + path, headers=headers)
        out._body = form
        out.payload = BasicOAuth2Payload(form)
        return out

    def handle_response(self, status: int, body: Any, headers: Any) -> tuple[int, Any]:
        return status, body

    def send_signal(self, name: str, *args: Any, **kwargs: Any) -> None:
        pass


class IdentityProvider:
    """Serves until it is closed. What it grants, and with which key, can be changed at any time."""

    def __init__(self, certificate: str, key: str, audience: str) -> None:
        self.clients: dict[str, Client] = {}
        self.users: dict[str, User] = {}
        self.audience = audience
        #: How long its tokens are good, in seconds.
        self.lifetime: float = 300
        #: What it signs with, and what it says that it signs with.
        self.key = new_key()
        self.published = [self.key]
        #: (grant, client or user) of each token that it has given.
        self.granted: list[tuple[str, str]] = []
        self.reads_of_keys = 0

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        # The handshake is made by the thread of the connection, at its first read.
        self._http.socket = context.wrap_socket(self._http.socket, server_side=True, do_handshake_on_connect=False)
        self.url = f"https://127.0.0.1:{self._http.server_port}"
        self.issuer = self.url + REALM
        self.discovery_url = self.url + DISCOVERY
        self._grants = Grants(self)
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def client(self, client_id: str, **claims: Any) -> Client:
        """Registers a client."""
        self.clients[client_id] = Client(client_id, f"secret-of-{client_id}", claims)
        return self.clients[client_id]

    def user(self, name: str, **claims: Any) -> User:
        """Registers a user."""
        self.users[name] = User(name, f"password-of-{name}", claims)
        return self.users[name]

    def rotate(self) -> RSAKey:
        """Signs with a new key from now on, which is published beside the others. Returns the one before."""
        before, self.key = self.key, new_key()
        self.published.append(self.key)
        return before

    def claims(self, name: str, **others: Any) -> dict[str, Any]:
        """What a token of this user says, with `others` in place; `None` leaves one out."""
        now = int(time.time())
        claims = {"iss": self.issuer, "aud": self.audience, "iat": now, "exp": now + 300, "sub": f"id-of-{name}"}
        claims |= {"azp": "feast", "preferred_username": name, **self.users[name].claims, **others}
        return {claim: value for claim, value in claims.items() if value is not None}

    def sign(self, claims: dict[str, Any], key: RSAKey | None = None, **header: Any) -> str:
        """A token with just these claims."""
        key = key or self.key
        return jwt.encode({"alg": "RS256", "typ": "at+jwt", "kid": key.kid, **header}, claims, key)

    def _discovery(self) -> dict[str, Any]:
        return {
            "issuer": self.issuer,
            "authorization_endpoint": self.url + AUTHORIZE,
            "token_endpoint": self.url + TOKEN,
            "jwks_uri": self.url + KEYS,
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "grant_types_supported": ["client_credentials", "password"],
            "token_endpoint_auth_methods_supported": ["client_secret_post"],
        }

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == DISCOVERY:
                    self.answer(200, provider._discovery())
                elif self.path == KEYS:
                    provider.reads_of_keys += 1
                    self.answer(200, KeySet(list(provider.published)).as_dict(private=False))
                else:
                    self.answer(404, {"error": f"no page {self.path}"})

            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers.get("content-length", 0)))
                if self.path != TOKEN:
                    self.answer(404, {"error": f"no page {self.path}"})
                    return
                form = dict(parse_qsl(content.decode()))
                self.answer(*provider._grants.create_token_response((self.path, self.headers, form)))

            def answer(self, status: int, body: Any) -> None:
                content = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("cache-control", "no-store")
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        return Handler
