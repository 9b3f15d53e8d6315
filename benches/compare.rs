//! CPU time per request of Relevo and of Debian's HAProxy, on the same machine in the same run.
//!
//! `cargo bench --bench compare [-- --rounds 7 --seconds 4]`. One worker each, wrk with 64 keep-alive connections, nginx
//! with small responses behind, the same checks; first without a log, then with HAProxy's line for each request, written
//! to a file. The proxies take turns; what counts is the median of the rounds' ratios of CPU time (user + system, from
//! /proc, of every process of the proxy). Needs the programs nginx, haproxy and wrk. Exits 1 when the median ratio is
//! above 0.95 or a request failed.

use std::error::Error;
use std::fs::{self, File};
use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// What the project promises: at most this much of HAProxy's CPU time per request.
const LIMIT: f64 = 0.95;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("compare: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<bool> {
    let options = Options::from_arguments()?;
    let folder = Folder::create()?;
    let servers = [free_port()?, free_port()?];
    let _nginx = start_nginx(&folder.0, servers)?;

    println!("{} rounds of {} s, 64 connections, one worker, in turn", options.rounds, options.seconds);
    println!("{:<10} {:>16} {:>16} {:>8} {:>10}", "log", "relevo µs/req", "haproxy µs/req", "ratio", "limit");
    let mut within = true;
    for log in [false, true] {
        let relevo = start_relevo(&folder.0, servers, log)?;
        let haproxy = start_haproxy(&folder.0, servers, log)?;
        let mut rounds = Vec::new();
        for round in 0..options.rounds {
            // Each goes first in every other round.
            let (ours, theirs) = if round % 2 == 0 {
                let ours = load(&relevo, options.seconds)?;
                (ours, load(&haproxy, options.seconds)?)
            } else {
                let theirs = load(&haproxy, options.seconds)?;
                (load(&relevo, options.seconds)?, theirs)
            };
            rounds.push((ours, theirs));
        }
        let ratio = median(rounds.iter().map(|(ours, theirs)| ours / theirs));
        println!(
            "{:<10} {:>16.2} {:>16.2} {:>8.3} {:>10}",
            if log { "httplog" } else { "off" },
            median(rounds.iter().map(|(ours, _)| *ours)),
            median(rounds.iter().map(|(_, theirs)| *theirs)),
            ratio,
            LIMIT,
        );
        within &= ratio <= LIMIT;
    }
    Ok(within)
}

struct Options {
    rounds: usize,
    seconds: u64,
}

impl Options {
    fn from_arguments() -> Result<Self> {
        let mut options = Self { rounds: 7, seconds: 4 };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut number = || arguments.next().ok_or(format!("{argument} needs a number"));
            match argument.as_str() {
                "--rounds" => options.rounds = number()?.parse()?,
                "--seconds" => options.seconds = number()?.parse()?,
                "--bench" => {} // cargo adds it
                _ => return Err(format!("unknown argument {argument}; there are --rounds N and --seconds N").into()),
            }
        }
        Ok(options)
    }
}

/// A proxy under load: its processes and its port.
struct Proxy {
    child: Running,
    port: u16,
}

/// One round: CPU time per request in microseconds.
fn load(proxy: &Proxy, seconds: u64) -> Result<f64> {
    let before = cpu_time(proxy.child.0.id())?;
    let output = Command::new("wrk")
        .args(["-t1", "-c64", &format!("-d{seconds}s"), &format!("http://127.0.0.1:{}/", proxy.port)])
        .output()
        .map_err(|error| format!("wrk cannot be run ({error}); install Debian's package wrk"))?;
    let after = cpu_time(proxy.child.0.id())?;
    let text = String::from_utf8_lossy(&output.stdout);
    if text.contains("Socket errors") || text.contains("Non-2xx") {
        return Err(format!("requests failed:\n{text}").into());
    }
    let requests: f64 = text
        .lines()
        .find_map(|line| line.trim().split_once(" requests in "))
        .and_then(|(count, _)| count.parse().ok())
        .ok_or_else(|| format!("wrk did not say how many requests it made:\n{text}"))?;
    Ok((after - before).as_secs_f64() * 1e6 / requests)
}

