//! How errors are reported, whatever they are.

use crate::{check, command, relevo, stderr, write};

#[test]
fn all_errors_are_reported_at_once_in_the_order_of_the_file() {
    let text = r#"
[process]
threads = "many"
colour = "green"

[frontends.web]
bind = ["*:80", "*:http", "*:80"]
default_backend = "apple"

[backends.app]
retries = -1
[[backends.app.servers]]
name = "one"
address = 80
weight = 1000
[[backends.app.servers]]
name = "one"
address = "192.0.2.22:80"
"#;
    let output = check("many", text);
    let message = stderr(&output);
    let titles: Vec<&str> = message
        .lines()
        .filter_map(|line| line.strip_prefix("error: ")?.split_once(": "))
        .map(|(path, _)| path)
        .collect();
    let expected = [
        "process.threads",
        "process.colour",
        "frontends.web.bind[1]",
        "frontends.web.bind[2]",
        "frontends.web.default_backend",
        "backends.app.retries",
        "backends.app.servers[0].address",
        "backends.app.servers[0].weight",
        "backends.app.servers[1].name",
    ];
    assert_eq!(titles, expected, "{message}");
    assert!(message.ends_with("many.toml: 9 errors\n"), "{message}");
}

#[test]
fn a_syntax_error_does_not_hide_the_others() {
    let output = check("syntax", "[node]\nname = \"lb1\n\n[process]\nthreads = 0\n\n[log\n\n[timeouts]\nqueue = 5\n");
    let message = stderr(&output);
    for title in ["invalid basic string", "process.threads: ", "unclosed table", "timeouts.queue: "] {
        assert!(message.contains(&format!("error: {title}")), "{title:?} is not in\n{message}");
    }
    assert!(message.ends_with(": 4 errors\n"), "{message}");
}

#[test]
fn an_empty_file_and_an_absent_one_are_errors() {
    let output = check("empty", "# nothing yet\n");
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("at least one frontend or one virtual router"), "{}", stderr(&output));

    let output = relevo(&["check", "-c", "/nowhere/relevo.toml"]);
    assert_eq!(output.status.code(), Some(1));
    let expected = "relevo: cannot read the configuration /nowhere/relevo.toml: No such file or directory";
    assert!(stderr(&output).starts_with(expected), "{}", stderr(&output));
}

#[test]
fn colour_is_for_terminals_that_want_it() {
    let file = write("colour", "[nod]\n");
    let on_terminal = |no_color: &str| {
        let terminal = nix::pty::openpty(None, None).unwrap();
        let mut command = command(&["check", "-c", file.to_str().unwrap()]);
        let mut child = command.env("NO_COLOR", no_color).stderr(terminal.slave).spawn().unwrap();
        // It fits the terminal's buffer, which is gone when its last user is: read it before.
        child.wait().unwrap();
        drop(command);
        let mut bytes = [0; 4096];
        let length = nix::unistd::read(&terminal.master, &mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    };
    assert!(on_terminal("").contains("\x1b["));
    assert!(!on_terminal("1").contains('\x1b'));
    assert!(!stderr(&relevo(&["check", "-c", file.to_str().unwrap()])).contains('\x1b'));
}
