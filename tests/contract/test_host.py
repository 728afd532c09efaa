"""No loss waits for the device: nothing reads a number from a tensor, forward or backward.

A compiler refuses only what it meets while it traces; here every operation of an ordinary call is looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from tests.contract.record import LossRecord, all_records
from tests.contract.test_contract import value

READS = {
    torch.ops.aten._local_scalar_dense.default,  # item, bool, float, int, an index
    torch.ops.aten.is_nonzero.default,
    torch.ops.aten.nonzero.default,  # a size that the host has to know
    torch.ops.aten.masked_select.default,
    torch.ops.aten.equal.default,
}
DECIDE_ON_THE_HOST = ("tcc", "gtcc", "lav", "vava", "alignment", "soft_dtw")
"""Losses over lists of sequences; their pages say what happens on the host."""
CHECKED_ON_THE_CPU = ("temporal_cross_entropy",)
"""Losses that look at their labels, on a CPU alone: below they run on a device without values."""
RECORDS = [r for r in all_records() if r.name not in (*DECIDE_ON_THE_HOST, *CHECKED_ON_THE_CPU)]


class NoReads(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        mask = func is torch.ops.aten.index.Tensor and any(i is not None and i.dtype == torch.bool for i in args[1])
        if func in READS or mask:
            raise AssertionError(f"{func} reads a number from the device")
        return func(*args, **(kwargs or {}))


def reading(x: torch.Tensor) -> None:
    bool(x.any())


@pytest.mark.parametrize("read", [reading, lambda x: x[x > 0], lambda x: float(x.sum()), lambda x: x.nonzero()])
def test_reads_are_seen(read: Callable[[torch.Tensor], Any]) -> None:
    with NoReads(), pytest.raises(AssertionError, match="reads a number"):
        read(torch.ones(2))


@pytest.mark.parametrize("record", RECORDS, ids=[record.id for record in RECORDS])
def test_nothing_is_read(record: LossRecord) -> None:
    loss, inputs = record.build(), record.make()
    if record.advance is not None:
        record.advance(loss, 1)
    with NoReads():
        total = value(loss(**inputs)).sum()
        total.backward()


@pytest.mark.parametrize("record", [r for r in all_records() if r.name in CHECKED_ON_THE_CPU], ids=lambda r: r.id)
def test_nothing_can_be_read_on_a_device_without_values(record: LossRecord) -> None:
    loss = record.build().to("meta")
    inputs = pytree.tree_map(lambda x: x.detach().to("meta") if isinstance(x, torch.Tensor) else x, record.make())
    leaves = [inputs[name].requires_grad_() for name in record.grad]
    total = value(loss(**inputs)).sum()
    assert all(grad.is_meta for grad in torch.autograd.grad(total, leaves))
