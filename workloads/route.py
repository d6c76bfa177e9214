"""The way that a strategy's payload goes, as the strategy says: places, and steps between them.

What was measured decides how many bytes went there; reports draw a reference where fewer bytes
were copied than there are.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Place(enum.Enum):
    """Where payload is."""

    DISK = "disk"
    CACHE = "page cache"
    USER = "user buffer"
    SOCKET = "socket buffer"
    TARGET = "page cache of the target"
    NIC = "NIC"


class By(enum.Enum):
    """Who moves it."""

    CPU = "copied by the CPU"
    DMA = "moved by DMA"
    REFERENCE = "handed over by reference"


@dataclass(frozen=True)
class Leg:
    """A step of a strategy's way. ``words`` say what a reference is, of a leg by one."""

    start: Place
    end: Place
    by: By = By.CPU
    words: str = "page references"


IN_AND_OUT = (Leg(Place.CACHE, Place.USER), Leg(Place.USER, Place.SOCKET))
MAPPED = Leg(Place.CACHE, Place.USER, By.REFERENCE, "mapped")
PINNED = Leg(Place.USER, Place.SOCKET, By.REFERENCE, "pinned")
PASSED = Leg(Place.CACHE, Place.SOCKET, By.REFERENCE, "by reference")
SHARED = Leg(Place.CACHE, Place.TARGET, By.REFERENCE, "blocks shared")
