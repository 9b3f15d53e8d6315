//! The exercises of vagrant/README.md, typed into a shell beside containers: what comes out has to be what the text says.
//!
//! Its fences of `console` hold commands behind `$ `, and what they print on their standard output. `vagrant` is a stand-in
//! here; the network and the interface are those of the containers. Words have to be the same, and so do numbers, but for
//! times; an outage may be twice as long as in the text and 20 ms besides, and what it did to requests may differ. Which of the
//! two web servers comes first may differ too.
//!
//! They are a part of `the_example_from_nothing_to_nothing`, whose machines they use. Where text and output differ the test
//! leaves a README.md with what it saw.

mod compare;
mod desk;

use std::path::Path;

use crate::containers::Site;
use compare::same;
use desk::Desk;

/// On a site that `site.yml` has set up.
pub(crate) fn the_exercises_print_what_their_text_says(site: &Site) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("vagrant/README.md");
    let text = std::fs::read_to_string(&file).unwrap();
    let desk = Desk::new(site);
    // As after `vagrant up`: nothing was counted yet, and lb1 came last. Nobody is as quick as this test: it may be about to take
    // the address.
    for name in ["lb2", "lb1"] {
        desk.enter("until vagrant ssh lb1 -c 'sudo relevo status' | grep -q 'lb2 could'; do sleep 0.2; done");
        site.machine(name).shell("systemctl restart relevo");
    }
    desk.enter("until vagrant ssh lb1 -c 'sudo relevo status' | grep -q 'lb2 could'; do sleep 0.2; done");
    let (mut seen, mut differences, mut played) = (String::new(), String::new(), 0);
    for part in parts(&text) {
        let Part::Exercise { command, output } = part else {
            seen += part.text();
            continue;
        };
        let printed = desk.enter(command);
        if !same(output, &printed) {
            differences += &format!("$ {command}\n--- the text:\n{output}--- printed:\n{printed}\n");
        }
        let output = if same(output, &printed) { output } else { &printed };
        seen += &format!("$ {command}\n{output}");
        played += 1;
    }
    assert!(played > 20, "vagrant/README.md has lost its exercises: {played} commands");
    if !differences.is_empty() {
        let proposal = Path::new(env!("CARGO_TARGET_TMPDIR")).join("vagrant-README.md");
        std::fs::write(&proposal, seen).unwrap();
        panic!(
            "vagrant/README.md does not tell the truth; with what was seen: {}\n\n{differences}",
            proposal.display()
        );
    }
}

/// A piece of the text.
enum Part<'a> {
    Exercise { command: &'a str, output: &'a str },
    Other(&'a str),
}

impl<'a> Part<'a> {
    fn text(&self) -> &'a str {
        match self {
            Part::Exercise { command, .. } => command,
            Part::Other(text) => text,
        }
    }
}

/// Splits the text: together the parts are all of it.
fn parts(text: &str) -> Vec<Part<'_>> {
    const BEGIN: &str = "```console\n";
    const END: &str = "```";
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(begin) = rest.find(BEGIN) {
        let (before, fence) = rest.split_at(begin + BEGIN.len());
        let (mut fence, after) = fence.split_at(fence.find(END).expect("a fence ends"));
        parts.push(Part::Other(before));
        while let Some((command, lines)) = fence.strip_prefix("$ ").and_then(|line| line.split_once('\n')) {
            let end = if lines.starts_with("$ ") { 0 } else { lines.find("\n$ ").map_or(lines.len(), |end| end + 1) };
            let (output, next) = lines.split_at(end);
            parts.push(Part::Exercise { command, output });
            fence = next;
        }
        assert_eq!(fence, "", "a fence of `console` begins with a command");
        rest = after;
    }
    parts.push(Part::Other(rest));
    parts
}
