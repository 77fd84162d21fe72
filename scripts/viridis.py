# Commands for GDB that read the machine as Vua sees it; scripts/viridis.gdb loads them. Nothing here changes the machine.
# Positions come from the symbol VUA_LAYOUT (vua/src/engine/debugger.rs); links between frames are described in vua/src/interp/frame.rs.

import re

import gdb

FIELDS = """poll status task pc base stack stack_end program program_number task_state task_stack task_slots task_pc task_base
closure_proto proto_code proto_code_length proto_debug debug_function function_source function_name function_line function_lines
native_name native_name_length""".split()
POLL = ["handshake", "stop", "hungry", "heartbeat", "cancel", "input", "sample", "marked"]
STATUS = ["outside", "running", "stopped"]
STATES = ["ready", "running", "waiting", "done", "failed", "cancelled"]
# In the order of their addresses.
PUSHED = "r15 r14 r13 r12 r11 r10 r9 r8 rbp rdi rsi rdx rcx rbx rax vector error rip".split()
GENERAL = "rax rbx rcx rdx rsi rdi rbp r8 r9 r10 r11 r12 r13 r14 r15".split()
FUNCTION = 0xFFFD
SHOWN = 10
HANDLERS = "vua::interp::dispatch::"


def number(address, size=8):
    """An unsigned number in memory."""
    return int.from_bytes(gdb.selected_inferior().read_memory(address, size).tobytes(), "little")


def text(address, length):
    """Text in memory."""
    return gdb.selected_inferior().read_memory(address, length).tobytes().decode("utf-8", "replace") if length else ""


