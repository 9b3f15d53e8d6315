//! The real nginx, on a host of the lab, with a configuration of its own.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use relevo::lab::network::{Host, Switch};
use relevo::lab::node::send;

use super::wait_until;

const PORT: u16 = 8080;

/// nginx on a host of its own. It answers with the headers of the lab's own servers, so that the lab's client understands
/// it, and with a line of its name and the X-Forwarded-For it got.
pub(crate) struct Nginx {
    pub(crate) name: &'static str,
    host: Host,
    directory: PathBuf,
    process: Option<Child>,
}

impl Nginx {
    pub(crate) fn start_on(switch: &Switch, name: &'static str, address: Ipv4Addr, directory: &Path) -> Self {
        let directory = directory.join(name);
        std::fs::create_dir_all(&directory).unwrap();
        let mut nginx = Self { name, host: switch.host(name, address).unwrap(), directory, process: None };
        std::fs::write(nginx.directory.join("nginx.conf"), nginx.configuration()).unwrap();
        nginx.set_healthy(true);
        nginx.start();
        nginx
    }

    fn configuration(&self) -> String {
        let Self { name, directory, .. } = self;
        let directory = directory.display();
        let paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {directory}/{kind};\n"))
            .concat();
        format!(
            r#"daemon off;
master_process off;
user root;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{}}
http {{
    {paths}
    access_log {directory}/access.log;
    server {{
        listen {PORT};
        location = /health {{ root {directory}; access_log off; }}
        location / {{
            add_header X-Server {name};
            add_header X-Node $remote_addr;
            add_header X-Received-Forwarded-For $http_x_forwarded_for;
            return 200 "{name} $http_x_forwarded_for\n";
        }}
    }}
}}
"#
        )
    }

    pub(crate) fn address(&self) -> SocketAddr {
        (self.host.address, PORT).into()
    }

    /// Does a check of `/health` succeed?
    pub(crate) fn set_healthy(&self, is_healthy: bool) {
        let file = self.directory.join("health");
        if is_healthy {
            std::fs::write(file, "well\n").unwrap();
        } else {
            std::fs::remove_file(file).unwrap();
        }
    }

    /// Requests it was asked, checks left out.
    pub(crate) fn requests(&self) -> usize {
        std::fs::read_to_string(self.directory.join("access.log")).unwrap_or_default().lines().count()
    }

    /// Starts it and waits until it listens.
    pub(crate) fn start(&mut self) {
        let mut command = Command::new("/usr/sbin/nginx");
        command.arg("-p").arg(&self.directory).arg("-c").arg(self.directory.join("nginx.conf"));
        command.arg("-e").arg(self.directory.join("error.log"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.process =
            Some(self.host.namespace.spawn(command).expect("nginx has to be installed: tests/run does that"));
        let is_there = || self.host.namespace.run(|| TcpStream::connect(self.address()).is_ok()).unwrap();
        wait_until("nginx listens", is_there, || {
            std::fs::read_to_string(self.directory.join("error.log")).unwrap_or_default()
        });
    }

    /// Ends it by this signal.
    pub(crate) fn end(&mut self, signal: Signal) {
        if let Some(mut process) = self.process.take() {
            send(Pid::from_raw(process.id().cast_signed()), signal).unwrap();
            process.wait().unwrap();
        }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        self.end(Signal::SIGKILL);
    }
}
