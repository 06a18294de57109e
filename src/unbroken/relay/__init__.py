"""The relay: the rule for every program that takes a base URL, in any language."""

from __future__ import annotations

from unbroken.relay.app import Relay
from unbroken.relay.settings import Settings

__all__ = ["Relay", "Settings"]
