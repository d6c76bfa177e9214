"""What the kernel itself tells a program of its transfer, against what was counted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from zctrace.evidence.schema import Run
from zctrace.probes.model import Direction, Quantity
from zctrace.workloads.known import Moved

_INSIDE = Direction.KERNEL_TO_KERNEL
_GATHERING = (Quantity.SKB_COPY_BITS, Quantity.SKB_COPY_AND_CSUM_BITS)


def compared(
    run: Run, seen: Mapping[Moved, int], captured: Mapping[Moved, int], *, gathers: bool
) -> Iterator[tuple[str, bool, str]]:
    """Each comparison's name, whether it holds, and in numbers.

    ``seen`` are bytes counted for the subject, ``captured`` those that a packet capture had
    copied besides. ``gathers`` is whether its network device takes
    pages: for another one packets are put together, and the send's pages left behind.
    """
    account = run.account
    copied, sends = account.zerocopy_copied, account.zerocopy_sends
    if copied is not None and sends is not None:
        endings = [of[Moved(Quantity.SKB_COPY_UBUFS, _INSIDE)] for of in (seen, captured)]
        ending, again = sum(endings), account.sent_again
        counted = ending
        if not gathers:
            counted += sum(seen[Moved(quantity, _INSIDE)] for quantity in _GATHERING)
        yield (
            "the kernel's own word on zero-copy sends",
            # Of one send a part may be copied, and a packet sent again is copied again.
            (not copied or counted > 0)
            and (not ending or copied > 0)
            and (copied < sends or counted >= run.payload_bytes)
            and max(endings) <= run.payload_bytes + again,
            f"{copied} of {sends} sends copied and {again} B sent again, it says; "
            f"{counted} B counted",
        )
    mapped, copied = account.mapped_bytes, account.copied_bytes
    if mapped is not None and copied is not None:
        received = seen[Moved(Quantity.COPY_TO_ITER, Direction.KERNEL_TO_USER)]
        yield (
            "the kernel's own word on mapped bytes",
            copied == received,
            f"{mapped} B mapped and {copied} B copied, it says; {received} B counted",
        )
