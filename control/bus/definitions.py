"""RabbitMQ's definitions file: the virtual host, a user a tier, and what each may do.

The broker reads it when it starts (`load_definitions`, https://www.rabbitmq.com/docs/definitions), so that it has its
users before anybody can connect. It holds hashes of passwords, not passwords.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from typing import Any

from control.bus.rights import RIGHTS

ADMINISTRATOR = "admin"


def definitions(vhost: str, passwords: Mapping[str, str]) -> dict[str, Any]:
    """What the file says. `passwords`: of each tier of `control.bus.rights`, and of `admin`, who looks at the
    management pages and at metrics. Raises KeyError where one is missing."""
    tiers = {tier: f"afterlive-{tier}" for tier in RIGHTS}
    users = [_user(name, passwords[tier]) for tier, name in tiers.items()]
    return {
        "vhosts": [{"name": vhost}],
        "users": [*users, _user(ADMINISTRATOR, passwords[ADMINISTRATOR], "administrator")],
        "permissions": [
            *(
                {"user": name, "vhost": vhost}
                | _patterns(RIGHTS[tier].configure, RIGHTS[tier].write, RIGHTS[tier].read)
                for tier, name in tiers.items()
            ),
            {"user": ADMINISTRATOR, "vhost": vhost} | _patterns(".*", ".*", ".*"),
        ],
        "topic_permissions": [
            {"user": name, "vhost": vhost, "exchange": exchange, "write": pattern, "read": ".*"}
            for tier, name in tiers.items()
            for exchange, pattern in RIGHTS[tier].topics.items()
        ],
    }


def _user(name: str, password: str, *tags: str) -> dict[str, Any]:
    hashing = "rabbit_password_hashing_sha256"
    return {"name": name, "password_hash": hashed(name, password), "hashing_algorithm": hashing, "tags": list(tags)}


def hashed(name: str, password: str) -> str:
    """As RabbitMQ keeps it: base64 of a salt of four bytes and the SHA-256 of salt and password
    (https://www.rabbitmq.com/docs/passwords#this-is-the-algorithm). The salt is the user's, so that the same users
    make the same file; passwords are random, and need none."""
    salt = hashlib.sha256(name.encode()).digest()[:4]
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


def _patterns(configure: str, write: str, read: str) -> dict[str, str]:
    return {"configure": configure, "write": write, "read": read}
