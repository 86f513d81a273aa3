"""NKeys and the JWTs of a server in operator mode, made for each test."""

from __future__ import annotations

import base64
import json
import secrets
import time
from typing import TYPE_CHECKING, Any

import nkeys  # type: ignore[import-untyped]  # it ships no types

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["NKey", "Operator"]

KINDS = {
    "operator": nkeys.PREFIX_BYTE_OPERATOR,
    "account": nkeys.PREFIX_BYTE_ACCOUNT,
    "user": nkeys.PREFIX_BYTE_USER,
}
UNLIMITED = {
    "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": True,
    "conn": -1, "leaf": -1,
}  # fmt: skip
JETSTREAM = {"mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1}


class NKey:
    """A key pair of a user, an account or an operator."""

    def __init__(self, kind: str = "user") -> None:
        self.kind = kind
        encoded: bytes = nkeys.encode_seed(secrets.token_bytes(32), KINDS[kind])
        self.seed = encoded.decode()
        self._pair = nkeys.from_seed(encoded)
        self.public: str = self._pair.public_key.decode()

    def sign(self, subject: NKey, **claims: Any) -> str:
        """Return a JWT by which this key vouches for another."""
        body = {
            "jti": secrets.token_hex(16),
            "iat": int(time.time()),
            "iss": self.public,
            "sub": subject.public,
            "name": f"test {subject.kind}",
            "nats": {"type": subject.kind, "version": 2, **claims},
        }
        signed = f"{encoded({'typ': 'JWT', 'alg': 'ed25519-nkey'})}.{encoded(body)}"
        return f"{signed}.{base64url(self._pair.sign(signed.encode()))}"


class Operator:
    """An operator with a system account and others, for a server's MEMORY resolver.

    Args:
        claims: each account's, with the names of accounts in place of their public keys; the first
            one has JetStream.
    """

    def __init__(self, claims: Mapping[str, dict[str, Any]] | None = None) -> None:
        self._key = NKey("operator")
        self._system = NKey("account")
        self._claims = claims or {"AIRFLOW": {}}
        self._accounts = {name: NKey("account") for name in self._claims}

    def server_config(self) -> str:
        accounts = {self._system.public: self._key.sign(self._system, limits=UNLIMITED)}
        limits = UNLIMITED | JETSTREAM
        for name, key in self._accounts.items():
            lends = self._claims[name].get("exports", [])
            borrows = [self._with_key(found) for found in self._claims[name].get("imports", [])]
            jwt = self._key.sign(key, limits=limits, exports=lends, imports=borrows)
            accounts[key.public] = jwt
            limits = UNLIMITED
        preload = "\n".join(f"  {public}: {jwt}" for public, jwt in accounts.items())
        return (
            f"operator: {self._key.sign(self._key)}\n"
            f"system_account: {self._system.public}\n"
            f"resolver: MEMORY\nresolver_preload {{\n{preload}\n}}\n"
        )

    def _with_key(self, found: dict[str, Any]) -> dict[str, Any]:
        return found | {"account": self._accounts[found["account"]].public}

    def write_credentials(
        self, path: Path, user: NKey, account: str = "AIRFLOW", **claims: Any
    ) -> None:
        """Write what `nsc generate creds` does; the claims may hold permissions."""
        jwt = self._accounts[account].sign(user, subs=-1, data=-1, payload=-1, **claims)
        path.write_text(
            f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{user.seed}\n------END USER NKEY SEED------\n"
        )


def encoded(value: dict[str, Any]) -> str:
    return base64url(json.dumps(value, separators=(",", ":")).encode())


def base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
