"""What keeps the review to those it is for: sessions with a token against forged forms, the Host check, the headers.

A page open in the same browser can send requests to the loopback, and a name under an attacker's control can point
there. So every form carries a secret of its session, every request must name a host that is served, and no header
allows another origin anything. Sessions live in memory; after a restart one gives one's name again.
"""

import ipaddress
import secrets
from base64 import b64encode
from collections.abc import Collection
from dataclasses import dataclass, field
from hashlib import sha256
from hmac import compare_digest

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dpo_data.schema import DataError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_MOST_SESSIONS = 1000


@dataclass
class Session:
    """Who sits behind a cookie; `reviewer` is None until the name is given."""

    key: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    form_token: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    reviewer: str | None = None


class Sessions:
    """Sessions by cookie; the oldest go first when there are too many, visitors and reviewers each among themselves.

    Any page open in the same browser can send requests without a cookie, so visitors must not push a reviewer out.
    """

    def __init__(self) -> None:
        self.cookie = f"review_{secrets.token_hex(4)}"  # ports share cookies: two servers must not share one
        self._visitors: dict[str, Session] = {}
        self._reviewers: dict[str, Session] = {}

    def of(self, request: Request) -> Session:
        """The request's session, or a new one."""
        key = request.cookies.get(self.cookie, "")
        return self._reviewers.get(key) or self._visitors.get(key) or self.begin()

    def begin(self, reviewer: str | None = None) -> Session:
        """A new session: also at each change of reviewer, so that no cookie set before is worth anything."""
        session = Session(reviewer=reviewer)
        known = self._visitors if reviewer is None else self._reviewers
        while len(known) >= _MOST_SESSIONS:
            known.pop(next(iter(known)))
        known[session.key] = session
        return session

    def end(self, session: Session) -> None:
        """Forget a session."""
        self._visitors.pop(session.key, None)
        self._reviewers.pop(session.key, None)


def same(given: str, expected: str) -> bool:
    """Whether two secrets are equal, in a time that tells nothing."""
    return compare_digest(given.encode(), expected.encode())


def check_binding(host: str, token: str | None) -> None:
    """Raises `DataError` where the pages would be open to a network without a token."""
    if host not in LOOPBACK and not token:
        raise DataError(
            f"--host {host} is reachable from other machines, so it needs --token (or DPO_REVIEW_TOKEN), which "
            "reviewers type once. Put TLS in front of it, or stay on 127.0.0.1 and tunnel by ssh."
        )
    if token is not None and len(token) < 16:
        raise DataError(f"The token has {len(token)} characters; use at least 16 that nobody can guess.")


class Guard:
    """Refuses hosts that are not served, and puts the headers on every answer.

    `hosts` are names without port. Where the server is bound to all addresses (`any_address`), any literal address is
    served: names can be made to point elsewhere, addresses cannot.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str], any_address: bool, policy: str) -> None:
        self.app, self.hosts, self.any_address = app, {host.lower() for host in hosts}, any_address
        self.headers = {
            "Content-Security-Policy": policy,
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
            "Referrer-Policy": "same-origin",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Cache-Control": "no-store",
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(self.headers)
            await send(message)

        if self._served(Request(scope).headers.get("host", "")):
            await self.app(scope, receive, sending)
        else:
            refusal = PlainTextResponse("This host is not served. Open the address that `dpo review` printed.\n", 421)
            await refusal(scope, receive, sending)

    def _served(self, header: str) -> bool:
        name = header[1:].partition("]")[0] if header.startswith("[") else header.partition(":")[0]
        return name.lower() in self.hosts or (self.any_address and _is_address(name))


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def policy(style: str, script: str) -> str:
    """A content policy under which this style and this script work, forms go home, and nothing else does."""
    hashes = [b64encode(sha256(text.encode()).digest()).decode() for text in (style, script)]
    return (
        f"default-src 'none'; style-src 'sha256-{hashes[0]}'; script-src 'sha256-{hashes[1]}'; form-action 'self'; "
        "base-uri 'none'; frame-ancestors 'none'"
    )
