"""ELF relocation numbers of x86-64 and the edge kinds that they become. Raw numbers end here (`elf_relocations`).

Source: System V ABI, AMD64 supplement 1.0, table 4.9, and its additions for APX ("CODE_n": the instruction starts n
bytes before the field). A number without a kind is refused by its name.
"""

from __future__ import annotations

from ipbp.graph.edges import EdgeKind

KINDS: dict[int, EdgeKind] = {
    1: EdgeKind.ABS64,  # R_X86_64_64
    2: EdgeKind.PCREL32,  # R_X86_64_PC32
    3: EdgeKind.GOT_SLOT32,  # R_X86_64_GOT32
    4: EdgeKind.BRANCH32,  # R_X86_64_PLT32
    9: EdgeKind.GOT_PCREL32,  # R_X86_64_GOTPCREL
    10: EdgeKind.ABS32,  # R_X86_64_32
    11: EdgeKind.ABS32S,  # R_X86_64_32S
    12: EdgeKind.ABS16,  # R_X86_64_16
    13: EdgeKind.PCREL16,  # R_X86_64_PC16
    14: EdgeKind.ABS8,  # R_X86_64_8
    15: EdgeKind.PCREL8,  # R_X86_64_PC8
    17: EdgeKind.DTPOFF64,  # R_X86_64_DTPOFF64
    18: EdgeKind.TPOFF64,  # R_X86_64_TPOFF64
    19: EdgeKind.TLS_GD32,  # R_X86_64_TLSGD
    20: EdgeKind.TLS_LD32,  # R_X86_64_TLSLD
    21: EdgeKind.DTPOFF32,  # R_X86_64_DTPOFF32
    22: EdgeKind.GOT_TPOFF32,  # R_X86_64_GOTTPOFF
    23: EdgeKind.TPOFF32,  # R_X86_64_TPOFF32
    24: EdgeKind.PCREL64,  # R_X86_64_PC64
    25: EdgeKind.GOT_OFFSET64,  # R_X86_64_GOTOFF64
    26: EdgeKind.GOT_BASE_PCREL32,  # R_X86_64_GOTPC32
    27: EdgeKind.GOT_SLOT64,  # R_X86_64_GOT64
    28: EdgeKind.GOT_PCREL64,  # R_X86_64_GOTPCREL64
    29: EdgeKind.GOT_BASE_PCREL64,  # R_X86_64_GOTPC64
    30: EdgeKind.GOT_SLOT64,  # R_X86_64_GOTPLT64: "like GOT64, says PLT entry needed"
    31: EdgeKind.PLT_OFFSET64,  # R_X86_64_PLTOFF64
    32: EdgeKind.SIZE32,  # R_X86_64_SIZE32
    33: EdgeKind.SIZE64,  # R_X86_64_SIZE64
    34: EdgeKind.TLSDESC_PCREL32,  # R_X86_64_GOTPC32_TLSDESC
    35: EdgeKind.TLSDESC_CALL,  # R_X86_64_TLSDESC_CALL
    41: EdgeKind.GOT_PCREL32_RELAX,  # R_X86_64_GOTPCRELX
    42: EdgeKind.GOT_PCREL32_REX_RELAX,  # R_X86_64_REX_GOTPCRELX
    43: EdgeKind.GOT_PCREL32_REX2_RELAX,  # R_X86_64_CODE_4_GOTPCRELX
    44: EdgeKind.GOT_TPOFF32,  # R_X86_64_CODE_4_GOTTPOFF
    45: EdgeKind.TLSDESC_PCREL32,  # R_X86_64_CODE_4_GOTPC32_TLSDESC
    # A linker may rewrite these, too, but what it makes of them is not known here: then the code counts as other code.
    46: EdgeKind.GOT_PCREL32,  # R_X86_64_CODE_5_GOTPCRELX
    47: EdgeKind.GOT_TPOFF32,  # R_X86_64_CODE_5_GOTTPOFF
    48: EdgeKind.TLSDESC_PCREL32,  # R_X86_64_CODE_5_GOTPC32_TLSDESC
    49: EdgeKind.GOT_PCREL32,  # R_X86_64_CODE_6_GOTPCRELX
    50: EdgeKind.GOT_TPOFF32,  # R_X86_64_CODE_6_GOTTPOFF
    51: EdgeKind.TLSDESC_PCREL32,  # R_X86_64_CODE_6_GOTPC32_TLSDESC
}

NAMES = {
    5: "R_X86_64_COPY",
    6: "R_X86_64_GLOB_DAT",
    7: "R_X86_64_JUMP_SLOT",
    8: "R_X86_64_RELATIVE",
    16: "R_X86_64_DTPMOD64",
    36: "R_X86_64_TLSDESC",
    37: "R_X86_64_IRELATIVE",
    38: "R_X86_64_RELATIVE64",
}
