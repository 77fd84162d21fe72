// The other cores' first instructions. In AT&T syntax, which can say how wide a real-mode operand is.
//
// Copied to a page below 1 MiB: where the start-up IPI's vector sends the other cores, in real mode.

.section .rodata.trampoline, "a", @progbits
.code16
.global trampoline_start, trampoline_end
trampoline_start:
    cli
    cld
    movw %cs, %ax
    movw %ax, %ds
    lgdtl trampoline_gdt_pointer - trampoline_start
    movl %cr0, %eax
    andl $0x9fffffff, %eax                              // CD, NW off: INIT leaves the caches disabled
    orl $1, %eax
    movl %eax, %cr0
    ljmpl $0x18, $ap_protected
.balign 4
trampoline_gdt_pointer:
    .word gdt_end - gdt - 1
    .long gdt
trampoline_end:
.code64
