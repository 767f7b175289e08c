"""System calls in the inferior's name: how ipbp gets memory at an address of its choice.

One thread, held still like all others, is sent over an existing `syscall` instruction for a single step and then
put back as if nothing had been. That needs no symbol, no stack and no cooperation, works before main and in stripped
static programs, and lets us choose the address, which the debuggers' own allocation does not.

What makes it delicate is the kernel's restart of interrupted system calls (signal(7), "Interruption of system
calls"). A thread that was stopped in one has -ERESTART* in rax and the call's number in orig_rax, and the kernel
repeats the call when it resumes the thread in that state. Where the debugger shows orig_rax we save and restore it.
Where it does not (lldb), our own call leaves *its* number there, and the kernel would repeat our call with the
program's arguments; so there the program's call is repeated by hand: back to its two-byte instruction, the number
in rax. A signal may cut in before or after our call; its frame then holds our registers as the interrupted ones, and
is rewritten to hold the program's, so that neither the signal nor the program's state is lost.
"""

from __future__ import annotations

import errno
from typing import Callable, Optional, Sequence, TypeVar

from ipbp.errors import IpbpError
from ipbp.host import lifeline, procfs, virtual_memory
from ipbp.host.abi import NOP, X86_64, Abi, abi_of, is_windows
from ipbp.host.inferior import Inferior
from ipbp.host.quiet import BUSY
from ipbp.protocol import Description, Region

_RESTART_SYSCALL = 219  # arch/x86/entry/syscalls/syscall_64.tbl
_EPOLL_CALLS = {232, 281, 441}  # epoll_wait, epoll_pwait, epoll_pwait2
_PROTECTION = {"r": 1, "w": 2, "x": 4}  # mmap(2), PROT_*
_MAP_FLAGS = 0x02 | 0x20 | 0x100000  # MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE

_MASK = (1 << 64) - 1
_EINTR = -4
_ERESTARTSYS, _ERESTARTNOINTR, _ERESTARTNOHAND, _ERESTART_RESTARTBLOCK = -512, -513, -514, -516
_RESTARTS = {_ERESTARTSYS, _ERESTARTNOINTR, _ERESTARTNOHAND, _ERESTART_RESTARTBLOCK}  # include/linux/errno.h

_ATTEMPTS = 16

Registers = dict[str, int]
T = TypeVar("T")


def look_ahead(inferior: Inferior) -> None:
    """Find what a system call will need in the program's code, while it still runs."""
    if abi_of(inferior.describe()).restarts:
        lifeline.find_ways(inferior, _code(inferior))


def allocate(inferior: Inferior, address: int, size: int, protection: str) -> None:
    """Map `size` zero bytes (whole pages) at exactly `address`, private and anonymous; `protection` is "rx", "r", "rw".

    Errors: `inject-address-taken` when something is there, `inject-failed` when the kernel refuses, `seccomp`.
    """
    if any(region.start < address + size and address < region.end for region in inferior.regions()):
        raise _taken(address, size)
    if is_windows(inferior.describe()):
        if not virtual_memory.allocate(inferior, address, size, protection):
            inferior.note_mapping(Region(address, address + size, "", 0, ""), True)
            raise _taken(address, size)
        inferior.note_mapping(Region(address, address + size, protection, 0, ""), True)
        return
    arguments = (address, size, _protection_bits(protection), _MAP_FLAGS, _MASK, 0)
    result = system_call(inferior, abi_of(inferior.describe()).mmap, arguments)
    if result == -errno.EEXIST:
        inferior.note_mapping(Region(address, address + size, "", 0, ""), True)
        raise _taken(address, size)
    _require_success(result, f"map {size} bytes ({protection}) at {address:#x}")
    if result != address:  # a kernel before 4.17 takes the address as a hint only
        release(inferior, result & _MASK, size)
        raise _taken(address, size)
    inferior.note_mapping(Region(address, address + size, protection, 0, ""), True)
    regions = inferior.regions()
    if not regions:  # it was killed just now
        raise IpbpError("inferior-gone", "the program has ended", "Start it again.")
    if not is_mapped(regions, address, size, protection):
        raise IpbpError(
            "inject-failed",
            f"the kernel said that it mapped {size} bytes at {address:#x}, but they are not there",
            "Report this as a bug.",
        )


