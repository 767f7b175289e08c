"""Thread-local variables: where each thread has its own copy of them.

The threads of a process have their variables at the same distance from their thread pointer, image by image, as far
as the loader gave an image a place there (static TLS; "ELF Handling For Thread-Local Storage"). An image that came
later may have got none: each thread allocates its block when it first asks for it, and the image's module id and an
offset are all there is to name a variable by.

Outside of this, a thread-local variable's address is the load address of its initial value.
"""

from __future__ import annotations

from dataclasses import dataclass

from ipbp.graph.image import LoadedImage


@dataclass(frozen=True, slots=True)
class ThreadPlace:
    """One variable. `offset` from the thread pointer, None when every thread has it elsewhere; `module` id of its
    image, 0 when not known; `in_block`: offset in that image's block; `descriptor`: load address of one that the loader
    keeps for code that asks by descriptor, 0 for none; `alignment`: of its block."""

    offset: int | None
    module: int = 0
    in_block: int = 0
    descriptor: int = 0
    alignment: int = 1


@dataclass(frozen=True, slots=True)
class ThreadBlock:
    """The variables of one image. `start`, `size`: load address and size of their initial values. `offset`: of the
    block's start from the thread pointer, None as above; `module`: its id, 0 when not known; `alignment`: what the
    loader aligns the block, and the thread pointer, to at least."""

    start: int
    size: int
    offset: int | None
    module: int = 0
    alignment: int = 1

    def holds(self, address: int) -> bool:
        return self.start <= address < self.start + max(self.size, 1)

    def place(self, address: int) -> ThreadPlace:
        """Of the variable whose initial value is at this load address."""
        in_block = address - self.start
        offset = None if self.offset is None else self.offset + in_block
        return ThreadPlace(offset, self.module, in_block, alignment=self.alignment)


@dataclass(frozen=True, slots=True)
class ShownThreads:
    """What debug information says of thread-local variables. `blocks`: where those of a unit may be. A debugger that
    meets one in a file which is no module of the loader's counts from the block of module 1 (gdb's linux-thread-db.c);
    `base`: the offset of that from the thread pointer, None when it is not known."""

    blocks: tuple[ThreadBlock, ...] = ()
    base: int | None = None

    def place(self, address: int) -> int | None:
        """Where it finds the variable with its initial value at this address, None when there is no such number."""
        block = next((block for block in self.blocks if block.holds(address)), None)
        if block is None or block.offset is None or self.base is None:
            return None
        return block.offset + address - block.start - self.base


NOT_SHOWN = ShownThreads()


def executable_block(image: LoadedImage) -> ThreadBlock | None:
    """An executable's variables are at a place that the ABI fixes, and it is module 1."""
    if image.tls_size == 0:
        return None
    return ThreadBlock(image.tls_start, image.tls_size, image.tls_start - image.thread_pointer, 1, image.tls_alignment)
