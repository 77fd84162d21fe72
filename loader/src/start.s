// Everything that runs before Rust can: the PVH entry, the way into long mode, the other cores' start, and the last
// instructions before the kernel.
//
// Followed: Xen's "x86/HVM direct boot ABI" (docs/misc/pvh.pandoc) for the note and the entry state; Intel SDM vol. 3,
// 10.8.5 (switching to IA-32e mode) and 9.4 (multiple-processor initialisation); the Limine boot protocol for the GDT
// and the state in which the kernel is entered.

// ELF note XEN_ELFNOTE_PHYS32_ENTRY: QEMU starts an ELF64 `-kernel` that has it at this physical address, in 32-bit
// protected mode without paging, with EBX = the physical address of hvm_start_info.
.section .note.pvh, "a", @note
.balign 4
    .long 4                 // size of the name
    .long 8                 // size of the descriptor
    .long 18                // XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .quad pvh_start

.section .boot, "awx", @progbits

// The protocol's GDT, in its order. Selectors: 0x08/0x10 16-bit, 0x18/0x20 32-bit, 0x28/0x30 64-bit code/data.
.balign 16
gdt:
    .quad 0
    .quad 0x00009b000000ffff
    .quad 0x000093000000ffff
    .quad 0x00cf9b000000ffff
    .quad 0x00cf93000000ffff
    .quad 0x00209b0000000000
    .quad 0x0000930000000000
gdt_end:

.balign 4
gdt_pointer:
    .word gdt_end - gdt - 1
    .quad gdt
.balign 4
gdt_pointer_high:
    .word gdt_end - gdt - 1
    .quad gdt + 0xffff800000000000

// From 32-bit protected mode to 64-bit code at `target`, on the early page tables, with SSE and write protection on.
// Needs no stack. Clobbers EAX, EBX, ECX, EDX.
.macro enter_long_mode target
    mov eax, cr4
    or eax, (1 << 5) | (1 << 9) | (1 << 10)             // PAE, OSFXSR, OSXMMEXCPT
    mov cr4, eax
    mov eax, offset early_pml4_physical
    mov cr3, eax
    mov eax, 0x80000001
    cpuid
    mov ebx, edx
    mov ecx, 0xc0000080                                 // IA32_EFER
    rdmsr
    or eax, 1 << 8                                      // LME
    bt ebx, 20                                          // execute-disable available?
    jnc 2f
    or eax, 1 << 11                                     // NXE
2:
    wrmsr
    mov eax, cr0
    and eax, ~((1 << 30) | (1 << 29) | (1 << 3) | (1 << 2))     // CD, NW, TS, EM off
    or eax, (1 << 31) | (1 << 16) | (1 << 5) | (1 << 1) | 1     // PG, WP, NE, MP, PE on
    mov cr0, eax
    lgdt [gdt_pointer]
    .byte 0xea                                          // jmp 0x28:target
    .long \target
    .word 0x28
.endm

.code32
.global pvh_start
pvh_start:
    cli
    cld
    rdtsc
    mov ebp, eax
    mov esi, edx

    mov edi, offset bss_start_physical
    mov ecx, offset bss_words
    xor eax, eax
    rep stosd
    mov edi, ebx                                        // hvm_start_info, out of CPUID's way

    mov eax, 0x80000000
    cpuid
    cmp eax, 0x80000001
    jb no_long_mode
    mov eax, 0x80000001
    cpuid
    bt edx, 29
    jnc no_long_mode

    // The early tables: the first 4 GiB in 2 MiB pages, at 0 and at the start of the direct map.
    mov eax, offset early_pdpt_physical
    or eax, 3
    mov ebx, offset early_pml4_physical
    mov [ebx], eax
    mov [ebx + 256 * 8], eax
    mov ebx, offset early_pdpt_physical
    mov eax, offset early_directories_physical
    or eax, 3
    mov ecx, 4
3:
    mov [ebx], eax
    add eax, 0x1000
    add ebx, 8
    dec ecx
    jnz 3b
    mov ebx, offset early_directories_physical
    mov eax, 0x83                                       // present, writable, 2 MiB
    mov ecx, 4 * 512
4:
    mov [ebx], eax
    add eax, 0x200000
    add ebx, 8
    dec ecx
    jnz 4b

    enter_long_mode bsp_long

