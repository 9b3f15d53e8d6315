//! The playbooks of ansible/ against machines: what they make, what they refuse, what they leave.

mod contents;
mod lifecycle;
mod lint;
mod pairs;
mod refusals;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::containers::{Site, package};

/// The hosts of the example, by the names of its inventory.
pub(crate) const EXAMPLE: [(&str, Ipv4Addr); 5] = [
    ("lb1", Ipv4Addr::new(10, 77, 0, 11)),
    ("lb2", Ipv4Addr::new(10, 77, 0, 12)),
    ("backend1", Ipv4Addr::new(10, 77, 0, 21)),
    ("backend2", Ipv4Addr::new(10, 77, 0, 22)),
    ("static1", Ipv4Addr::new(10, 77, 0, 31)),
];

/// ansible/ of this clone.
fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("ansible")
}

/// An administrator beside the machines, with the project's inventory and what differs here.
pub(crate) struct Control<'a> {
    site: &'a Site,
    /// Further arguments of every playbook.
    variables: Vec<String>,
}

/// What a playbook did.
pub(crate) struct Run {
    succeeded: bool,
    /// Everything it said, lines joined where it wrapped none.
    text: String,
    /// By host: what the recap counts.
    recap: BTreeMap<String, BTreeMap<String, u32>>,
}

impl<'a> Control<'a> {
    /// Writes the inventory of the machines beside the site's files. Without a package the program itself is installed.
    pub(crate) fn new(site: &'a Site, package: Option<&Path>) -> Self {
        let mut inventory = String::from("all:\n  vars:\n    ansible_user: admin\n");
        let ssh = site.ssh_config();
        let _ = writeln!(inventory, "    ansible_ssh_common_args: -F {}", ssh.display());
        let _ = writeln!(inventory, "    ansible_python_interpreter: /usr/bin/python3");
        std::fs::write(site.directory().join("machines.yml"), inventory).unwrap();
        let key = site.directory().join("keys/pair.key");
        let [package, binary] = match package {
            Some(package) => [package.display().to_string(), String::new()],
            None => [String::new(), package::program(site.directory()).display().to_string()],
        };
        let variables = vec![
            "network_prefix=10.77.0".to_owned(),
            format!("relevo_package={package}"),
            format!("relevo_binary={binary}"),
            format!("relevo_key_file={}", key.display()),
        ];
        Self { site, variables }
    }

    /// Runs a playbook of ansible/ with these arguments, whatever becomes of it.
    fn try_play(&self, playbook: &str, arguments: &[&str]) -> Run {
        let inventories = [directory().join("inventory"), self.site.directory().join("machines.yml")];
        let mut command = self.playbook(&inventories);
        command.args(self.variables.iter().flat_map(|variable| ["-e", variable]));
        command.arg(playbook).args(arguments);
        self.run(command)
    }

    /// The same; the test fails unless it succeeds.
    #[track_caller]
    pub(crate) fn play(&self, playbook: &str, arguments: &[&str]) -> Run {
        let run = self.try_play(playbook, arguments);
        assert!(run.succeeded, "{playbook} {arguments:?} failed:\n{}", run.text);
        run
    }

    /// ansible-playbook in ansible/, with connections that end with the site.
    fn playbook(&self, inventories: &[PathBuf]) -> Command {
        let mut command = Command::new("ansible-playbook");
        command.current_dir(directory()).args(inventories.iter().flat_map(|path| [Path::new("-i"), path]));
        command.env("ANSIBLE_SSH_CONTROL_PATH_DIR", self.site.directory().join("cp"));
        command.env("ANSIBLE_LOCAL_TEMP", self.site.directory().join("local"));
        command.env("ANSIBLE_NOCOLOR", "1").env("ANSIBLE_PIPELINING", "1").env("ANSIBLE_RETRY_FILES_ENABLED", "0");
        command
    }

    fn run(&self, command: Command) -> Run {
        let output = self.site.run(command);
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        Run { succeeded: output.status.success(), recap: recap(&text), text }
    }
}

impl Run {
    /// Tasks that changed something, on all hosts.
    fn changed(&self) -> u32 {
        self.recap.values().filter_map(|counts| counts.get("changed")).sum()
    }

    /// Tasks of this kind on this host.
    fn count(&self, host: &str, kind: &str) -> u32 {
        self.recap.get(host).and_then(|counts| counts.get(kind)).copied().unwrap_or_default()
    }
}

/// `lb1 : ok=5 changed=2 unreachable=0 …`
fn recap(text: &str) -> BTreeMap<String, BTreeMap<String, u32>> {
    let lines = text.lines().skip_while(|line| !line.starts_with("PLAY RECAP")).skip(1);
    let host = |line: &str| {
        let (host, counts) = line.split_once(" : ")?;
        let count =
            |word: &str| word.split_once('=').and_then(|(kind, count)| Some((kind.to_owned(), count.parse().ok()?)));
        Some((host.trim().to_owned(), counts.split_whitespace().filter_map(count).collect()))
    };
    lines.filter_map(host).collect()
}
