"""What the last lines of a dead worker's stderr come to: a row for each text that is known."""

from __future__ import annotations

import pytest

from pretrain_llm.contract import symptoms
from pretrain_llm.contract.symptoms import Diagnosis

NOISE = [
    "2026-11-21 12:00:00,1 [rank 0] INFO step:  7  loss:  2.34567  grad_norm:  0.1234",
    "[W1121 12:00:00 ProcessGroupNCCL.cpp:1538] Warning: WARNING: destroy_process_group()",
    "frame #3: c10::detail::torchInternalAssertFail(char const*, ...)",
]
WATCHDOG = "[rank0]:[E1121 ProcessGroupNCCL.cpp:685] [Rank 0] Watchdog caught collective operation"
WATCHDOG += " timeout: WorkNCCL(SeqNum=7, OpType=ALLREDUCE) ran for 600010 milliseconds"
XID = "[ 7.1] NVRM: Xid (PCI:0000:cb:00): 79, pid='<unknown>', GPU has fallen off the bus."
ASSERTION = (
    "TensorCompare.cu:109: _assert_async_cuda_kernel: block: [0,0,0], thread: [0,0,0] Assertion"
    " `Loss or gradient norm is not finite` failed."
)
ASSERTED = "RuntimeError: CUDA error: device-side assert triggered"
KERNEL = "what():  CUDA error: unspecified launch failure (cudaErrorLaunchFailure)"


@pytest.mark.parametrize(
    ("lines", "symptom", "told"),
    [
        pytest.param([WATCHDOG], symptoms.COLLECTIVE_TIMEOUT, [WATCHDOG], id="watchdog"),
        pytest.param([XID], symptoms.DEVICE_BROKEN, [XID], id="hardware xid"),
        pytest.param(
            [WATCHDOG, KERNEL, XID], symptoms.DEVICE_BROKEN, [XID], id="hardware before its effects"
        ),
        pytest.param(
            [WATCHDOG, KERNEL], symptoms.DEVICE_ERROR, [KERNEL], id="own kernel before its peers"
        ),
        pytest.param(
            [ASSERTION, ASSERTED], symptoms.NON_FINITE, [ASSERTION], id="not finite, on CUDA"
        ),
        pytest.param(
            ["CUDA error: out of memory"],
            symptoms.DEVICE_MEMORY,
            ["CUDA error: out of memory"],
            id="device out of memory",
        ),
        pytest.param(
            ["Traceback (most recent call last):", "KeyError: 'a'", "torch.FooError: b", "", "bye"],
            None,
            ["torch.FooError: b"],
            id="python's last exception",
        ),
        pytest.param(
            ["\x1b[31mCUDA error: x\x1b[0m\r"] * 9 + ["CUDA error: y" + "z" * 999],
            symptoms.DEVICE_ERROR,
            ["CUDA error: x", ("CUDA error: y" + "z" * 999)[: symptoms.MAX_CHARACTERS]],
            id="bounded, without colours and repeats",
        ),
        pytest.param(
            [f"CUDA error: {number}" for number in range(9)],
            symptoms.DEVICE_ERROR,
            ["CUDA error: 0", "CUDA error: 1", "CUDA error: 2"],
            id="the first lines",
        ),
        pytest.param([], None, [], id="nothing"),
    ],
)
def test_diagnosis_of_the_last_lines_is_their_symptom_and_nothing_else(lines, symptom, told):
    assert symptoms.diagnosis([*NOISE, *lines]) == Diagnosis(symptom, tuple(told))
