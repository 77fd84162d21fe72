//! The report of a deadlock: what each task of a program waits for, and where.
//!
//! Tasks that wait for the same at the same place share a line, and the lines have an order that does not depend on which core suspended which
//! task: the main function first, then by place.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use core::fmt;
use core::sync::atomic::AtomicU32;

use super::{State, Task, WaitFor};
use crate::interp::Core;
use crate::interp::frame::Frame;
use crate::object::{Closure, Gc};
use crate::share::End;
use crate::value::Value;

/// How many lines a report has at most.
const LISTED: usize = 20;

/// Which task it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    Main,
    Task,
    Finalizer,
}

/// What a task waits for, and where. The order of the fields is that of the report.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Wait {
    who: Who,
    /// Where it stands; `?` if that is not known.
    source: String,
    line: u32,
    /// That is where it was spawned: it has no frame of a function that has lines.
    spawned: bool,
    what: String,
}

/// The waits of a program's tasks, added in any order.
#[derive(Default)]
pub(crate) struct Waits {
    /// The first kinds in the report's order, and how many tasks wait so.
    kinds: BTreeMap<Wait, u64>,
    /// How many tasks wait in ways that come after those.
    more: u64,
}

impl Waits {
    pub(crate) fn add(&mut self, wait: Wait) {
        *self.kinds.entry(wait).or_default() += 1;
        // What is left out has enough kinds before it, and keeps them: none that is listed was ever left out.
        if self.kinds.len() > LISTED
            && let Some((_, count)) = self.kinds.pop_last()
        {
            self.more += count;
        }
    }
}

impl fmt::Display for Waits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (wait, count) in &self.kinds {
            f.write_str("\t")?;
            if wait.spawned {
                f.write_str("spawned at ")?;
            }
            f.write_str(&wait.source)?;
            if wait.line > 0 {
                write!(f, ":{}", wait.line)?;
            }
            match (wait.who, count) {
                (Who::Main, _) => f.write_str(": the main function waits")?,
                (Who::Finalizer, _) => f.write_str(": the task of finalizers waits")?,
                (Who::Task, 1) => f.write_str(": a task waits")?,
                (Who::Task, count) => write!(f, ": {count} tasks wait")?,
            }
            writeln!(f, " for {}", wait.what)?;
        }
        if self.more > 0 {
            writeln!(f, "... and {} tasks more", self.more)?;
        }
        Ok(())
    }
}

/// What a suspended task waits for, and where. No core runs the task meanwhile.
pub(crate) fn described(task: Gc<Task>) -> Wait {
    let program = task.program();
    let fields = task.fields();
    let what = match fields.wait.get() {
        Some(WaitFor::Task(other) | WaitFor::TaskUntil(other, _)) => {
            format!("the end of a task that is {}", state_name(other.state()))
        }
        Some(WaitFor::Program(..)) => "the end of a program".into(),
        Some(WaitFor::Latch(latch)) if latch.is_scope() => "the tasks of a scope".into(),
        Some(WaitFor::Latch(_)) => "the iterations of a 'parallel for'".into(),
        Some(WaitFor::Monitor(monitor, want)) => crate::share::description(monitor, want),
        Some(WaitFor::Queue(_, End::Push, _)) => "room in a queue".into(),
        Some(WaitFor::Queue(_, End::Pop, _)) => "a value from a queue".into(),
        Some(WaitFor::Module(_)) => "a module that another task loads".into(),
        Some(WaitFor::Input(_)) => "input".into(),
        Some(WaitFor::Time(_)) => "a moment".into(),
        Some(WaitFor::Finalized | WaitFor::Finalizers) => "finalizers".into(),
        Some(WaitFor::Growth(_) | WaitFor::Handshake(_) | WaitFor::Passed) => {
            "the growth of a table".into()
        }
        Some(WaitFor::Turn) | None => "its turn".into(),
    };
    let (spawner, at) = fields.spawned_at.get();
    let mut place = spawner.as_closure().and_then(|c| place_in(c, at));
    let mut spawned = place.is_some();
    let mut walk = Some(Frame {
        base: fields.base.get(),
        pc: fields.pc.get(),
    });
    while let Some(frame) = walk {
        // SAFETY: the task is suspended, so its frames do not change.
        unsafe {
            let function = Value::from_bits(*frame.base.sub(2));
            if let Some(closure) = function.as_closure() {
                if let Some(here) = place_in(closure, frame.pc) {
                    place = Some(here);
                    spawned = false;
                }
                break;
            }
            walk = frame.caller();
        }
    }
    let (source, line) = place.unwrap_or_else(|| (String::from("?"), 0));
    Wait {
        who: if program.is_main(task) {
            Who::Main
        } else if program.is_finalizer(task) {
            Who::Finalizer
        } else {
            Who::Task
        },
        source,
        line,
        spawned,
        what,
    }
}

/// File and line of the instruction before `pc`.
fn place_in(closure: Gc<Closure>, pc: *const AtomicU32) -> Option<(String, u32)> {
    let debug = closure.proto().debug()?;
    let line = Core::line_at(closure.proto(), pc)?;
    Some((String::from(&*debug.source), line))
}

fn state_name(state: State) -> &'static str {
    match state {
        State::Ready => "ready",
        State::Running => "running",
        State::Waiting => "waiting",
        State::Done => "done",
        State::Failed => "failed",
        State::Cancelled => "cancelled",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use alloc::vec::Vec;

    fn wait(who: Who, line: u32) -> Wait {
        Wait {
            who,
            source: "p.vua".to_string(),
            line,
            spawned: false,
            what: "its turn".to_string(),
        }
    }

    #[test]
    fn a_report_does_not_depend_on_the_order_of_the_tasks() {
        // A linear congruential generator's order, and its reverse.
        let mut lines: Vec<u32> = (0..400).map(|i| i * 7919 % 37 + 1).collect();
        let report = |lines: &[u32]| {
            let mut waits = Waits::default();
            for (i, line) in lines.iter().enumerate() {
                waits.add(wait(if i == 0 { Who::Main } else { Who::Task }, *line));
            }
            waits.to_string()
        };
        lines.push(lines[0]);
        let forwards = report(&lines);
        let first = lines[0];
        lines[1..].reverse();
        assert_eq!(lines[0], first);
        assert_eq!(report(&lines), forwards);
        assert!(forwards.starts_with(&format!(
            "\tp.vua:{first}: the main function waits for its turn\n"
        )));
        assert_eq!(forwards.lines().count(), LISTED + 1);
        let listed: u64 = forwards
            .lines()
            .filter_map(|line| {
                line.split_whitespace()
                    .find_map(|word| word.parse::<u64>().ok())
            })
            .sum();
        assert_eq!(listed, 400, "{forwards}");
    }

    #[test]
    fn a_task_alone_is_one_task() {
        let mut waits = Waits::default();
        waits.add(wait(Who::Task, 3));
        assert_eq!(waits.to_string(), "\tp.vua:3: a task waits for its turn\n");
    }
}
