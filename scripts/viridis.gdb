# For GDB beside `scripts/run --gdb …`: gdb target/release/kernel -x scripts/viridis.gdb
# Attaches to the machine, which waits before its first instruction, and adds a command:
#   cores           where each core is: a backtrace of each, with functions and lines
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
