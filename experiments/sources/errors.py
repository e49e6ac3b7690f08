"""What a source refuses, and why."""

from __future__ import annotations


class SourceError(ValueError):
    """A model that cannot be used as asked; the message names it, what was found, and the remedy."""


class RoutingFault(SourceError):
    """A router decision that cannot be true; the message names shard, document, token, layer and expert."""
