"""What a run did, as the processes themselves saw it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from zctrace.workloads.kernel_account import KernelAccount
from zctrace.workloads.known import Controls


@dataclass(frozen=True)
class Outcome:
    """``received`` in bytes; ``account`` is what the kernel itself said of the transfer.

    Where ``unavailable`` gives a reason nothing was tried, and everything else is empty.
    """

    received: int
    controls: Controls = field(default_factory=Controls)
    account: KernelAccount = field(default_factory=KernelAccount)
    unavailable: str = ""

    def to_json(self) -> dict[str, Any]:
        """For the way from the strategies' process to the collector."""
        return {
            "received": self.received,
            **self.controls.to_json(),
            "account": self.account.to_json(),
            "unavailable": self.unavailable,
        }

    @staticmethod
    def from_json(values: dict[str, Any]) -> Outcome:
        """From an object that has the members of :meth:`to_json`, and others."""
        return Outcome(
            values["received"],
            Controls.from_json(values),
            KernelAccount.from_json(values["account"]),
            values["unavailable"],
        )
