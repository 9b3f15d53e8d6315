//! One mistake in a sound configuration: its place, what is wrong, and what would be right.

mod backends;
mod frontends;
mod health;
mod pair;
mod rules;
mod sessions;
mod statistics;
mod values;

use crate::{SMALLEST, check, stderr, stdout};

/// Puts each of the lines under a sound configuration, of which they are all that is wrong: what is expected is the place of the
/// error and its title, and words of its explanation.
#[track_caller]
fn assert_each(area: &str, cases: &[(&str, &str, &[&str])]) {
    for (number, (lines, expected, words)) in cases.iter().enumerate() {
        let name = format!("{area}-{number}");
        let output = check(&name, &format!("{SMALLEST}\n\n{lines}\n"));
        let message = stderr(&output);
        let (place, title) = expected.split_once(' ').unwrap();
        assert_eq!(output.status.code(), Some(1), "{lines}\n{message}");
        assert_eq!(stdout(&output), "", "{lines}");
        assert!(message.contains(&format!("error: {title}")), "{title:?} is not in\n{message}");
        assert!(message.contains(&format!("{name}.toml:{place}\n")), "{place} is not in\n{message}");
        assert!(message.ends_with(".toml: 1 error\n"), "more than one error of\n{lines}\n{message}");
        for word in *words {
            assert!(message.contains(word), "{word:?} is not in\n{message}");
        }
    }
}

/// A backend of one server with this line.
fn backend(line: &str) -> String {
    format!("[backends.b]\n{line}\nservers = [{{ name = \"a\", address = \"a:1\" }}]")
}

/// A line more for a sound virtual router, whose own are 10 to 13.
fn vrrp(line: &str) -> String {
    format!("[vrrp.a]\ninterface = \"eth1\"\nvirtual_router_id = 51\naddresses = [\"192.0.2.20/24\"]\n{line}")
}
