//! The command line: one file for each command, with `run(arguments) -> ExitCode`.
//!
//! Exit status: 0 done, 1 it failed, 2 wrong usage (clap's own).

mod check;
mod control;
mod demo;
mod key;
mod output;
mod release;
mod reload;
mod run;
mod server;
mod status;

use std::ffi::CStr;
use std::future::Future;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{self, Config, LoadError};

const BEGIN: &str = "\
To see it work: relevo demo (it needs no configuration).
To set it up: write /etc/relevo/relevo.toml on both nodes, make the key that they share with relevo key and copy it to both, then
relevo check, relevo run and relevo status.";

#[derive(Parser)]
#[command(name = "relevo", version, about, propagate_version = true, after_help = BEGIN)]
struct Relevo {
    #[command(subcommand)]
    command: Command,
}

/// To add a command: a file, a variant, a line in [`run`].
#[derive(Subcommand)]
enum Command {
    Check(check::Arguments),
    Demo(demo::Arguments),
    Key(key::Arguments),
    Release(release::Arguments),
    Reload(reload::Arguments),
    Run(run::Arguments),
    Server(server::Arguments),
    Status(status::Arguments),
    #[command(hide = true)]
    Keeper,
    #[command(hide = true)]
    Balancer,
}

/// Does what the command line says.
pub fn run() -> ExitCode {
    let command = match Relevo::try_parse() {
        Ok(arguments) => arguments.command,
        Err(error) => return output::usage(&error),
    };
    match command {
        Command::Check(arguments) => check::run(&arguments),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Key(arguments) => key::run(&arguments),
        Command::Release(arguments) => release::run(&arguments),
        Command::Reload(arguments) => reload::run(&arguments),
        Command::Run(arguments) => run::run(&arguments),
        Command::Server(arguments) => server::run(&arguments),
        Command::Status(arguments) => status::run(&arguments),
        Command::Keeper => {
            name_process(c"relevo-keeper");
            run::keeper()
        }
        Command::Balancer => {
            name_process(c"relevo-balancer");
            crate::balancer::run()
        }
    }
}

/// What `ps` and `pgrep` show: a program started through /proc/self/exe is called `exe` otherwise.
fn name_process(name: &CStr) {
    let _ = nix::sys::prctl::set_name(name);
}

/// `-c FILE`, for every command that needs the configuration.
#[derive(Args)]
struct ConfigFile {
    /// The configuration
    #[arg(short, long = "config", value_name = "FILE", default_value = config::DEFAULT_PATH)]
    config: PathBuf,
}

impl ConfigFile {
    /// The configuration, or everything that is wrong with it on stderr and the exit status.
    fn load(&self) -> Result<Config, ExitCode> {
        config::load(&self.config).map_err(|error| {
            match error {
                LoadError::Invalid(diagnostics) => {
                    let count = diagnostics.iter().len();
                    let errors = if count == 1 { "error" } else { "errors" };
                    let text = diagnostics.render(colour(std::io::stderr().is_terminal()));
                    output::complain_plainly(format_args!("{text}\n\n{}: {count} {errors}", self.config.display()));
                }
                LoadError::Unreadable { .. } => output::complain(error),
            }
            ExitCode::FAILURE
        })
    }
}

/// Colour only on a terminal, and not where <https://no-color.org> says no.
fn colour(is_terminal: bool) -> bool {
    is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// A child lives no longer than the thread that started it, so that must be the main one.
fn on_this_thread<T, E>(work: impl Future<Output = Result<T, E>>) -> Result<T, String>
where
    E: std::error::Error,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("the runtime cannot be started: {error}"))?;
    let result = runtime.block_on(work);
    // A file that takes its time keeps nobody from ending.
    runtime.shutdown_background();
    result.map_err(|error| error.to_string())
}

fn finish(result: Result<ExitCode, String>) -> ExitCode {
    result.unwrap_or_else(|error| {
        output::complain(error);
        ExitCode::FAILURE
    })
}
