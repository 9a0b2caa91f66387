"""What the server logs: events with fields."""

from __future__ import annotations

import logging
from typing import Any

LOGGER = logging.getLogger("featcomp.server")


def log(event: str, level: int = logging.INFO, **fields: Any) -> None:
    """Log an event with its fields."""
    if LOGGER.isEnabledFor(level):
        LOGGER.log(level, event, extra={"fields": fields})