def release(inferior: Inferior, address: int, size: int) -> None:
    """Unmap whole pages, which were mapped together."""
    if is_windows(inferior.describe()):
        virtual_memory.release(inferior, address)
        inferior.note_mapping(Region(address, address + size, "", 0, ""), False)
        return
    result = system_call(inferior, abi_of(inferior.describe()).munmap, (address, size))
    _require_success(result, f"unmap {size} bytes at {address:#x}")
    inferior.note_mapping(Region(address, address + size, "", 0, ""), False)


def protect(inferior: Inferior, address: int, size: int, protection: str) -> None:
    """Change the protection of whole pages."""
    number = abi_of(inferior.describe()).mprotect
    result = system_call(inferior, number, (address, size, _protection_bits(protection)))
    _require_success(result, f"change {size} bytes at {address:#x} to {protection}")


def is_mapped(regions: Sequence[Region], address: int, size: int, protection: str) -> bool:
    """Whether every byte is mapped with this protection. The kernel may have joined or split the mappings."""
    reached = address
    for region in regions:
        if region.start <= reached < region.end and region.protection == protection:
            reached = region.end
    return reached >= address + size


def restartable(inferior: Inferior) -> list[int]:
    """Threads whose epoll wait the debugger's stop cut short with a plain EINTR, put right so that it goes on.

    The kernel never restarts epoll_wait(2) by itself, and every stop of a debugger interrupts it. To be called first
    thing in a stop: where orig_rax is hidden, an injected call destroys what this needs to know. Once more does no
    harm. A thread with a signal on its way to a handler is left alone: it has a right to its EINTR. A finite timeout
    starts over.
    """
    description = inferior.describe()
    if not abi_of(description).restarts:
        return []
    if description.local:
        waiting = [thread.id for thread in inferior.threads() if thread.system_call in _EPOLL_CALLS]
        threads = [number for number in waiting if not procfs.signals_to_handle(description.pid, number)]
    else:
        threads = [thread.id for thread in inferior.threads()]
    return [thread for thread in threads if _restart_epoll(inferior, thread)]


def _restart_epoll(inferior: Inferior, thread: int) -> bool:
    registers = _read_registers(inferior, thread, ("rax", "rip", "orig_rax"))
    if _signed(registers["rax"]) != _EINTR:
        return False
    number = registers.get("orig_rax")
    if number is not None:
        if number in _EPOLL_CALLS:
            inferior.set_registers(thread, {"rax": _ERESTARTNOINTR & _MASK})
        return number in _EPOLL_CALLS
    number = inferior.interrupted_call(thread)
    if number not in _EPOLL_CALLS:
        return False
    inferior.set_registers(thread, {"rip": registers["rip"] - len(X86_64.syscall), "rax": number})
    return True


def system_call(inferior: Inferior, number: int, arguments: Sequence[int]) -> int:
    """The result of one system call made by one of the inferior's threads; -errno when it failed.

    The inferior is stopped; nothing but the effect of the call is left behind. The call must not block.
    Errors: `seccomp` when a filter might kill the process for it, `inject-diverted` when signals never let it
    through, `inject-no-site` when there is no code at all to run it at.
    """
    thread, abi = _choose_thread(inferior), abi_of(inferior.describe())
    _refuse_filter(inferior, thread)
    code = _code(inferior)
    ways = lifeline.find_ways(inferior, code) if abi.restarts else None
    if ways is not None:
        return _call_until_through(inferior, abi, thread, ways.calls, number, arguments, ways)
    sites = _find_sites(inferior, abi, code)
    if not sites:
        return _call_at_borrowed_site(inferior, abi, thread, number, arguments)
    return _call_until_through(inferior, abi, thread, sites, number, arguments)


def step_aside(inferior: Inferior, thread: int) -> None:
    """Let this thread make a system call without an effect (getpid(2)) and come back to where it is. What the debugger
    then knows of why it stopped is that step."""
    _refuse_filter(inferior, thread)
    abi = abi_of(inferior.describe())
    sites = _find_sites(inferior, abi, _code(inferior))
    if not sites:
        raise IpbpError(
            "inject-no-site",
            "the process has no code mapped from a file",
            "Start a program that is mapped from a file; this one cannot be patched.",
        )
    _call_until_through(inferior, abi, thread, sites, abi.getpid, ())


