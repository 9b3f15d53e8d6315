//! What the balancer does, beside what the real HAProxy does with the same requests and the same servers.

mod cookies;
mod lines;

use std::io::Read;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use relevo::lab::directory::Directory;

use crate::rig::http::Connection;
use crate::rig::wait_until;

/// A running HAProxy and what it wrote.
struct Haproxy {
    process: Child,
    lines: Arc<Mutex<String>>,
    _directory: Directory,
}

impl Haproxy {
    fn start(configuration: &str, listens: SocketAddr) -> Self {
        let directory = Directory::new().unwrap();
        let file = directory.path().join("haproxy.cfg");
        std::fs::write(&file, configuration).unwrap();
        let mut command = Command::new("haproxy");
        command.arg("-db").arg("-f").arg(&file).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = command.spawn().expect("haproxy has to be installed: tests/run does that");
        let lines = Arc::<Mutex<String>>::default();
        let mut output = process.stdout.take().unwrap();
        std::thread::spawn({
            let lines = lines.clone();
            move || {
                let mut buffer = [0; 4096];
                while let Ok(length @ 1..) = output.read(&mut buffer) {
                    lines.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..length]));
                }
            }
        });
        let haproxy = Self { process, lines, _directory: directory };
        wait_until("HAProxy listens", || Connection::open(listens).is_ok(), String::new);
        haproxy
    }

    #[track_caller]
    fn wait_for_line(&self, words: &str) -> String {
        let find = || self.lines.lock().unwrap().lines().find(|line| line.contains(words)).map(str::to_owned);
        wait_until(
            &format!("HAProxy's line with {words:?}"),
            || find().is_some(),
            || self.lines.lock().unwrap().clone(),
        );
        find().unwrap()
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
