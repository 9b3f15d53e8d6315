//! The programs that Relevo is measured beside, and the server behind them all. Each ends with its owner.

use std::ffi::OsString;
use std::fs::File;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use relevo::lab::node::send;

pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// For a program to listen.
const PATIENCE: Duration = Duration::from_secs(10);

/// A program that runs.
pub(crate) struct Peer(Child);

impl Peer {
    /// HAProxy, Debian's or what HAPROXY names, with this configuration, which listens there. What it logs to stdout is in `haproxy.log`.
    pub(crate) fn haproxy(directory: &Path, configuration: &str, listens: SocketAddr) -> Result<Self> {
        let file = directory.join("haproxy.cfg");
        std::fs::write(&file, configuration)?;
        let mut command = Command::new(program("HAPROXY", "haproxy"));
        command.arg("-db").arg("-f").arg(file).stdout(File::create(directory.join("haproxy.log"))?);
        Self::start(command, "haproxy", listens)
    }

    /// nginx, Debian's or what NGINX names, with one worker or more and these lines in its `http`, which listens there. Its files are in a directory
    /// of its own, by this name.
    pub(crate) fn nginx(directory: &Path, name: &str, workers: usize, http: &str, listens: SocketAddr) -> Result<Self> {
        let directory = directory.join(name);
        std::fs::create_dir_all(&directory)?;
        let folder = directory.display();
        let paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {folder}/{kind};\n"))
            .concat();
        let configuration = format!(
            "daemon off; worker_processes {workers}; pid {folder}/nginx.pid; error_log /dev/null;
worker_rlimit_nofile 16384;
events {{ worker_connections 8192; }}
http {{
keepalive_requests 1000000000; keepalive_timeout 600s;
{paths}{http}
}}
"
        );
        let file = directory.join("nginx.conf");
        std::fs::write(&file, configuration)?;
        let mut command = Command::new(program("NGINX", "nginx"));
        command.arg("-e").arg("/dev/null").arg("-c").arg(file).stdout(Stdio::null());
        Self::start(command, "nginx-light", listens)
    }

    fn start(mut command: Command, package: &str, listens: SocketAddr) -> Result<Self> {
        let program = command.get_program().to_string_lossy().into_owned();
        let child = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut peer = Self(
            child.map_err(|error| format!("{program} cannot be run ({error}): install Debian's package {package}"))?,
        );
        let end = Instant::now() + PATIENCE;
        while TcpStream::connect(listens).is_err() {
            if peer.0.try_wait()?.is_some() || Instant::now() > end {
                return Err(format!("{program} does not listen on {listens}").into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(peer)
    }

    /// Of its first process.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(self.0.id().cast_signed())
    }
}

/// What the variable names, or Debian's.
fn program(variable: &str, debian: &str) -> OsString {
    std::env::var_os(variable).unwrap_or_else(|| debian.into())
}

impl Drop for Peer {
    fn drop(&mut self) {
        // What it has started ends only if it is asked.
        let _ = send(self.pid(), Signal::SIGTERM);
        let _ = self.0.wait();
    }
}