// No 64-bit mode: say so on COM2 and leave QEMU.
no_long_mode:
    mov esi, offset no_long_mode_message
    mov ecx, offset no_long_mode_length
5:
    mov dx, 0x2fd
    in al, dx
    test al, 0x20
    jz 5b
    lodsb
    mov dx, 0x2f8
    out dx, al
    dec ecx
    jnz 5b
    mov al, 101
    out 0xf4, al
6:
    hlt
    jmp 6b
no_long_mode_message:
    .ascii "loader: this processor has no 64-bit mode\n"
.set no_long_mode_length, . - no_long_mode_message

// The other cores arrive here from the trampoline, in 32-bit protected mode.
ap_protected:
    mov ax, 0x20
    mov ds, ax
    mov es, ax
    mov ss, ax
    enter_long_mode ap_long

.code64
.macro load_segments
    mov ax, 0x30
    mov ds, ax
    mov es, ax
    mov fs, ax
    mov gs, ax
    mov ss, ax
    lgdt [rip + gdt_pointer_high]
.endm

bsp_long:
    load_segments
    movabs rsp, offset boot_stack_end
    mov edi, edi
    mov eax, ebp
    shl rsi, 32
    or rsi, rax
    xor ebp, ebp
    movabs rax, offset loader_main
    call rax
    ud2

ap_long:
    load_segments
    movabs rax, offset ap_high
    jmp rax

.section .text.ap_high, "ax", @progbits
// Which core is this? Its local APIC id finds its record, its record its stack. A core without a record halts for good.
ap_high:
    xor eax, eax
    cpuid
    cmp eax, 0xb
    jb 2f
    mov eax, 0xb
    xor ecx, ecx
    cpuid
    test ebx, ebx
    jnz 3f                                              // EDX = x2APIC id
2:
    mov eax, 1
    cpuid
    mov edx, ebx
    shr edx, 24
3:
    mov rdi, [rip + CORE_TABLE]
    mov rcx, [rip + CORE_COUNT]
    jrcxz 5f
4:
    cmp [rdi + 4], edx                                  // Core::info.lapic_id
    je 6f
    add rdi, 48                                         // size_of::<Core>()
    dec rcx
    jnz 4b
5:
    hlt
    jmp 5b
6:
    mov rsp, [rdi + 32]                                 // Core::stack_end
    xor ebp, ebp
    call core_main
    ud2

.section .text.handoff, "ax", @progbits
// extern "sysv64" fn enter(entry: u64, stack_end: u64, argument: u64) -> !
// Goes to `entry` on that stack, above a return address of 0, with RDI = argument and every other register 0.
.global enter
enter:
    mov rsp, rsi
    push 0
    push rdi
    mov rdi, rdx
    push 2
    popfq                                               // every flag off, interrupts and direction included
    xor eax, eax
    xor ebx, ebx
    xor ecx, ecx
    xor edx, edx
    xor esi, esi
    xor ebp, ebp
    xor r8d, r8d
    xor r9d, r9d
    xor r10d, r10d
    xor r11d, r11d
    xor r12d, r12d
    xor r13d, r13d
    xor r14d, r14d
    xor r15d, r15d
    ret

// One entry for each of the 32 exceptions; those without an error code push a zero.
.section .text.exceptions, "ax", @progbits
.altmacro
.macro exception_entry vector
    .balign 16
    .if !((\vector == 8) || ((\vector >= 10) && (\vector <= 14)) || (\vector == 17) || (\vector == 21) || (\vector == 29) || (\vector == 30))
    push 0
    .endif
    push \vector
    jmp exception
.endm
.balign 16
.global exception_entries
exception_entries:
.set vector, 0
.rept 32
    exception_entry %vector
    .set vector, vector + 1
.endr
// The timer's interrupt has done its work by ending a HLT.
.balign 16
.global timer_entry
timer_entry:
    iretq
exception:
    cld
    mov rdi, rsp
    and rsp, -16
    call report_exception
    ud2

.section .bss.early, "aw", @nobits
.balign 0x1000
.global early_pml4
early_pml4:
    .skip 0x1000
.global early_pdpt
early_pdpt:
    .skip 0x1000
.global early_directories
early_directories:
    .skip 4 * 0x1000
boot_stack:
    .skip 0x40000
.global boot_stack_end
boot_stack_end:
