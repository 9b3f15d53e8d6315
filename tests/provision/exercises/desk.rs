//! Where somebody sits who does the exercises: a shell beside the machines, with a `vagrant` that stands in for the real one.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::libc::O_NONBLOCK;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::containers::Site;

/// For one command; the longest boots a machine and waits for the pair.
const PATIENCE: Duration = Duration::from_secs(120);

/// What the text has, and what the containers have instead; the first that fits counts.
const PLACES: [(&str, &str); 3] =
    [("for 192.168.56.1.", "for 10.77.0.100."), ("192.168.56.", "10.77.0."), ("eth1", "eth0")];

/// Asks the test for everything, and waits until it is done.
const VAGRANT: &str = r#"#!/usr/bin/env bash
echo "$*" >"$DESK/asked" && read -r status <"$DESK/done" && cat "$DESK/said" && exit "$status"
"#;

/// A shell's place, and what the stand-in for Vagrant asks for.
pub(super) struct Desk<'a> {
    site: &'a Site,
    directory: PathBuf,
    asked: File,
}

impl<'a> Desk<'a> {
    pub(super) fn new(site: &'a Site) -> Self {
        let directory = site.directory().join("desk");
        std::fs::create_dir(&directory).unwrap();
        let vagrant = directory.join("vagrant");
        std::fs::write(&vagrant, VAGRANT).unwrap();
        std::fs::set_permissions(&vagrant, std::fs::Permissions::from_mode(0o755)).unwrap();
        for pipe in ["asked", "done"] {
            mkfifo(&directory.join(pipe), Mode::S_IRWXU).unwrap();
        }
        // Open for writing too, it never ends.
        let mut options = OpenOptions::new();
        let asked = options.read(true).write(true).custom_flags(O_NONBLOCK).open(directory.join("asked")).unwrap();
        Self { site, directory, asked }
    }

    /// Types a command of the text; what it printed on its standard output, in the words of the text.
    #[track_caller]
    pub(super) fn enter(&self, command: &str) -> String {
        let here = PLACES.iter().fold(command.to_owned(), |command, (text, here)| command.replace(text, here));
        let [output, errors] = ["output", "errors"].map(|name| self.directory.join(name));
        let mut shell = Command::new("bash");
        shell.args(["-c", &here]).current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("vagrant"));
        let path = std::env::var("PATH").unwrap_or_default();
        shell.env("PATH", format!("{}:{path}", self.directory.display()));
        shell.env("DESK", &self.directory).env("RELEVO_NETWORK", "10.77.0");
        shell.stdin(Stdio::null()).stdout(File::create(&output).unwrap()).stderr(File::create(&errors).unwrap());
        let mut shell = self.site.control().namespace.spawn(shell).unwrap();
        self.serve(&mut shell, command);
        let read = |file| String::from_utf8_lossy(&std::fs::read(file).unwrap()).into_owned();
        eprint!("$ {command}\n{}{}", read(&output), read(&errors));
        PLACES.iter().fold(read(&output), |printed, (text, here)| printed.replace(here, text))
    }

    /// Does what the stand-in asks for, until the command ends.
    fn serve(&self, shell: &mut Child, command: &str) {
        let end = Instant::now() + PATIENCE;
        let mut request = [0; 4096];
        while shell.try_wait().unwrap().is_none() {
            assert!(Instant::now() < end, "does not end: {command}");
            match (&self.asked).read(&mut request) {
                Ok(length) => {
                    let status = self.answer(String::from_utf8_lossy(&request[..length]).trim_end());
                    std::fs::write(self.directory.join("done"), format!("{status}\n")).unwrap();
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(Duration::from_millis(5)),
                Err(error) => panic!("the stand-in for vagrant cannot be heard: {error}"),
            }
        }
    }

    /// Does what Vagrant would, and returns its exit status. What it would print is there for the stand-in, as far as it comes
    /// from a machine.
    fn answer(&self, request: &str) -> i32 {
        let (mut said, mut status) = (Vec::new(), 0);
        match request.splitn(4, ' ').collect::<Vec<_>>()[..] {
            // By ssh it could not be told to cut the cable: here there is only the one.
            ["ssh", name, "-c", command] => {
                let output = self.site.machine(name).run(command);
                eprint!("{}", String::from_utf8_lossy(&output.stderr));
                (said, status) = (output.stdout, output.status.code().unwrap_or(1));
            }
            ["halt", "-f", name] => self.site.machine(name).power_off(),
            ["up", name] => self.site.machine(name).power_on(),
            _ => panic!("the stand-in for vagrant does not know: vagrant {request}"),
        }
        std::fs::write(self.directory.join("said"), said).unwrap();
        status
    }
}
