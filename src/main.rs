//! The command `relevo`: arguments to a command; nothing else.

/// glibc's allocator keeps what a thread freed for itself; this one is quicker for a proxy's short lives as well.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    relevo::cli::run()
}
