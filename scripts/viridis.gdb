# For GDB beside `scripts/run --gdb …`, from the root of the repository: gdb target/release/kernel -x scripts/viridis.gdb
# Attaches to the machine, which waits before its first instruction, and adds commands:
#   cores                  where each core is in the kernel: a backtrace of each, with functions and lines
#   vua-cores              what each core does: task, program, Vua function and line, poll bits
#   vua-backtrace [CORE]   the Vua functions that a core's task, or every core's, is in
#   vua-task ADDRESS       a task's state, and the Vua functions that it is in
# The last three need a GDB with Python.
set pagination off
set confirm off
set print frame-arguments none
target remote localhost:1234

define cores
  thread apply all -s backtrace 12
end
document cores
Where each core is. GDB's thread N is the core with index N - 1.
end

source scripts/viridis.py
