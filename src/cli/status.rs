//! `relevo status`: asks the running node for the state of the pair and prints it, for people or for scripts.

mod check;
pub(super) mod text;

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;

use super::control::{self, ControlSocket};
use super::output;
use crate::status::PairStatus;

/// For the whole answer.
const PATIENCE: Duration = Duration::from_secs(2);
const BETWEEN_PICTURES: Duration = Duration::from_secs(1);
/// From the first character of the first line on.
const CLEAR: &str = "\x1b[H\x1b[J";

/// Show both nodes: role, priority, addresses, since when and why; servers; could the peer take over
#[derive(Args)]
pub(super) struct Arguments {
    /// As JSON, for scripts
    #[arg(long)]
    json: bool,
    /// As monitoring takes it: one line, and exit status 0 (OK), 1 (WARNING), 2 (CRITICAL) or 3 (UNKNOWN)
    #[arg(long, conflicts_with_all = ["json", "watch"])]
    check: bool,
    /// Again every second, until it is interrupted
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    control: ControlSocket,
}

/// Why there is no state to show.
#[derive(Debug, thiserror::Error)]
pub(super) enum StatusError {
    #[error(transparent)]
    Control(#[from] control::Error),
    #[error("the node at {} says: {reason}", socket.display())]
    Refused { socket: PathBuf, reason: String },
    #[error("the node at {} closed the connection without an answer: it ends, hangs or is overloaded, see its log", .0.display())]
    NoAnswer(PathBuf),
    #[error("the node at {} answered {answer:?}, which is no state: is it another version?", socket.display())]
    NotAState { socket: PathBuf, answer: String },
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let asked = || arguments.control.path().map_err(StatusError::from).and_then(|socket| ask(&socket));
    if arguments.check {
        let (level, line) = check::judge(&asked());
        let shown = output::show(&line);
        return if shown == ExitCode::SUCCESS { ExitCode::from(level as u8) } else { shown };
    }
    if arguments.watch {
        return watch(arguments, asked);
    }
    match asked().map(|pair| show(arguments, &pair)) {
        Ok(shown) => output::show(&shown),
        Err(error) => {
            output::complain(error);
            ExitCode::FAILURE
        }
    }
}

fn show(arguments: &Arguments, pair: &PairStatus) -> String {
    match arguments.json {
        true => serde_json::to_string_pretty(pair).unwrap_or_default() + "\n",
        false => text::render(pair, Timestamp::now(), super::colour(io::stdout().is_terminal())),
    }
}

/// One picture in the other's place on a terminal, one after the other elsewhere. A node that does not answer now may do so in a
/// second.
fn watch(arguments: &Arguments, asked: impl Fn() -> Result<PairStatus, StatusError>) -> ExitCode {
    let begin = if io::stdout().is_terminal() { CLEAR } else { "" };
    loop {
        let picture = asked().map_or_else(|error| format!("{error}\n"), |pair| show(arguments, &pair));
        let shown = output::show(&format!("{begin}{picture}"));
        if shown != ExitCode::SUCCESS {
            return shown;
        }
        std::thread::sleep(BETWEEN_PICTURES);
    }
}

pub(super) fn ask(socket: &Path) -> Result<PairStatus, StatusError> {
    let answer = control::ask(socket, "status", PATIENCE)?;
    serde_json::from_slice(&answer).map_err(|_| {
        let answer: String = String::from_utf8_lossy(&answer).trim().chars().take(200).collect();
        let socket = socket.to_owned();
        match answer.strip_prefix("error: ") {
            Some(reason) => StatusError::Refused { socket, reason: reason.to_owned() },
            None if answer.is_empty() => StatusError::NoAnswer(socket),
            None => StatusError::NotAState { socket, answer },
        }
    })
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::UnixListener;

    use super::*;

    /// A node that answers one question.
    struct Node(PathBuf);

    impl Node {
        fn start(name: &str, answer: Option<String>) -> Node {
            let path = std::env::temp_dir().join(format!("relevo-status-{name}-{}.sock", std::process::id()));
            let _ = std::fs::remove_file(&path);
            let listener = UnixListener::bind(&path).unwrap();
            std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                let mut question = String::new();
                BufReader::new(&stream).read_line(&mut question).unwrap();
                assert_eq!(question, "status\n");
                match answer {
                    Some(answer) => stream.write_all(answer.as_bytes()).unwrap(),
                    // Until the one who asked gives up.
                    None => drop(BufReader::new(&stream).read_line(&mut question)),
                }
            });
            Node(path)
        }
    }

    impl Drop for Node {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    #[test]
    fn a_running_node_tells_its_state() {
        let mut pair = PairStatus::default();
        pair.node.node = "lb1".into();
        let node = Node::start("running", Some(serde_json::to_string(&pair).unwrap() + "\n"));
        assert_eq!(ask(&node.0).unwrap(), pair);
    }

    #[test]
    fn what_went_wrong_says_what_to_do() {
        let nobody = std::env::temp_dir().join("relevo-status-nobody.sock");
        assert!(ask(&nobody).unwrap_err().to_string().contains("start it with `relevo run`"));
        let stopping = Node::start("stopping", Some("error: this node is stopping\n".into()));
        assert!(ask(&stopping.0).unwrap_err().to_string().ends_with(" says: this node is stopping"));
        let ending = Node::start("ending", Some(String::new()));
        assert!(ask(&ending.0).unwrap_err().to_string().contains("closed the connection without an answer"));
        let other = Node::start("other", Some("hello\n".into()));
        assert!(ask(&other.0).unwrap_err().to_string().contains("answered \"hello\", which is no state"));
        let silent = Node::start("silent", None);
        assert!(ask(&silent.0).unwrap_err().to_string().contains("does not answer within 2 s"));
    }
}
