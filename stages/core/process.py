"""What the processes that the flow starts have in common: how they end."""

import ctypes
import errno
import os
import signal
import sys

from stages.core.launch import ERROR_PREFIX, USER_ERROR_EXIT_CODE


def end_well() -> None:
    """End with the flow that started this process, and end as by an exception when asked to, so
    that what was begun is tidied up."""
    die_with_parent()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))


def die_with_parent() -> None:
    """Ask Linux to kill this process when the flow that started it dies: working on without
    anyone to take the result would only hold the device."""
    if sys.platform != "linux":
        return
    pr_set_pdeathsig = 1
    ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGKILL)
    parent = os.environ.get("RLHF_PARENT_PID")
    if parent and "RANK" not in os.environ and os.getppid() != int(parent):
        sys.exit("the process that started this stage is gone")


def refuse(message: str) -> int:
    """Tell the flow what only the user can mend, in one line; returns the exit code to end with."""
    print(ERROR_PREFIX + " ".join(message.split()), flush=True)
    return USER_ERROR_EXIT_CODE


def is_disk_full(error: BaseException) -> bool:
    """Also where an error carries no number: safetensors' does not, nor does that of torch.save to
    a path (transformers' checkpoints), which only says that its file is shorter than it should."""
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    signs = ("No space left on device", "unexpected pos", "iostream error")
    return full or any(sign in str(error) for sign in signs)
