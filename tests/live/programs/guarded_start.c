/* Where a program begins, for one all of whose code has landing pads (BTI): the C library's own object has none. */
__asm__(".globl _start\n"
        ".type _start, %function\n"
        "_start:\n"
        "bti c\n"
        "mov x29, #0\n"
        "mov x30, #0\n"
        "mov x5, x0\n"      // what runs at exit, from the loader
        "ldr x1, [sp]\n"    // argc
        "add x2, sp, #8\n"  // argv
        "mov x6, sp\n"
        "adrp x0, main\n"
        "add x0, x0, :lo12:main\n"
        "mov x3, #0\n"
        "mov x4, #0\n"
        "bl __libc_start_main\n"
        "brk #0\n"
        ".size _start, . - _start\n");