def _call_until_through(
    inferior: Inferior,
    abi: Abi,
    thread: int,
    sites: Sequence[int],
    number: int,
    arguments: Sequence[int],
    ways: Optional[lifeline.Ways] = None,
) -> int:
    for attempt in range(_ATTEMPTS):
        result = _call_once(inferior, abi, thread, sites[attempt % len(sites)], number, arguments, ways)
        if result is not None:
            return result
    raise IpbpError(
        "inject-diverted",
        f"a system call in thread {thread} was cut short {_ATTEMPTS} times, by signals or breakpoints",
        "Continue for a moment and try again.",
    )


def _call_once(
    inferior: Inferior,
    abi: Abi,
    thread: int,
    site: int,
    number: int,
    arguments: Sequence[int],
    ways: Optional[lifeline.Ways],
) -> Optional[int]:
    # The result, or None when the step did not get as far as the call. The thread is as before either way.
    saved = _read_registers(inferior, thread, (*abi.frame, *((abi.hidden,) if abi.hidden else ())))
    interrupted = _interrupted_call(inferior, thread, saved, abi)
    call = dict(zip(abi.arguments, arguments))
    call.update({abi.number: number, abi.pc: site})
    if abi.hidden in saved:
        call[abi.hidden] = _MASK  # -1: not in a system call, so that the kernel restarts nothing
    restored, vectors = _restored(saved, interrupted, abi), inferior.vectors(thread, abi.lost) if abi.lost else {}
    done = _places_behind(site, abi)
    line = lifeline.lay(inferior, thread, ways, {**saved, **_begun_again(saved, interrupted, abi)}) if ways else None
    call[abi.stack] = line.pointer if line else saved[abi.stack]
    try:
        inferior.set_registers(thread, call)
        inferior.step(thread)
        after = _read_registers(inferior, thread, (abi.pc, abi.result, abi.context, abi.stack))
    except BaseException:
        _put_back(inferior, thread, restored, vectors)
        _take_up(inferior, line)
        raise
    if after[abi.pc] not in (site, *done) and after[abi.stack] != call[abi.stack]:
        result = _leave_to_handler(inferior, abi, thread, site, after[abi.context], saved, interrupted)
    else:
        _put_back(inferior, thread, restored, vectors)
        result = _signed(after[abi.result]) if after[abi.pc] in done else None
    _take_up(inferior, line)
    return result


def _put_back(inferior: Inferior, thread: int, registers: Registers, vectors: Registers) -> None:
    _surely(inferior.set_registers, thread, registers)
    if vectors:
        _surely(inferior.set_vectors, thread, vectors)


def _take_up(inferior: Inferior, line: Optional[lifeline.Lifeline]) -> None:
    if line is not None:
        _surely(inferior.write, line.pointer, line.covered)


def _begun_again(saved: Registers, interrupted: Optional[int], abi: Abi) -> Registers:
    # By a thread that is on its own: the kernel restarts nothing after sigreturn(2).
    if interrupted is None:
        return {}
    return {abi.pc: saved[abi.pc] - len(abi.syscall), abi.number: interrupted}


def _places_behind(site: int, abi: Abi) -> tuple[int, ...]:
    done = site + len(abi.syscall)
    return (done, done + abi.slack) if abi.slack else (done,)


def _restored(saved: Registers, interrupted: Optional[int], abi: Abi) -> Registers:
    # What the thread gets back. With orig_rax the kernel's own restart is as before; without, we do it by hand.
    values = {name: saved[name] for name in abi.changed}
    if abi.hidden in saved:
        values[abi.hidden] = saved[abi.hidden]
    elif interrupted is not None:
        # -ERESTART_RESTARTBLOCK is continued by another call, which remembers the time that is left.
        is_block = _signed(saved[abi.result]) == _ERESTART_RESTARTBLOCK
        values[abi.pc] = saved[abi.pc] - len(abi.syscall)
        values[abi.number] = _RESTART_SYSCALL if is_block else interrupted
    return values


