//! A node of the pair: the real binary in a namespace of its own, its processes, and what can be done to them.

use std::fs::File;
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use relevo_ha::{RouterStatus, State};

use super::error::{Context, Error, Result};
use super::namespace::Process;
use super::network::Host;
use crate::status::{NodeStatus, PairStatus};

/// A keeper that does not answer within this is hung.
const STATUS_TIMEOUT: Duration = Duration::from_millis(500);

/// Longest wait for processes to end.
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// Where a node's messages go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Messages {
    /// To a file beside its configuration.
    File,
    /// Into a pipe that is full and that nobody reads.
    FullPipe,
}

/// A node, running or not.
pub struct Node {
    /// As configured.
    pub name: String,
    /// Its namespace, cable and own address.
    pub host: Host,
    binary: PathBuf,
    directory: PathBuf,
    messages: Messages,
    guard: Option<Child>,
    /// The end of the pipe that nobody reads from.
    unread: Option<PipeReader>,
}

/// Its three processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Processes {
    pub guard: Pid,
    pub keeper: Pid,
    pub balancer: Pid,
}

impl Node {
    /// Writes the configuration into `directory`; nothing runs yet.
    pub fn new(
        name: &str,
        host: Host,
        binary: &Path,
        directory: &Path,
        messages: Messages,
        configuration: &str,
    ) -> Result<Self> {
        let node = Self {
            name: name.into(),
            host,
            binary: binary.into(),
            directory: directory.into(),
            messages,
            guard: None,
            unread: None,
        };
        std::fs::write(node.configuration_file(), configuration)
            .context(|| format!("cannot write {}", node.configuration_file().display()))?;
        Ok(node)
    }

    /// Starts the guard, which starts the rest. A node that runs already is left alone.
    pub fn start(&mut self) -> Result<()> {
        if self.guard_is_running() {
            return Ok(());
        }
        let stderr = match self.messages {
            Messages::File => File::options()
                .append(true)
                .create(true)
                .open(self.messages_file())
                .map(Stdio::from)
                .context(|| format!("cannot open {}", self.messages_file().display()))?,
            Messages::FullPipe => {
                let (reader, writer) = full_pipe().context(|| "cannot make a full pipe".into())?;
                self.unread = Some(reader);
                Stdio::from(writer)
            }
        };
        let mut command = Command::new(&self.binary);
        command.arg("run").arg("-c").arg(self.configuration_file());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
        self.guard = Some(self.host.namespace.spawn(command)?);
        Ok(())
    }

    /// Is there any process of it?
    pub fn runs(&self) -> bool {
        self.host.namespace.processes().is_ok_and(|processes| !processes.is_empty())
    }

    /// All three, once they are there.
    pub fn processes(&self) -> Option<Processes> {
        let all = self.host.namespace.processes().ok()?;
        let role = |role: &str| {
            let is = |process: &&Process| process.arguments.get(1).is_some_and(|argument| argument == role);
            all.iter().find(is).map(|process| process.pid)
        };
        Some(Processes { guard: role("run")?, keeper: role("keeper")?, balancer: role("balancer")? })
    }

    /// All three, or an error.
    pub fn expect_processes(&self) -> Result<Processes> {
        self.processes()
            .ok_or_else(|| Error::new(format!("{} is not complete", self.name), "guard, keeper or balancer is missing"))
    }

    /// Sends a signal to every process of the node, at once as far as that goes.
    pub fn signal_all(&self, signal: Signal) -> Result<()> {
        self.host.namespace.processes()?.iter().try_for_each(|process| send(process.pid, signal))
    }

    /// Kills whatever runs in the node's namespace and waits until nothing does.
    pub fn end(&mut self) -> Result<()> {
        let begin = Instant::now();
        loop {
            let left = self.host.namespace.processes()?;
            for process in &left {
                send(process.pid, Signal::SIGKILL)?;
            }
            self.reap();
            if left.is_empty() {
                // One that is dying leaves its namespace before it can be reaped, and would be taken for one that runs.
                if let Some(mut guard) = self.guard.take() {
                    guard.wait().context(|| format!("cannot wait for the guard of {}", self.name))?;
                }
                return Ok(());
            }
            if begin.elapsed() > END_TIMEOUT {
                return Err(Error::new(format!("cannot end {}", self.name), format!("still there: {left:?}")));
            }
            std::thread::sleep(Duration::from_millis(2));
            for process in left {
                // Where this process is the first of its pid namespace, orphans are its own to reap.
                let _ = waitpid(process.pid, Some(WaitPidFlag::WNOHANG));
            }
        }
    }

    /// The node's view of the pair, as its control socket tells it.
    pub fn status(&self) -> Result<PairStatus> {
        ask(&self.control_socket()).context(|| format!("{} does not tell its status", self.name))
    }

    /// What it wrote to stderr; empty if nobody can read that.
    pub fn messages(&self) -> String {
        std::fs::read_to_string(self.messages_file()).unwrap_or_default()
    }

    /// Where it is asked for its state.
    pub fn control_socket(&self) -> PathBuf {
        control_socket(&self.directory, &self.name)
    }

    fn guard_is_running(&mut self) -> bool {
        self.reap();
        self.guard.is_some()
    }

    fn reap(&mut self) {
        if self.guard.as_mut().is_some_and(|guard| !matches!(guard.try_wait(), Ok(None))) {
            self.guard = None;
        }
    }

    fn configuration_file(&self) -> PathBuf {
        self.directory.join(format!("{}.toml", self.name))
    }

    fn messages_file(&self) -> PathBuf {
        self.directory.join(format!("{}.log", self.name))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

fn full_pipe() -> std::io::Result<(PipeReader, PipeWriter)> {
    let (reader, mut writer) = std::io::pipe()?;
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    while writer.write(&[b'.'; 4096]).is_ok() {}
    while writer.write(b".").is_ok() {}
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::empty()))?;
    Ok((reader, writer))
}

/// What a keeper answers on its control socket.
pub fn ask(control_socket: &Path) -> std::io::Result<PairStatus> {
    let mut socket = UnixStream::connect(control_socket)?;
    socket.set_read_timeout(Some(STATUS_TIMEOUT))?;
    socket.set_write_timeout(Some(STATUS_TIMEOUT))?;
    socket.write_all(b"status\n")?;
    let mut text = String::new();
    socket.read_to_string(&mut text)?;
    Ok(serde_json::from_str(&text)?)
}

/// A node's control socket in the lab's directory.
pub(super) fn control_socket(directory: &Path, node: &str) -> PathBuf {
    directory.join(format!("{node}.sock"))
}

/// Sends a signal; a process that is gone is no error.
pub fn send(process: Pid, signal: Signal) -> Result<()> {
    match kill(process, signal) {
        Err(Errno::ESRCH) => Ok(()),
        outcome => outcome.context(|| format!("cannot send {signal} to {process}")),
    }
}

/// The lab's one virtual router, as a node tells it.
pub fn router(status: &NodeStatus) -> Option<&RouterStatus> {
    status.vrrp.first()
}

/// Is this node active?
pub fn is_active(status: &NodeStatus) -> bool {
    router(status).is_some_and(|router| router.state == State::Active)
}
