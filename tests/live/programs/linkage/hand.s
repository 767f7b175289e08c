# Written by hand: no types, no sizes, and a label that one function jumps to in another.
        .text
        .globl  hand_scaled, hand_summed, hand_shared
hand_scaled:
        leal    1(%rdi,%rdi,2), %eax
        addl    offset(%rip), %eax
        ret
        .byte   0x90, 0x90
hand_summed:
        xorl    %eax, %eax
again:  addl    %edi, %eax
        decl    %edi
        jg      again
        addl    $1000, %eax
        ret
        nop
hand_shared:
        movl    %edi, %eax
        addl    %eax, %eax
        jmp     done
        nop
tail:   addl    $5, %eax
done:   addl    $7, %eax
        ret
        .data
offset: .long   100
        .section .note.GNU-stack,"",@progbits
