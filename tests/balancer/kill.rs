//! A server that is killed under load: nobody sees it whose response had not begun.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use relevo::lab::directory::Directory;
use relevo::lab::node::send;

use crate::rig::node::Relevo;
use crate::rig::place::{free_port, own_loopback};
use crate::rig::wait_until;
use crate::{configuration, connect, server_of};

const CLIENTS: usize = 64;
const LARGE: usize = 8 << 20;

/// The real nginx, on this loopback.
struct Nginx {
    name: &'static str,
    address: SocketAddr,
    process: Child,
}

impl Nginx {
    fn start(name: &'static str, directory: &Path) -> Self {
        let (address, directory) = (free_port(), directory.join(name));
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("large"), vec![b'x'; LARGE]).unwrap();
        let file = directory.join("nginx.conf");
        let directory = directory.display();
        let paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {directory}/{kind};\n"))
            .concat();
        let text = format!(
            "daemon off; master_process off; user root; pid {directory}/pid; error_log {directory}/error.log;\n\
             events {{}}\n\
             http {{\n{paths} access_log off; add_header X-Server {name};\n\
             server {{ listen {address}; location / {{ return 200 {name}; }}\n\
             location = /large {{ root {directory}; limit_rate 64k; }} }} }}\n"
        );
        std::fs::write(&file, text).unwrap();
        let mut command = Command::new("/usr/sbin/nginx");
        command.arg("-c").arg(&file).arg("-e").arg(format!("{directory}/error.log"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().expect("nginx has to be installed: tests/run does that");
        let log = || std::fs::read_to_string(format!("{directory}/error.log")).unwrap_or_default();
        wait_until("nginx listens", || TcpStream::connect(address).is_ok(), log);
        Self { name, address, process }
    }

    fn signal(&self, signal: Signal) {
        send(Pid::from_raw(self.process.id().cast_signed()), signal).unwrap();
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// 64 clients, all of whose requests one of two servers has when it dies by SIGKILL: not one of them gets an error, nor later.
/// The download that it had begun ends early, and is asked of nobody else.
#[test]
fn a_server_that_is_killed_costs_no_client_an_answer_that_had_not_begun() {
    let _place = own_loopback();
    let directory = Directory::new().unwrap();
    let servers = ["one", "two"].map(|name| Nginx::start(name, directory.path()));
    let backend = "retry_on = ['connection_failure', 'empty_response']";
    let (web, text) = configuration("", backend, &servers.each_ref().map(|server| server.address));
    let node = Relevo::start(&text);

    let mut download = connect(web);
    download.send("GET /large HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    let head = download.receive_head().unwrap();
    let begun = servers.iter().find(|server| head.lines().any(|line| line == format!("x-server: {}", server.name)));
    let victim = begun.unwrap_or_else(|| panic!("{head}"));
    let index = usize::from(victim.name == "two");

    let stop = Arc::new(AtomicBool::new(false));
    let (answered, by_the_other) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (stop, answered, by_the_other) = (stop.clone(), answered.clone(), by_the_other.clone());
            let (mut client, name) = (connect(web), victim.name);
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let answer = client.get("/").map_err(|error| format!("no answer: {error}"))?;
                    if answer.status() != 200 {
                        return Err(format!("{answer:?}"));
                    }
                    answered.fetch_add(1, Ordering::Relaxed);
                    by_the_other.fetch_add(usize::from(server_of(&answer) != name), Ordering::Relaxed);
                }
                Ok(())
            })
        })
        .collect();
    let all_have_been_answered = || answered.load(Ordering::Relaxed) > 10 * CLIENTS;
    wait_until("clients are served", all_have_been_answered, || node.messages());

    // It stops answering, so that in the end it has a request of each of them; and then it dies.
    victim.signal(Signal::SIGSTOP);
    node.wait_for("it has all requests", |status| {
        status.node.backends[0].servers[index].connections as usize == CLIENTS + 1
    });
    let before = by_the_other.load(Ordering::Relaxed);
    victim.signal(Signal::SIGKILL);
    let all_have_gone_on = || by_the_other.load(Ordering::Relaxed) > before + 10 * CLIENTS;
    wait_until("the other server answers", all_have_gone_on, || node.messages());
    stop.store(true, Ordering::Relaxed);
    let errors: Vec<_> = clients.into_iter().filter_map(|client| client.join().unwrap().err()).collect();
    assert!(errors.is_empty(), "{} of {CLIENTS} clients: {}\n{}", errors.len(), errors[0], node.messages());

    let rest = download.receive_rest().unwrap();
    assert!(rest.len() < LARGE, "all of it has come: it was asked of the other server");
}
