//! `relevo demo` as somebody sees it who has just cloned the repository: as root and as any user, and when it is killed.

use std::io::{BufRead, BufReader, Read, Write, pipe};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use relevo::lab::directory::Directory;

const NOBODY: u32 = 65534;
const PATIENCE: Duration = Duration::from_secs(30);

/// One demo at a time: its clients measure.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Demo {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    said: Vec<String>,
}

impl Demo {
    fn start(command: &mut Command) -> Self {
        command.arg("demo").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().unwrap();
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Demo { child, stdin, lines, said: Vec::new() }
    }

    fn press(&mut self, key: &str) {
        self.stdin.as_mut().unwrap().write_all(key.as_bytes()).unwrap();
    }

    /// `None` where the demo cannot run, which CI does not accept.
    fn wait_for(&mut self, words: &str) -> Option<()> {
        let end = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) if line.contains(words) => return Some(()),
                Ok(line) => self.said.push(line),
                Err(_) => break,
            }
        }
        let mut error = String::new();
        let _ = self.child.kill();
        self.child.stderr.take().unwrap().read_to_string(&mut error).unwrap();
        let allowed = error.contains("cannot make namespaces") && std::env::var_os("CI").is_none();
        assert!(allowed, "never said {words:?}:\n{}\n{error}", self.said.join("\n"));
        eprintln!("not tried: {error}");
        None
    }

    fn inner(&self) -> Pid {
        let pid = self.child.id();
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        Pid::from_raw(children.trim().parse().unwrap())
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn processes_in(pid_namespace: u64) -> usize {
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    processes
        .filter(|process| std::fs::metadata(process.path().join("ns/pid")).is_ok_and(|n| n.ino() == pid_namespace))
        .count()
}

fn leaves_nothing_when_killed(victim: impl FnOnce(&Demo) -> Pid) {
    let _alone = alone();
    let mut demo = Demo::start(&mut Command::new(env!("CARGO_BIN_EXE_relevo")));
    if demo.wait_for("requests").is_none() {
        return;
    }
    let namespace = std::fs::metadata(format!("/proc/{}/ns/pid", demo.inner())).unwrap().ino();
    assert!(processes_in(namespace) >= 7, "the demo and two nodes of three processes");
    kill(victim(&demo), Signal::SIGKILL).unwrap();
    let end = Instant::now() + PATIENCE;
    while processes_in(namespace) > 0 {
        assert!(Instant::now() < end, "{} processes are left", processes_in(namespace));
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn nothing_is_left_when_the_outer_process_is_killed() {
    leaves_nothing_when_killed(|demo| Pid::from_raw(demo.child.id() as i32));
}

#[test]
fn nothing_is_left_when_the_inner_process_is_killed() {
    leaves_nothing_when_killed(Demo::inner);
}

#[test]
fn keys_do_harm_and_undo_it_for_any_user() {
    let _alone = alone();
    let directory = Directory::new().unwrap();
    let mut command = Command::new(for_everybody(&directory));
    if nix::unistd::geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    let mut demo = Demo::start(&mut command);
    if demo.wait_for("Input is not a terminal").is_none() {
        return;
    }
    demo.wait_for("ACTIVE, holds 10.77.0.10");
    demo.wait_for("client ─► lb");
    demo.press("k");
    demo.wait_for("outage");
    demo.press("b");
    demo.wait_for("backup, can take over; balancer serves, 3 of 3 servers up");
    demo.press("s");
    demo.wait_for("2 of 3 servers up");
    demo.press("q");
    assert!(demo.child.wait().unwrap().success());
}

#[test]
fn the_script_exits_0_when_every_outage_was_within_its_limit() {
    let _alone = alone();
    let mut command = Command::new(env!("CARGO_BIN_EXE_relevo"));
    let output = command.args(["demo", "--script"]).stdin(Stdio::null()).output().unwrap();
    let (said, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if error.contains("cannot make namespaces") && std::env::var_os("CI").is_none() {
        eprintln!("not tried: {error}");
        return;
    }
    assert!(output.status.success(), "{said}\n{error}");
    assert!(said.contains("Every outage was within its limit."), "{said}");
}

/// The program where any user may run it.
fn for_everybody(directory: &Directory) -> PathBuf {
    let copy = directory.path().join("relevo");
    std::fs::copy(Path::new(env!("CARGO_BIN_EXE_relevo")), &copy).unwrap();
    copy
}

#[test]
fn a_reader_that_has_seen_enough_ends_it_quietly() {
    let _alone = alone();
    for script in [&[][..], &["--script"]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_relevo"));
        command.arg("demo").args(script).stdin(Stdio::null()).stdout(pipe().unwrap().1);
        let output = command.output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        if error.contains("cannot make namespaces") && std::env::var_os("CI").is_none() {
            eprintln!("not tried: {error}");
            return;
        }
        assert_eq!(output.status.code(), Some(1), "{script:?}: {error}");
        assert_eq!(error, "", "{script:?}");
    }
}
