//! What the command writes about a run besides the program's own output: profile and trace.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use vua::engine::Engine;
use vua::observe::Observe;

/// How often cores are sampled.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(1);

/// Where reports go, if they are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reports {
    /// Names of two files, without their endings.
    pub profile: Option<PathBuf>,
    /// A file.
    pub trace: Option<PathBuf>,
}

impl Reports {
    /// What the engine has to note for them.
    pub fn observe(&self) -> Observe {
        Observe {
            profile: self.profile.is_some(),
            trace: self.trace.is_some(),
        }
    }

    /// Starts the thread that asks for samples, if there is to be a profile.
    pub fn start(&self, engine: &'static Engine) -> io::Result<()> {
        if self.profile.is_some() {
            thread::Builder::new()
                .name("sampler".into())
                .stack_size(128 << 10)
                .spawn(move || {
                    loop {
                        thread::sleep(SAMPLE_INTERVAL);
                        engine.sample();
                    }
                })?;
        }
        Ok(())
    }

    /// Writes them, when the program has ended. The error names the file.
    pub fn write(&self, engine: &Engine, program: &Path) -> Result<(), String> {
        if let Some(name) = &self.profile {
            let folded = engine.folded_stacks();
            write(&ending(name, "folded"), |file| {
                file.write_all(folded.as_bytes())
            })?;
            write(&ending(name, "svg"), |file| {
                flame_graph(&folded, program, file)
            })?;
        }
        if let Some(trace) = &self.trace {
            write(trace, |file| {
                let mut outcome = Ok(());
                engine.write_trace(&mut |text| {
                    if outcome.is_ok() {
                        outcome = file.write_all(text.as_bytes());
                    }
                });
                outcome
            })?;
        }
        Ok(())
    }
}

/// `name` with `.ending` behind it, whatever dots it has.
fn ending(name: &Path, ending: &str) -> PathBuf {
    let mut text = name.as_os_str().to_owned();
    text.push(".");
    text.push(ending);
    PathBuf::from(text)
}

fn write(
    path: &Path,
    content: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> Result<(), String> {
    let written = File::create(path).and_then(|file| {
        let mut file = BufWriter::new(file);
        content(&mut file)?;
        file.flush()
    });
    written.map_err(|error| format!("cannot write {}: {error}", path.display()))
}

fn flame_graph(folded: &str, program: &Path, file: &mut impl Write) -> io::Result<()> {
    if folded.is_empty() {
        // What draws graphs refuses to draw nothing.
        return file.write_all(
            b"<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"600\" height=\"40\"><text x=\"10\" y=\"25\">The program ended before the first sample.</text></svg>\n",
        );
    }
    let mut options = inferno::flamegraph::Options::default();
    options.title = program.display().to_string();
    options.count_name = "samples".into();
    inferno::flamegraph::from_lines(&mut options, folded.lines(), file).map_err(io::Error::other)
}
