//! Instructions that a request costs in the process that carries traffic: `cargo bench --bench instructions [-- --beside PATH]`.
//!
//! Valgrind's callgrind counts them, so that they are the same in every run and on every machine of a kind: what two programs
//! differ by is seen where a clock sees only noise. One client sends requests one after the other on one connection; what many
//! take more than few is what they cost. The kernel's part is not in it. Needs the programs nginx and valgrind. Exits 1 when
//! Relevo takes more than 1 % above what the other Relevo takes (`--beside`).

#[path = "peers/mod.rs"]
#[expect(dead_code, reason = "of the peers it needs nginx alone")]
mod peers;
#[path = "../tests/rig/mod.rs"]
mod rig;

use std::fs::{self, File};
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use clap::Parser;
use nix::sys::signal::Signal;
use nix::unistd::{Gid, Uid};
use relevo::lab::directory::Directory;

use peers::{Peer, Result};
use rig::http::Connection;
use rig::node::{BINARY, Relevo};
use rig::place::free_port;

/// Of what the other Relevo takes.
const BESIDE_LIMIT: f64 = 1.01;
const FEW: u64 = 500;
const MANY: u64 = 5500;
/// For a program to start, and to write down what was counted.
const PATIENCE: Duration = Duration::from_secs(30);
/// How the keeper names its own program when it starts a balancer; what is put in its place is as long.
const OWN_PROGRAM: &str = "/proc/self/exe";
const NOBODY: u32 = 65534;

/// What is done, by the lines of the frontend.
const ROWS: [(&str, &str, &str); 4] = [
    ("http", "off", ""),
    ("http, logged", "httplog", ""),
    (
        "http, ten rules",
        "off",
        r#"rules = [
    { when = { path_prefix = "/a/" }, deny = 403 }, { when = { path_prefix = "/b/" }, deny = 403 },
    { when = { path_prefix = "/c/" }, deny = 403 }, { when = { path_prefix = "/d/" }, deny = 403 },
    { when = { path_prefix = "/e/" }, deny = 403 },
    { request_headers = { set = { X-A = "a", X-B = "b", X-C = "c" } } },
    { response_headers = { set = { X-D = "d", X-E = "e" } } },
]"#,
    ),
    ("tcp", "off", "mode = \"tcp\""),
];

/// Instructions that a request costs
#[derive(Parser)]
struct Arguments {
    /// Another Relevo, counted too
    #[arg(long, value_name = "PATH")]
    beside: Option<PathBuf>,
    /// What cargo says to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("instructions: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<bool> {
    let directory = Directory::new()?;
    let server = free_port();
    let _nginx = Peer::nginx(
        directory.path(),
        "origin",
        1,
        &format!("access_log off; server {{ listen {server}; location / {{ return 200 \"hello\\n\"; }} }}"),
        server,
    )?;
    println!("instructions a request, and their ratio to those of the other Relevo");
    println!("{:<20} {:>10} {:>10} {:>8}", "", "relevo", "beside", "/beside");
    let mut within = true;
    for (name, log, frontend) in ROWS {
        let cost = |binary: &Path| -> Result<f64> {
            let counts = [FEW, MANY].map(|requests| count(binary, log, frontend, server, requests));
            let [few, many] = counts;
            Ok((many? - few?) as f64 / (MANY - FEW) as f64)
        };
        let own = cost(Path::new(BINARY))?;
        let beside = arguments.beside.as_deref().map(cost).transpose()?;
        let ratio = beside.map(|beside| own / beside);
        let text = |value: Option<f64>, digits| value.map_or("-".to_owned(), |value| format!("{value:.digits$}"));
        println!("{name:<20} {own:>10.0} {:>10} {:>8}", text(beside, 0), text(ratio, 4));
        within &= ratio.is_none_or(|ratio| ratio <= BESIDE_LIMIT);
    }
    Ok(within)
}

/// Instructions of a balancer from its start to its end, with so many requests between.
fn count(binary: &Path, log: &str, frontend: &str, server: SocketAddr, requests: u64) -> Result<u64> {
    let directory = Directory::new()?;
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777))?;
    let counted = directory.path().join("counted");
    let program = Counting::make(binary, directory.path(), &counted)?;
    let web = free_port();
    let configuration = format!(
        "[process]\nthreads = 1\nmax_connections = 100\n[log]\nformat = \"{log}\"\ntarget = \"{}\"\n\
         [frontends.web]\nbind = [\"{web}\"]\ndefault_backend = \"app\"\n{frontend}\n\
         [backends.app]\nhealth = {{ interval = \"60s\" }}\nservers = [{{ name = \"a\", address = \"{server}\" }}]\n",
        directory.path().join("log").display(),
    );
    let mut command = Command::new(&program.copy);
    // Callgrind opens its file as whoever it runs as, at the start and at the end.
    if Uid::current().is_root() {
        command.uid(NOBODY).gid(Gid::from_raw(NOBODY).as_raw());
    }
    let node = Relevo::launch_by(command, &configuration);
    let answers =
        || Connection::open(web).and_then(|mut client| client.get("/")).is_ok_and(|answer| answer.status() == 200);
    rig::wait_until("it answers", answers, || node.messages());
    let mut client = Connection::open(web)?;
    for _ in 0..requests {
        let answer = client.get("/")?;
        if answer.status() != 200 {
            return Err(format!("status {}\n{}", answer.status(), node.messages()).into());
        }
    }
    drop(client);
    node.signal(Signal::SIGTERM);
    let begin = Instant::now();
    loop {
        let text = fs::read_to_string(&counted).unwrap_or_default();
        if let Some(total) = text.lines().find_map(|line| line.strip_prefix("totals: ")) {
            return Ok(total.trim().parse()?);
        }
        if begin.elapsed() > PATIENCE {
            return Err(format!("valgrind has counted nothing\n{}", node.messages()).into());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A copy of the program that starts its balancers under valgrind, by a script.
struct Counting {
    copy: PathBuf,
    script: PathBuf,
}

impl Counting {
    fn make(binary: &Path, directory: &Path, counted: &Path) -> Result<Self> {
        let script = PathBuf::from(format!("/tmp/r{:08}", std::process::id()));
        let script_name = script.as_os_str().as_encoded_bytes();
        assert_eq!(script_name.len(), OWN_PROGRAM.len());
        let copy = directory.join("relevo");
        let mut program = fs::read(binary)?;
        let places: Vec<usize> = find_all(&program, OWN_PROGRAM.as_bytes());
        if places.is_empty() {
            return Err(format!("{} does not start itself by {OWN_PROGRAM}", binary.display()).into());
        }
        for place in places {
            program[place..place + script_name.len()].copy_from_slice(script_name);
        }
        fs::write(&copy, program)?;
        let (copy_name, counted) = (copy.display(), counted.display());
        let text = format!(
            "#!/bin/sh\ncase $1 in\n\
             balancer) exec valgrind -q --tool=callgrind --vgdb=no --callgrind-out-file={counted} {copy_name} balancer ;;\n\
             *) exec {copy_name} \"$@\" ;;\nesac\n"
        );
        // Not what somebody else has put there.
        File::options().write(true).create_new(true).open(&script)?.write_all(text.as_bytes())?;
        for file in [&copy, &script] {
            fs::set_permissions(file, fs::Permissions::from_mode(0o755))?;
        }
        Ok(Self { copy, script })
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.script);
    }
}

fn find_all(text: &[u8], wanted: &[u8]) -> Vec<usize> {
    (0..text.len().saturating_sub(wanted.len())).filter(|&at| text[at..].starts_with(wanted)).collect()
}
