"""Frames as they are now.

When a command of ours and the program's own resumption cross, lldb may build a thread's frames once more from what the
last stop told, and keep them for the next one. Registers are not kept so: what they say is true.
"""

from __future__ import annotations

from typing import Optional

import lldb

_MASK = (1 << 64) - 1


def pc_of(innermost: lldb.SBFrame) -> Optional[int]:
    """Where the thread of this frame is, whatever the frame itself says; None when that cannot be read."""
    error = lldb.SBError()
    value = int(innermost.FindRegister("rip").GetNonSyntheticValue().GetValueAsUnsigned(error, 0))
    return value & _MASK if error.Success() else None


def forget_frames(thread: lldb.SBThread) -> None:
    """lldb unwinds the stack of the thread anew, and reads its registers anew, when it needs them. Setting the pc is
    the only way to that."""
    frame = thread.GetFrameAtIndex(0)
    pc = pc_of(frame) if frame.IsValid() else None
    if pc is not None:
        frame.SetPC(pc)


def with_true_frames(thread: lldb.SBThread) -> lldb.SBThread:
    """The thread, with no frames of an earlier stop."""
    frame = thread.GetFrameAtIndex(0)
    if frame.IsValid() and frame.GetPC() != pc_of(frame):
        forget_frames(thread)
    return thread
