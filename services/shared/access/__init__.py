"""Who may call: API keys with scopes, checked in every room without asking anyone, and the deployment's own credential.

*Key*: `tl_<key id>_<secret>`. The secret is shown once, at its making; only its digest is kept. *Principal*: whom a
key speaks for. *Scope*: what a principal may do. *Snapshot*: all keys that were not revoked, as digests; the learner
owns it, every other room follows it and keeps a copy on its disk. *Service credential*: what the rooms of one
deployment prove themselves with to one another, from a key ring that all of them have.

Everything is denied unless something here allows it.
"""

from services.shared.access.keys import NewKey, digest_of, mint_key, parse_key
from services.shared.access.scopes import ANONYMOUS, Principal, Scope
from services.shared.access.service_credential import ServiceCredential, service_credential
from services.shared.access.snapshot import AccessSnapshot, LiveKey

__all__ = [
    "ANONYMOUS",
    "AccessSnapshot",
    "LiveKey",
    "NewKey",
    "Principal",
    "Scope",
    "ServiceCredential",
    "digest_of",
    "mint_key",
    "parse_key",
    "service_credential",
]