class Layout:
    """Where everything is, as the kernel says."""

    def __init__(self):
        try:
            at = int(re.search(r"0x[0-9a-f]+", gdb.execute("info address VUA_LAYOUT", to_string=True)).group(), 16)
        except (gdb.error, AttributeError):
            raise gdb.GdbError("the kernel has no VUA_LAYOUT: start GDB with target/release/kernel")
        if number(at) != len(FIELDS):
            raise gdb.GdbError("VUA_LAYOUT is not the one that scripts/viridis.py knows: take both from the same sources")
        machines = number(at + 8)
        if machines == 0:
            raise gdb.GdbError("the engine is not made yet: let the machine run further (continue, then Ctrl-C)")
        self.machines = [number(machines + 8 * core) for core in range(number(at + 16))]
        for index, name in enumerate(FIELDS):
            setattr(self, name, number(at + 24 + 8 * index))

    def proto(self, base):
        """The function in a frame, and its prototype; None if there is none."""
        function = number(base - 16)
        if function >> 48 != FUNCTION:
            return None
        function &= (1 << 48) - 1
        return function, number(function + self.closure_proto)

    def stands_in(self, base, pc, stack, end):
        """Whether a frame at `base` of this stack may go on with the instruction at `pc`."""
        if base % 8 or not stack + 16 <= base < end or pc % 4:
            return False
        found = self.proto(base)
        if found is None:
            return False
        code = number(found[1] + self.proto_code)
        return code < pc <= code + 4 * number(found[1] + self.proto_code_length, 4)

    def described(self, base, pc):
        """A frame, as a traceback shows it."""
        found = self.proto(base)
        if found is None:
            return "?"
        function, proto = found
        debug = number(proto + self.proto_debug)
        if debug == 0:
            name = text(number(function + self.native_name), number(function + self.native_name_length))
            return f"[native]: in function '{name}'"
        compiled = number(debug + self.debug_function)
        source = self.shared_text(compiled + self.function_source)
        name = self.shared_text(compiled + self.function_name)
        first = number(compiled + self.function_line, 4)
        index = max((pc - number(proto + self.proto_code)) // 4 - 1, 0)
        line = first
        if index < number(proto + self.proto_code_length, 4):
            # A vector is an address, a capacity and a length, in an order of the compiler's; the address is the largest.
            lines = max(number(compiled + self.function_lines + 8 * word) for word in range(3))
            line = number(lines + 4 * index, 4)
        if name is not None:
            return f"{source}:{line}: in function '{name}'"
        if first == 0:
            return f"{source}:{line}: in main chunk"
        return f"{source}:{line}: in function <{source}:{first}>"

    def shared_text(self, at):
        """An `Arc<str>`: the address of two counts with the text behind them, and its length. None if the address is null."""
        address, length = number(at), number(at + 8)
        return text(address + 16, length) if address else None

    def frames(self, base, pc, stack, end):
        """The frames from one outwards."""
        while True:
            if not stack + 16 <= base < end:
                yield f"? (the frame at {base:#x} is not on the stack)"
                return
            yield self.described(base, pc)
            link = number(base - 8)
            # A variadic function's own frame lies behind the one with its extra arguments.
            while link & 7 == 7:
                base -= 8 * (link >> 8 & 0xFFFFF)
                link = number(base - 8)
            if link & 3 == 0:
                pc = link
                base -= 8 * (2 + (number(pc - 4, 4) >> 8 & 0xFF))
            elif link & 3 == 1:
                base, pc = base - 8 * (link >> 8 & 0xFFFFF), 0
            elif link & 3 == 2:
                pc = number(base - 24)
                base -= 8 * (link >> 8 & 0xFFFFF)
            else:
                return


def function_at(address):
    """The kernel's function that has an address."""
    found = gdb.execute(f"info symbol {address:#x}", to_string=True)
    return re.sub(r"(::h[0-9a-f]{16})?( \+ \d+)? (in section .*)?$", "", found.strip()) if " in section " in found else "?"


class KernelFrame:
    """A function of the kernel that the selected core is in, and its registers."""

    def __init__(self, name, values):
        self.name, self.values = name, values


def kernel_frames():
    """What the selected core is in, from the innermost outwards, through interrupts."""
    frames, frame, mask = [], gdb.newest_frame(), (1 << 64) - 1
    while frame is not None and len(frames) < 24:
        if frame.type() != gdb.INLINE_FRAME:
            name = function_at(frame.pc() - bool(frames))
            frames.append(KernelFrame(name, {name: int(frame.read_register(name)) & mask for name in GENERAL + ["rsp"]}))
            if name == "viridis_interrupt_common" and len(frames) > 1:
                # Behind the 512 bytes of `fxsave64` are the registers as they were pushed (kernel/src/cpu/interrupts.rs).
                at = frames[-1].values["rsp"] + 512
                values = {name: number(at + 8 * word) for word, name in enumerate(PUSHED)}
                frames.append(KernelFrame(function_at(values["rip"]), values))
                # The functions outside it are not those that GDB would find.
                break
        try:
            frame = frame.older()
        except gdb.error:
            break
    return frames


class Core:
    """A core: GDB's thread with the next number."""

    def __init__(self, layout, index):
        self.layout, self.index, self.vm = layout, index, layout.machines[index]
        thread = next((t for t in gdb.selected_inferior().threads() if t.num == index + 1), None)
        if thread is None:
            raise gdb.GdbError(f"GDB has no thread {index + 1} for core {index}")
        thread.switch()
        self.frames = kernel_frames()
        self.task = self.read("task")

    def read(self, field, size=8):
        return number(self.vm + getattr(self.layout, field), size)

    def position(self):
        """Register 0 of the innermost frame and its next instruction; None where the core is in between."""
        stack, end = self.read("stack"), self.read("stack_end")
        candidates = []
        interrupted = any(frame.name.startswith("viridis_interrupt") for frame in self.frames)
        inside = self.frames[-1] if interrupted else self.frames[0]
        if inside.name.startswith(HANDLERS):
            # Handlers are given both in registers, but need not leave them there.
            values = list(inside.values.values())
            pcs = [inside.values["rdi"], *values]
            bases = [inside.values["rsi"], *values]
            candidates = [(base, pc) for base in bases for pc in pcs]
        elif inside.name.startswith("viridis_interrupt"):
            # The registers of what was interrupted are being pushed or popped: some are there and some on the stack.
            values = list(inside.values.values()) + [number(inside.values["rsp"] + 8 * word) for word in range(96)]
            candidates = [(base, pc) for base in values if stack < base < end for pc in values]
        # Whatever else runs was called by a handler, which left both here.
        base, pc = self.read("base"), self.read("pc")
        for found in candidates:
            if self.stands(found, stack, end):
                return found
        return (base, pc) if stack < base < end else None

    def stands(self, found, stack, end):
        try:
            return self.layout.stands_in(*found, stack, end)
        except gdb.MemoryError:
            return False

    def backtrace(self):
        position = self.position()
        if position is None:
            return []
        return list(self.layout.frames(*position, self.read("stack"), self.read("stack_end")))

    def state(self):
        """One line."""
        poll = self.read("poll", 4)
        bits = [name for bit, name in enumerate(POLL) if poll >> bit & 1]
        if poll >> len(POLL):
            bits.append(f"{poll >> len(POLL) << len(POLL):#x}")
        words = [STATUS[min(self.read("status", 4), 2)]]
        if bits:
            words.append("poll " + "+".join(bits))
        if self.task:
            words.append(f"task {self.task:#x} of program {number(self.read('program') + self.layout.program_number, 4)}")
            words.extend(self.backtrace()[:1])
        elif any("::park" in frame.name for frame in self.frames):
            words.append("parked")
        else:
            words.append("no task")
        words.append(f"kernel: {self.frames[0].name}")
        return f"core {self.index}: " + ", ".join(words)


def show(frames):
    for index, line in enumerate(frames):
        if len(frames) <= 2 * SHOWN + 1 or index < SHOWN or index + SHOWN + 1 >= len(frames):
            print("\t" + line)
        elif index == SHOWN:
            print(f"\t...\t(skipping {len(frames) - 2 * SHOWN - 1} levels)")


def each(act, cores=None):
    """Does something for each core, or those given, and selects the thread again that was."""
    layout, before = Layout(), gdb.selected_thread()
    try:
        for index in range(len(layout.machines)) if cores is None else cores:
            if not 0 <= index < len(layout.machines):
                raise gdb.GdbError(f"there is no core {index}: the engine has {len(layout.machines)}")
            try:
                act(Core(layout, index))
            except gdb.MemoryError as error:
                print(f"core {index}: not readable: {error}")
    finally:
        if before is not None:
            before.switch()


class Cores(gdb.Command):
    """What each core does: status, poll bits, task, program, the Vua function and line, the kernel's function."""

    def __init__(self):
        super().__init__("vua-cores", gdb.COMMAND_STATUS)

    def invoke(self, argument, from_tty):
        each(lambda core: print(core.state()))


class Backtrace(gdb.Command):
    """vua-backtrace [CORE]: the Vua functions that a core's task is in, innermost first; without a number, of every core."""

    def __init__(self):
        super().__init__("vua-backtrace", gdb.COMMAND_STACK)

    def invoke(self, argument, from_tty):
        def act(core):
            print(core.state())
            if core.task:
                show(core.backtrace())

        each(act, [int(gdb.parse_and_eval(argument))] if argument else None)


class Task(gdb.Command):
    """vua-task ADDRESS: a task's state, and where it is, whether a core runs it or it waits. Addresses are in vua-cores, or a value without its upper 16 bits."""

    def __init__(self):
        super().__init__("vua-task", gdb.COMMAND_STACK)

    def invoke(self, argument, from_tty):
        if not argument:
            raise gdb.GdbError("vua-task ADDRESS: which task?")
        layout, task = Layout(), int(gdb.parse_and_eval(argument)) & (1 << 48) - 1
        state = number(task + layout.task_state, 1)
        if state >= len(STATES):
            raise gdb.GdbError(f"there is no task at {task:#x}")
        print(f"task {task:#x}: {STATES[state]}")
        running = []
        each(lambda core: running.append(core.backtrace()) if core.task == task else None)
        if running:
            show(running[0])
        elif STATES[state] in ("ready", "waiting"):
            stack = number(task + layout.task_stack)
            end = stack + 8 * number(task + layout.task_slots)
            base = number(task + layout.task_base)
            if stack < base < end:
                show(list(layout.frames(base, number(task + layout.task_pc), stack, end)))


Cores()
Backtrace()
Task()
