"""What memory tells of a process of Windows, and how memory is asked for in one."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from foreign_formats import TARGETS, compiled, linked

from ipbp.errors import IpbpError
from ipbp.formats.coff_process import WindowsProcess, read_process
from ipbp.graph.image import LoadedImage
from ipbp.host import inject
from ipbp.host.fake import PAGE, FakeInferior
from ipbp.host.pe_memory import Module, exports, function_at, modules, peb_of, regions_of, stack_of
from ipbp.pipeline.windows import quiet_of, unwinder_of
from ipbp.protocol import Region

TARGET = TARGETS["coff-x86_64"]
SOURCE = """
static volatile int sink; int _fltused;
__declspec(dllexport) int RtlAddFunctionTable(int x) { volatile int room[40]; room[x & 7] = x; return room[0]; }
__declspec(dllexport) int RtlDeleteFunctionTable(int x) { volatile int room[80]; room[x & 7] = x; return room[0]; }
__declspec(dllexport) void NtWait(void) { sink++; }
__declspec(dllexport) void Ntfs(void) { sink--; }
__declspec(dllexport) void RtlUserThreadStart(void) { sink = 3; }
int start(void) { return RtlAddFunctionTable(sink) + RtlDeleteFunctionTable(2); }
"""


class Memory:
    """Contents by their addresses."""

    def __init__(self, contents: Mapping[int, bytes]) -> None:
        self.contents = contents

    def read(self, address: int, size: int) -> bytes:
        for start, content in self.contents.items():
            if start <= address and address + size <= start + len(content):
                return content[address - start :][:size]
        raise IpbpError("inferior-memory", f"nothing at {address:#x}", "")

    def ranges(self, ranges: Sequence[tuple[int, int]]) -> list[bytes | None]:
        return [self.read(address, size) for address, size in ranges]


def loaded(image: LoadedImage) -> Memory:
    """The image as a loader has put it there."""
    header = next(head for size in range(0x1000, 0, -0x200) if (head := image.original(image.start, size)))
    content = bytearray(header.ljust(-(-(image.end - image.start) // PAGE) * PAGE, b"\0"))
    for part in image.parts:
        found = image.original(part.start, part.end - part.start) or b""
        content[part.start - image.start : part.start - image.start + len(found)] = found
    return Memory({image.start: bytes(content)})


@pytest.fixture
def image(clang: str, tmp_path: Path) -> LoadedImage:
    unit = compiled(tmp_path, clang, TARGET, SOURCE, "-O1", "-fasynchronous-unwind-tables")
    return linked(TARGET, [unit], tmp_path / "program.exe", "start")


def word(*numbers: int) -> bytes:
    return struct.pack(f"<{len(numbers)}Q", *numbers)


def test_the_thread_s_block_leads_to_its_stack_and_to_all_modules_in_order() -> None:
    names = ["C:\\a b\\told.exe", "C:\\windows\\system32\\ntdll.dll"]
    words = {0x1000: word(0, 0x9000, 0x8000).ljust(0x60, b"\0") + word(0x2000), 0x2018: word(0x3000)}
    head, entries = 0x3010, [0x4000, 0x5000]
    words[head] = word(entries[0], entries[1])
    for row, (entry, name) in enumerate(zip(entries, names, strict=True)):
        text = name.encode("utf-16-le")
        following = entries[row + 1] if row + 1 < len(entries) else head
        content = word(following).ljust(0x30, b"\0") + word(0x10000 * (row + 1), 0, 0x7000 + row)
        words[entry] = content.ljust(0x48, b"\0") + word(len(text), entry + 0x100) + bytes(16)
        words[entry + 0x100] = text
    memory = Memory(words)
    assert stack_of(memory, 0x1000) == (0x8000, 0x9000)
    peb = peb_of(memory, 0x1000)
    assert modules(memory, peb) == [Module(0x10000, 0x7000, names[0]), Module(0x20000, 0x7001, names[1])]
    words[0x2018] = word(0)
    with pytest.raises(IpbpError) as caught:
        modules(Memory(words), peb)
    assert caught.value.code == "inferior-remote"


def test_an_image_says_its_parts_its_exports_and_where_its_functions_end(image: LoadedImage) -> None:
    memory, module = loaded(image), Module(image.start, image.end - image.start, "ntdll.dll")
    rows = regions_of(memory, module, "/told.exe")
    assert (rows[0].start, rows[0].protection) == (image.start, "r")
    by_name = {part.name: part for part in image.parts}
    for name, protection in ((".text", "rx"), (".rdata", "r"), (".data", "rw")):
        row = next(row for row in rows if row.start == by_name[name].start)
        assert row.protection == protection
        assert row.end >= by_name[name].end
    found = exports(memory, module)
    table = image.symbols
    places = {name: int(table.address[table.by_name[name][0]]) for name in found}
    assert found == places
    assert found.keys() == {"NtWait", "Ntfs", "RtlAddFunctionTable", "RtlDeleteFunctionTable", "RtlUserThreadStart"}
    start, end = function_at(memory, module, found["RtlAddFunctionTable"] + 9)
    size = next(size for at, size in zip(table.address, table.size, strict=True) if at == start)
    assert start == found["RtlAddFunctionTable"]
    assert size - 16 < end - start <= size  # a symbol reaches to the next one
    # A leaf has no row: it counts from the row before it to the next one.
    low, high = function_at(memory, module, found["NtWait"])
    assert low <= found["NtWait"] < high
    assert not low <= found["RtlAddFunctionTable"] < high


def process_of(image: LoadedImage, path: str, memory: Memory) -> WindowsProcess:
    module = Module(image.start, image.end - image.start, path)
    library = [replace(row, path="C:\\windows\\system32\\NTDLL.dll") for row in regions_of(memory, module, path)]
    return read_process([*regions_of(memory, module, path), *library], path, memory.ranges)


def test_the_program_is_read_from_its_file_which_must_be_the_one_that_runs(image: LoadedImage, tmp_path: Path) -> None:
    file = tmp_path / "program.exe"
    process = read_process([Region(image.start, image.end, "r", 0, str(file))], str(file), loaded(image).ranges)
    assert process.executable_image().start == image.start
    assert process.modules[0].key == process.executable_image().key
    other = bytearray(file.read_bytes())
    at = int.from_bytes(other[60:64], "little")
    other[at + 8] ^= 1  # the time of the link
    (tmp_path / "other.exe").write_bytes(other)
    with pytest.raises(IpbpError) as caught:
        read_process(
            [Region(image.start, image.end, "r", 0, str(tmp_path / "other.exe"))],
            str(tmp_path / "other.exe"),
            loaded(image).ranges,
        ).executable_image()
    assert caught.value.code == "image-unreadable"
    with pytest.raises(IpbpError) as caught:
        read_process([], str(file), loaded(image).ranges)
    assert caught.value.code == "image-unreadable"


def test_its_system_library_is_told_of_rows_when_nobody_is_in_it(image: LoadedImage, tmp_path: Path) -> None:
    memory = loaded(image)
    process = process_of(image, str(tmp_path / "program.exe"), memory)
    found = exports(memory, Module(image.start, 0, ""))
    unwinder = unwinder_of(process)
    assert (unwinder.register, unwinder.deregister) == (found["RtlAddFunctionTable"], found["RtlDeleteFunctionTable"])
    assert unwinder.base == image.start
    held = quiet_of(process).held

    def is_held(address: int) -> bool:
        return any(start <= address < end for start, end in held)

    assert is_held(found["RtlAddFunctionTable"])
    assert is_held(found["Ntfs"])  # a name like a stub's
    assert not is_held(found["NtWait"])
    assert not is_held(found["RtlUserThreadStart"])
    assert all(image.start <= start < end <= image.end + 4096 for start, end in held)


ARENA = 0x1_4800_0000


def process_with(image: LoadedImage, **functions: Callable[..., int]) -> FakeInferior:
    """A process that has the image as its kernelbase.dll, with these functions at its exports."""
    inferior = FakeInferior(triple="x86_64-windows", local=False)
    (content,) = loaded(image).contents.values()
    inferior.map(image.start, len(content), "rx", "C:\\windows\\system32\\KernelBase.dll", content)
    table = image.symbols
    for name, function in functions.items():
        inferior.functions[int(table.address[table.by_name[name][0]])] = function
    return inferior


KERNEL = """
__declspec(dllexport) int VirtualAlloc(int x) { return x; }
__declspec(dllexport) int VirtualFree(int x) { return x + 1; }
int _fltused; int start(void) { return 0; }
"""


@pytest.mark.parametrize("answer", [ARENA, 0])
def test_memory_is_asked_for_by_a_call_and_a_refusal_is_an_address_that_is_taken(
    answer: int, clang: str, tmp_path: Path
) -> None:
    unit = compiled(tmp_path, clang, TARGET, KERNEL, "-O1")
    image = linked(TARGET, [unit], tmp_path / "kernelbase.exe", "start")
    freed: list[tuple[int, ...]] = []

    def free(*arguments: int) -> int:
        freed.append(arguments)
        return 1

    inferior = process_with(image, VirtualAlloc=lambda *words: answer, VirtualFree=free)
    if not answer:
        with pytest.raises(IpbpError) as caught:
            inject.allocate(inferior, ARENA, 3 * PAGE, "rx")
        assert caught.value.code == "inject-address-taken"
        return
    inject.allocate(inferior, ARENA, 3 * PAGE, "rx")
    assert inferior.calls[-1][1] == (ARENA, 3 * PAGE, 0x3000, 0x20)
    inject.release(inferior, ARENA, 3 * PAGE)
    assert freed == [(ARENA, 0, 0x8000)]


def test_without_its_library_no_memory_is_to_be_had() -> None:
    with pytest.raises(IpbpError) as caught:
        inject.allocate(FakeInferior(triple="x86_64-windows", local=False), ARENA, PAGE, "rw")
    assert caught.value.code == "inject-no-site"
