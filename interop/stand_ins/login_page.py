"""An identity provider where people log in with a browser, as Keycloak has it: the authorization code, with PKCE.

Whoever comes to its page is somebody at once: there is no form to fill.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qsl, urlencode, urlsplit

from identity_provider import AUTHORIZE, TOKEN, IdentityProvider


class LoginPage(IdentityProvider):
    """Lets in `user`, for the pages at `redirects_to`, which is their origin."""

    def __init__(self, certificate: str, key: str, audience: str) -> None:
        self.visitor = ""
        self.redirects_to = ""
        #: What was asked for with each code.
        self.codes: dict[str, dict[str, str]] = {}
        super().__init__(certificate, key, audience)

    def let_in(self, asked: dict[str, str]) -> str:
        """Where the browser goes on, with a code."""
        assert asked["redirect_uri"].startswith(f"{self.redirects_to}/"), asked
        assert asked["response_type"] == "code" and asked["code_challenge_method"] == "S256", asked
        code = secrets.token_urlsafe(16)
        self.codes[code] = asked
        told = urlencode({"state": asked["state"], "session_state": "s", "code": code})
        return f"{asked['redirect_uri'].partition('#')[0]}#{told}"

    def exchange(self, form: dict[str, str]) -> dict[str, object]:
        """Tokens for a code, which is good once, and only for who has asked for it."""
        asked = self.codes.pop(form["code"])
        digest = hashlib.sha256(form["code_verifier"].encode()).digest()
        assert base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == asked["code_challenge"], form
        assert form["client_id"] == asked["client_id"], form
        self.granted.append(("authorization_code", self.visitor))
        claims = self.claims(self.visitor, azp=form["client_id"], nonce=asked["nonce"])
        token = self.sign(claims)
        answer = {"access_token": token, "id_token": token, "refresh_token": token, "token_type": "Bearer"}
        return {**answer, "expires_in": 300, "refresh_expires_in": 300}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        provider, others = self, super()._handler()

        class Handler(others):
            def do_GET(self) -> None:
                url = urlsplit(self.path)
                if url.path != AUTHORIZE:
                    return super().do_GET()
                self.send_response(302)
                self.send_header("location", provider.let_in(dict(parse_qsl(url.query))))
                self.send_header("content-length", "0")
                self.end_headers()

            def do_POST(self) -> None:
                if self.path != TOKEN:
                    return super().do_POST()
                form = dict(parse_qsl(self.rfile.read(int(self.headers["content-length"])).decode()))
                content = json.dumps(provider.exchange(form)).encode()
                self.send_response(200)
                # The page of another origin may read it, and no other page.
                self.send_header("access-control-allow-origin", provider.redirects_to)
                self.send_header("access-control-allow-credentials", "true")
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        return Handler
