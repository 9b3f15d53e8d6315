//! What a command says on stdout and stderr. They may be full, or their reader gone: that neither ends a command half-way nor is
//! hidden by its exit status.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

/// Shows what was asked for, and fails where it cannot. A reader that has seen enough (`| head`) is told nothing more.
pub(super) fn show(text: &str) -> ExitCode {
    shown(write(text))
}

fn shown(result: io::Result<()>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    if error.kind() != ErrorKind::BrokenPipe {
        complain(cannot(&error));
    }
    ExitCode::FAILURE
}

/// Says what has been done. Where stdout does not take it stderr gets it, since it is done all the same; it counts as a failure.
pub(super) fn report(done: &str) -> ExitCode {
    let Err(error) = write(done) else { return ExitCode::SUCCESS };
    complain(format_args!("{}; this has been done: {}", cannot(&error), done.trim_end()));
    ExitCode::FAILURE
}

/// Says what is wrong. Where stderr does not take it either, the exit status has to do.
pub(super) fn complain(text: impl Display) {
    complain_plainly(format_args!("relevo: {text}"));
}

/// The same without the program's name, for what takes many lines.
pub(super) fn complain_plainly(text: impl Display) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// What clap has to say: help on stdout, what is wrong on stderr.
pub(super) fn usage(error: &clap::Error) -> ExitCode {
    let status = u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from);
    let printed = error.print().and_then(|()| io::stdout().flush());
    if error.use_stderr() { status } else { shown(printed) }
}

fn write(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

fn cannot(error: &io::Error) -> String {
    format!("standard output takes nothing: {error}")
}