def _leave_to_handler(
    inferior: Inferior, abi: Abi, thread: int, site: int, context: int, saved: Registers, interrupted: Optional[int]
) -> Optional[int]:
    """The thread is at the first instruction of a signal handler; its third argument is the ucontext_t.

    It stays there, and will return to the state that it had before us. The result of our call when the signal came
    after it, else None.
    """
    start, done = context + abi.frame_at, _places_behind(site, abi)
    frame = inferior.read(start, 8 * len(abi.frame))
    words = {name: int.from_bytes(frame[8 * i : 8 * i + 8], "little") for i, name in enumerate(abi.frame)}
    if words[abi.pc] not in (site, *done):
        _surely(inferior.set_registers, thread, saved)
        raise IpbpError(
            "inject-diverted",
            f"thread {thread} went somewhere else instead of making a system call",
            "Continue for a moment and try again.",
        )
    before = {**saved, **_after_handler(saved, interrupted, abi)}
    _surely(inferior.write, start, b"".join(before[name].to_bytes(8, "little") for name in abi.frame))
    return _signed(words[abi.result]) if words[abi.pc] in done else None


def _after_handler(saved: Registers, interrupted: Optional[int], abi: Abi) -> Registers:
    # What the kernel's handle_signal() (arch/x86/kernel/signal.c) would have put into the frame itself. Whether the
    # handler has SA_RESTART cannot be seen from here; most have, and it is assumed.
    if interrupted is None:
        return {}
    if _signed(saved[abi.result]) in (_ERESTARTSYS, _ERESTARTNOINTR):
        return {abi.pc: saved[abi.pc] - len(abi.syscall), abi.number: interrupted}
    return {abi.result: _EINTR & _MASK}


def _interrupted_call(inferior: Inferior, thread: int, saved: Registers, abi: Abi) -> Optional[int]:
    if not abi.restarts or _signed(saved[abi.result]) not in _RESTARTS:
        return None
    if abi.hidden in saved:
        return saved[abi.hidden] if _signed(saved[abi.hidden]) >= 0 else None
    return inferior.interrupted_call(thread)


def _choose_thread(inferior: Inferior) -> int:
    # Best one that is not in a system call at all; looking at a few is enough.
    threads = inferior.threads()
    if not threads:
        raise IpbpError("inferior-gone", "the process has no threads any more", "Start it again.")
    description = inferior.describe()
    for thread in threads[:4]:
        if not _may_be_in_call(inferior, description, thread.id):
            return thread.id
    for thread in threads:
        if not _is_amid_call(inferior, description, thread.id):
            return thread.id
    raise IpbpError(
        BUSY,
        "every thread is in the middle of a system call, such as fork(2)",
        "Continue for a moment and try again.",
    )


def _is_amid_call(inferior: Inferior, description: Description, thread: int) -> bool:
    """Whether the kernel is still to give the thread the result of its system call: it is stopped by an event of the
    call itself (ptrace(2), PTRACE_EVENT_FORK). Until then what a debugger writes there is lost, and on x86-64 -ENOSYS
    stands in for the result (arch/x86/entry)."""
    abi = abi_of(description)
    if abi.restarts:
        return _signed(_read_registers(inferior, thread, (abi.result,))[abi.result]) == -errno.ENOSYS
    # The kernel has a call's number until the thread is back in the program, or at a signal.
    return _is_behind_call(inferior, abi, thread) and inferior.interrupted_call(thread) is not None


def _is_behind_call(inferior: Inferior, abi: Abi, thread: int) -> bool:
    before = _read_registers(inferior, thread, (abi.pc,))[abi.pc] - len(abi.syscall)
    return inferior.read(before, len(abi.syscall)) == abi.syscall


