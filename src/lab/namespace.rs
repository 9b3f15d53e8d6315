//! A network namespace held by a descriptor: it lives as long as this value, or a process in it, does.

use std::fmt::Display;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};

use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::Pid;

use super::error::{Context, Result};
use super::netlink;
use super::priority::before_ordinary_threads;

/// A network namespace.
pub struct Namespace {
    name: String,
    descriptor: Arc<File>,
    /// The thread that child processes are started from. It lives as long as this value, because the kernel takes the
    /// end of that thread for the death of their parent.
    nursery: mpsc::Sender<Birth>,
}

type Birth = (Command, mpsc::Sender<io::Result<Child>>);

/// A process as /proc shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: Pid,
    /// Its arguments; the program comes first.
    pub arguments: Vec<String>,
}

impl Namespace {
    /// Makes one, with its loopback up. `name` is for error messages and names of threads.
    pub fn new(name: &str) -> Result<Self> {
        let (made, maker) = mpsc::channel();
        let (nursery, births) = mpsc::channel::<Birth>();
        spawn_thread(name, move || {
            let descriptor = unshare(CloneFlags::CLONE_NEWNET)
                .map_err(io::Error::from)
                .and_then(|()| File::open("/proc/thread-self/ns/net"));
            let alive = descriptor.is_ok() && made.send(descriptor).is_ok();
            while alive && let Ok((mut command, reply)) = births.recv() {
                let _ = reply.send(command.spawn());
            }
        })
        .context(|| "cannot start a thread".into())?;
        let descriptor = maker
            .recv()
            .unwrap_or_else(|_| Err(io::Error::last_os_error()))
            .context(|| format!("cannot make the network namespace {name}"))?;
        let namespace = Self { name: name.into(), descriptor: Arc::new(descriptor), nursery };
        namespace.run(|| netlink::set_up("lo"))??;
        // Nothing here speaks IPv6; without it no router solicitations disturb an observer.
        let _ = namespace.sysctl("net/ipv6/conf/all/disable_ipv6", "1");
        Ok(namespace)
    }

    /// As given when it was made.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// For moving interfaces into it.
    pub(crate) fn descriptor(&self) -> &File {
        &self.descriptor
    }

    /// Runs `work` on a thread inside and waits for its result. Sockets that `work` makes belong to this namespace for good.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                enter(&self.descriptor)?;
                io::Result::Ok(work())
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
        .context(|| format!("cannot enter the namespace {}", self.name))
    }

    /// Moves the calling thread inside for good: the sockets, threads and processes it makes from now on belong here.
    pub fn move_in(&self) -> Result<()> {
        enter(&self.descriptor).context(|| format!("cannot enter the namespace {}", self.name))
    }

    /// Runs `work` on a thread of its own inside, which comes before what else this machine does.
    pub fn thread(&self, name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
        let descriptor = Arc::clone(&self.descriptor);
        let (entered, wait) = mpsc::channel();
        let thread = spawn_thread(name, move || {
            let outcome = enter(&descriptor);
            let inside = outcome.is_ok();
            // A thread that could not enter must not touch the network it was started from.
            if entered.send(outcome).is_ok() && inside {
                before_ordinary_threads();
                work();
            }
        })
        .context(|| "cannot start a thread".into())?;
        wait.recv()
            .unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into()))
            .context(|| format!("cannot enter the namespace {}", self.name))?;
        Ok(thread)
    }

    /// Starts a process inside; it is killed when this value, or the whole lab, goes away.
    pub fn spawn(&self, mut command: Command) -> Result<Child> {
        die_with_parent(&mut command);
        let program = command.get_program().to_string_lossy().into_owned();
        let (reply, child) = mpsc::channel();
        self.nursery
            .send((command, reply))
            .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
            .and_then(|()| child.recv().map_err(|_| io::ErrorKind::BrokenPipe.into()))
            .and_then(|outcome| outcome)
            .context(|| format!("cannot start {program} in the namespace {}", self.name))
    }

    /// Writes `value` to /proc/sys/`path`; what is under net/ counts for this namespace alone.
    pub fn sysctl(&self, path: &str, value: &str) -> Result<()> {
        self.run(|| std::fs::write(format!("/proc/sys/{path}"), value))?
            .context(|| format!("cannot set {path} in the namespace {}", self.name))
    }

    /// The processes that live in it now (a zombie lives nowhere).
    pub fn processes(&self) -> Result<Vec<Process>> {
        let own = self.descriptor.metadata().context(|| "cannot read a namespace's number".into())?;
        let entries = std::fs::read_dir("/proc").context(|| "cannot read /proc".into())?;
        Ok(entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter(|pid| {
                let link = std::fs::metadata(format!("/proc/{pid}/ns/net"));
                link.is_ok_and(|link| (link.dev(), link.ino()) == (own.dev(), own.ino()))
            })
            .filter_map(|pid| Some(Process { pid: Pid::from_raw(pid), arguments: arguments_of(pid)? }))
            .collect())
    }
}

fn spawn_thread(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name.chars().take(15).collect()).spawn(work)
}

fn enter(namespace: &File) -> io::Result<()> {
    Ok(setns(namespace, CloneFlags::CLONE_NEWNET)?)
}

/// From /proc/PID/stat: `pid (name) state ppid …`, and the name may hold anything.
pub(super) fn parent_of(process: impl Display) -> Option<Pid> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(1)?.parse().ok().map(Pid::from_raw)
}

fn arguments_of(pid: i32) -> Option<Vec<String>> {
    let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
    Some(line.split_terminator('\0').map(str::to_owned).collect())
}

#[expect(unsafe_code, reason = "a hook between fork and exec")]
fn die_with_parent(command: &mut Command) {
    use std::os::unix::process::CommandExt;
    // SAFETY: between fork and exec only prctl and sigprocmask are called, which are async-signal-safe and allocate nothing.
    unsafe {
        command.pre_exec(|| {
            set_pdeathsig(Signal::SIGKILL)?;
            // The signals that the lab itself blocks are not its children's business.
            Ok(SigSet::empty().thread_set_mask()?)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_name_with_brackets_hides_no_parent() {
        assert_eq!(parent_of("self"), Some(Pid::parent()));
    }
}
