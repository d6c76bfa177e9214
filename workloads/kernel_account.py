"""What the kernel itself says of a transfer, to be held against what is counted."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass


@dataclass(frozen=True)
class KernelAccount:
    """Its own word, in bytes and sends; ``None`` where it says nothing of that."""

    resident_bytes: int | None = None
    """What of the payload was in the page cache before a transfer that was to find none."""
    retransmitted_bytes: int | None = None
    """What TCP sent again."""
    secured_bytes: int | None = None
    """What was sent of TLS, which is more than the payload."""
    zerocopy_sends: int | None = None
    zerocopy_copied: int | None = None
    """Of the sends with MSG_ZEROCOPY, those that were copied after all."""
    mapped_bytes: int | None = None
    copied_bytes: int | None = None
    """What of a receive with TCP_ZEROCOPY_RECEIVE came as pages, and what did not."""

    @property
    def sent_again(self) -> int:
        """:attr:`retransmitted_bytes`; none where nothing was sent by TCP."""
        return self.retransmitted_bytes or 0

    def __or__(self, other: KernelAccount) -> KernelAccount:
        """Both together; the other's word where both have one."""
        return dataclasses.replace(self, **other.to_json())

    def to_json(self) -> dict[str, int]:
        """What it says, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}

    @staticmethod
    def from_json(values: dict[str, int]) -> KernelAccount:
        """Raises ``ValueError`` for a name that is not a member's."""
        names = {member.name for member in dataclasses.fields(KernelAccount)}
        if unknown := values.keys() - names:
            raise ValueError(f"the kernel gives no account of {', '.join(sorted(unknown))}")
        return KernelAccount(**values)
