"""Whether a thread is in old code that may not call what a patch brings."""

from __future__ import annotations

from ipbp.errors import Refusal
from ipbp.host import safepoint
from ipbp.host.inferior import Inferior
from ipbp.protocol import PatchPlan


def running_callers(inferior: Inferior, plan: PatchPlan) -> list[Refusal]:
    """`caller-running` for each of the plan's old callers that a thread is in or will come back to."""
    if not plan.callers:
        return []
    stacks = safepoint.stacks(inferior)
    near = safepoint.users_of(stacks, [(row.start, row.end) for row in plan.callers])
    places = {
        stack.thread: [stack.pc, *inferior.return_addresses(stack.thread)] for stack in stacks if stack.thread in near
    }
    found = []
    for row in plan.callers:
        inside = [thread for thread, rows in places.items() if any(row.start <= place < row.end for place in rows)]
        if inside:
            found.append(
                Refusal(
                    "caller-running",
                    f"thread {inside[0]} is in '{row.caller}', which calls '{row.callee}'; the edit changes both, and "
                    "the compiler may have changed how one passes arguments to the other",
                    f"Edit '{row.callee}' alone first, or restart the program.",
                    row.callee,
                    row.file,
                )
            )
    return found