def _may_be_in_call(inferior: Inferior, description: Description, thread: int) -> bool:
    # The kernel is asked where that is possible: a debugger looks at the whole innermost frame first.
    if description.local:
        where = procfs.system_call(description.pid, thread)
        return where is None or where.number is not None
    abi = abi_of(description)
    if not abi.restarts:
        # It stands before its `svc`, and would only begin its call anew.
        pc = _read_registers(inferior, thread, (abi.pc,))[abi.pc]
        is_before = inferior.read(pc, len(abi.syscall)) == abi.syscall
        return is_before or _is_amid_call(inferior, description, thread)
    return _signed(_read_registers(inferior, thread, (abi.result,))[abi.result]) in (*_RESTARTS, -errno.ENOSYS)


def _refuse_filter(inferior: Inferior, thread: int) -> None:
    if inferior.filters_calls(thread):
        raise IpbpError(
            "seccomp",
            "the process runs under a seccomp filter, which may kill it for a system call that it does not expect",
            "Start it without its sandbox to patch it.",
        )


def _code(inferior: Inferior) -> list[Region]:
    """Mappings of code from files, the C library's first. Never the vdso: in a static program gdb unwinds garbage from
    there, for seconds."""
    executable = inferior.describe().executable
    code = [r for r in inferior.regions() if "x" in r.protection and r.path.startswith("/")]
    return sorted(code, key=lambda r: _distance_from_libc(r.path, executable))


def _find_sites(inferior: Inferior, abi: Abi, code: Sequence[Region]) -> list[int]:
    """Up to two places with the bytes of a system call's instruction."""
    for region in code:
        sites = _sites_in(inferior, region, abi)
        if sites:
            return sites
    return []


def _distance_from_libc(path: str, executable: str) -> int:
    name = path.rpartition("/")[2]
    if name.startswith(("libc.so", "libc-", "ld-")):
        return 0
    return 1 if path == executable else 2


def _sites_in(inferior: Inferior, region: Region, abi: Abi) -> list[int]:
    sites: list[int] = []
    syscall = abi.syscall
    chunk, beyond = 1 << 16, len(syscall) - 1 + abi.slack  # some more: it may lie across
    for start in range(region.start, region.end, chunk):
        code = inferior.read(start, min(chunk + beyond, region.end - start))
        at = code.find(syscall)
        while at >= 0 and len(sites) < 2:
            is_aligned = not abi.slack or (start + at) % len(syscall) == 0
            if is_aligned and abi.may_follow(code[at + len(syscall) :]):
                sites.append(start + at)
            at = code.find(syscall, at + 1)
        if sites:
            return sites
    return sites


def _call_at_borrowed_site(inferior: Inferior, abi: Abi, thread: int, number: int, arguments: Sequence[int]) -> int:
    # No such instruction anywhere: bytes of the program's first code become one while only this thread moves.
    code = [region for region in inferior.regions() if "x" in region.protection and region.path.startswith("/")]
    if not code:
        raise IpbpError(
            "inject-no-site",
            "the process has no code mapped from a file",
            "Start a program that is mapped from a file; this one cannot be patched.",
        )
    site = code[0].start
    borrowed = abi.syscall if not abi.slack else abi.syscall + NOP
    original = inferior.read(site, len(borrowed))
    try:
        inferior.write(site, borrowed)
        return _call_until_through(inferior, abi, thread, [site], number, arguments)
    finally:
        _surely(inferior.write, site, original)


def _surely(act: Callable[[int, T], None], at: int, content: T) -> None:
    # What puts the program back is tried again when it fails or is interrupted; the failure is still one.
    try:
        act(at, content)
    except BaseException:
        act(at, content)
        raise


def _read_registers(inferior: Inferior, thread: int, names: Sequence[str]) -> Registers:
    return {name: value & _MASK for name, value in inferior.registers(thread, names).items()}


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _protection_bits(protection: str) -> int:
    return sum(_PROTECTION[letter] for letter in protection)


def _taken(address: int, size: int) -> IpbpError:
    return IpbpError(
        "inject-address-taken",
        f"{size} bytes at {address:#x} cannot be mapped: something is there already",
        "Try again: another place is chosen.",
    )


def _require_success(result: int, what: str) -> None:
    if -4095 <= result < 0:
        raise IpbpError(
            "inject-failed",
            f"the kernel did not {what}: {errno.errorcode.get(-result, result)}",
            "Look at the process's limits (ulimit -v, cgroup, SELinux).",
        )
