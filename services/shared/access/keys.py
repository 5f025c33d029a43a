"""Format of API keys: `tl_<key id>_<secret>`, e.g. `tl_k3v9...` to be found by scanners of leaked secrets.

The key id, 12 lower-case letters and digits, is public: it stands in logs and lists. The secret is 256 random bits in
hex. A plain sha256 of it is safe to store, since nobody can guess 256 bits; slow password hashes are for secrets that
people choose.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import string
from dataclasses import dataclass, field

from services.shared.domain.errors import Unauthenticated

PREFIX = "tl_"
KEY_ID_CHARS = 12
KEY_ID_PATTERN = re.compile(rf"[a-z0-9]{{{KEY_ID_CHARS}}}")
DIGEST_PATTERN = re.compile(r"[0-9a-f]{64}")
_KEY_PATTERN = re.compile(rf"tl_({KEY_ID_PATTERN.pattern})_([0-9a-f]{{64}})")
_ALPHABET = string.ascii_lowercase + string.digits


@dataclass(frozen=True, kw_only=True)
class NewKey:
    """A key at the only moment at which its text is known."""

    key_id: str
    text: str = field(repr=False)
    secret_digest: str


def mint_key() -> NewKey:
    """A new key of this machine's random numbers."""
    key_id = "".join(secrets.choice(_ALPHABET) for _ in range(KEY_ID_CHARS))
    secret = secrets.token_hex(32)
    return NewKey(key_id=key_id, text=f"{PREFIX}{key_id}_{secret}", secret_digest=digest_of(secret))


def parse_key(presented: str) -> tuple[str, str]:
    """Key id and secret. Raises Unauthenticated for anything that is no key, without repeating it."""
    match = _KEY_PATTERN.fullmatch(presented)
    if match is None:
        raise Unauthenticated(
            "What was presented is no API key of Thumbloop. A key looks like tl_<12 characters>_<64 characters>; send "
            "it whole, as 'Authorization: Bearer KEY'.",
            reason="API_KEY_MALFORMED",
            field="Authorization",
        )
    return match[1], match[2]


def digest_of(secret: str) -> str:
    """Hex sha256 of a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


def proves(secret: str, digest: str) -> bool:
    """True if the secret has the digest; takes the same time whatever differs."""
    return hmac.compare_digest(digest_of(secret), digest)
