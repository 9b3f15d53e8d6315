//! The command `relevo`: arguments to a command; nothing else.

fn main() -> std::process::ExitCode {
    relevo::cli::run()
}