/// User and system time of a process and all its descendants.
fn cpu_time(pid: u32) -> Result<Duration> {
    let mut ticks = 0;
    let mut pids = vec![pid];
    while let Some(pid) = pids.pop() {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let fields: Vec<&str> =
            stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect()).unwrap_or_default();
        ticks +=
            fields.get(11).ok_or("short stat")?.parse::<u64>()? + fields.get(12).ok_or("short stat")?.parse::<u64>()?;
        for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
            let children = fs::read_to_string(thread?.path().join("children"))?;
            pids.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        }
    }
    let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)?.unwrap_or(100);
    Ok(Duration::from_secs_f64(ticks as f64 / per_second as f64))
}

fn start_relevo(folder: &Path, servers: [u16; 2], log: bool) -> Result<Proxy> {
    let port = free_port()?;
    let file = folder.join(format!("relevo-{log}.toml"));
    let socket = folder.join(format!("relevo-{log}.sock"));
    let format = if log { "httplog" } else { "off" };
    fs::write(
        &file,
        format!(
            r#"
node = {{ control_socket = "{socket}" }}
process = {{ threads = 1, user = "nobody", chroot = "/" }}
log = {{ format = "{format}" }}

[frontends.web]
bind = ["127.0.0.1:{port}"]
default_backend = "app"

[backends.app]
health = {{ method = "HEAD", path = "/", interval = "2s" }}
servers = [{{ name = "a", address = "127.0.0.1:{a}" }}, {{ name = "b", address = "127.0.0.1:{b}" }}]
"#,
            socket = socket.display(),
            a = servers[0],
            b = servers[1],
        ),
    )?;
    let child = Command::new(env!("CARGO_BIN_EXE_relevo"))
        .args(["run".as_ref(), "-c".as_ref(), file.as_os_str()])
        .stderr(File::create(folder.join(format!("relevo-{log}.log")))?)
        .spawn()?;
    ready(Proxy { child: Running(child), port }, "relevo")
}

fn start_haproxy(folder: &Path, servers: [u16; 2], log: bool) -> Result<Proxy> {
    let port = free_port()?;
    let file = folder.join(format!("haproxy-{log}.cfg"));
    let log_lines = if log { "log stdout format raw local0\n    option httplog" } else { "no log" };
    fs::write(
        &file,
        format!(
            "global
    nbthread 1
defaults
    mode http
    timeout connect 5s
    timeout client 50s
    timeout server 50s
    http-reuse always
    option forwardfor
    {log_lines}
frontend web
    bind 127.0.0.1:{port}
    default_backend app
backend app
    balance roundrobin
    option httpchk HEAD /
    default-server inter 2s check
    server a 127.0.0.1:{a}
    server b 127.0.0.1:{b}
",
            a = servers[0],
            b = servers[1],
        ),
    )?;
    let child = Command::new("haproxy")
        .args(["-db".as_ref(), "-f".as_ref(), file.as_os_str()])
        .stdout(File::create(folder.join(format!("haproxy-{log}.log")))?)
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("haproxy cannot be run ({error}); install Debian's package haproxy"))?;
    ready(Proxy { child: Running(child), port }, "haproxy")
}

fn start_nginx(folder: &Path, ports: [u16; 2]) -> Result<Running> {
    let file = folder.join("nginx.conf");
    fs::write(
        &file,
        format!(
            "daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log /dev/null;
events {{ worker_connections 4096; }}
http {{
    access_log off; keepalive_requests 1000000000;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    server {{ listen 127.0.0.1:{}; listen 127.0.0.1:{}; location / {{ return 200 \"hello\\n\"; }} }}
}}
",
            ports[0],
            ports[1],
            folder = folder.display(),
        ),
    )?;
    let child = Command::new("nginx")
        .args(["-c".as_ref(), file.as_os_str()])
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("nginx cannot be run ({error}); install Debian's package nginx-light"))?;
    let nginx = Running(child);
    for port in ports {
        until(|| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok(), "nginx does not listen")?;
    }
    Ok(nginx)
}

/// Waits until the proxy answers with 200.
fn ready(proxy: Proxy, name: &str) -> Result<Proxy> {
    until(|| answers(proxy.port).unwrap_or(false), &format!("{name} does not answer"))?;
    Ok(proxy)
}

fn answers(port: u16) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    let answer = std::io::read_to_string(stream)?;
    Ok(answer.starts_with("HTTP/1.1 200"))
}

fn until(condition: impl Fn() -> bool, otherwise: &str) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(10);
    while !condition() {
        if Instant::now() > end {
            return Err(otherwise.into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// A child that ends with its owner.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.0.id() as i32);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

/// A folder of our own under the system's temporary one, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn create() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("relevo-compare-{}", std::process::id()));
        fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
