//! Keys without a return key: the terminal's state is changed as little as that needs, and put back on every exit.

use std::io::{IsTerminal, Read};
use std::sync::mpsc;

use nix::libc;
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};

/// How the terminal on stdin was found; dropping it puts that back.
#[derive(Clone)]
pub struct Terminal {
    found: Option<Termios>,
}

/// What comes from stdin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// A character.
    Character(char),
    /// There will be no more.
    End,
}

impl Terminal {
    /// Remembers the terminal and changes nothing; without one there is nothing to remember.
    pub fn remember() -> Self {
        let stdin = std::io::stdin();
        Self { found: stdin.is_terminal().then(|| tcgetattr(stdin).ok()).flatten() }
    }

    /// Is there one?
    pub fn is_there(&self) -> bool {
        self.found.is_some()
    }

    /// Delivers keys one by one and does not show them. ^C stays a signal.
    pub fn deliver_keys(&self) {
        if let Some(found) = &self.found {
            let mut changed = found.clone();
            changed.local_flags.remove(LocalFlags::ICANON | LocalFlags::ECHO);
            let _ = tcsetattr(std::io::stdin(), SetArg::TCSANOW, &changed);
        }
    }

    /// As it was found.
    pub fn restore(&self) {
        if let Some(found) = &self.found {
            let _ = tcsetattr(std::io::stdin(), SetArg::TCSANOW, found);
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.restore();
    }
}

/// Text for stdout: where that is a terminal, lines that are longer than it is wide are broken between words.
pub fn wrapped(text: &str) -> String {
    columns().map_or_else(|| text.to_owned(), |columns| wrap(text, columns))
}

/// How wide the terminal on stdout is; `None`: it is none.
#[expect(unsafe_code, reason = "no crate at hand wraps it")]
fn columns() -> Option<usize> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: this request fills a winsize, and there is one.
    let result = unsafe { libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &raw mut size) };
    (result == 0 && size.ws_col > 0).then_some(usize::from(size.ws_col))
}

/// Breaks longer lines at spaces; what goes on stands a little further in than its line. A word that is longer stays whole.
fn wrap(text: &str, columns: usize) -> String {
    let lines: Vec<String> = text.split('\n').map(|line| wrap_line(line, columns)).collect();
    lines.join("\n")
}

fn wrap_line(line: &str, columns: usize) -> String {
    let begin = line.len() - line.trim_start().len();
    let further = format!("\n{}", " ".repeat(begin + 2));
    let (mut wrapped, mut rest, mut from, mut room) = (String::new(), line, begin, columns);
    while rest.chars().count() > room {
        let spaces = || rest.char_indices().enumerate().filter(|(_, (at, c))| *c == ' ' && *at > from);
        let last_that_fits = spaces().take_while(|(column, _)| *column <= room).last();
        let Some((_, (at, _))) = last_that_fits.or_else(|| spaces().next()) else { break };
        wrapped.push_str(rest[..at].trim_end());
        wrapped.push_str(&further);
        (rest, from, room) = (rest[at..].trim_start(), 0, columns.saturating_sub(begin + 2));
    }
    wrapped + rest
}

/// Sends what comes from stdin; white space is no key.
pub fn read_keys<E: From<Key> + Send + 'static>(events: mpsc::Sender<E>) {
    std::thread::spawn(move || {
        let mut byte = [0];
        while let Ok(1) = std::io::stdin().read(&mut byte) {
            let key = char::from(byte[0]);
            if !key.is_whitespace() && events.send(Key::Character(key).into()).is_err() {
                return;
            }
        }
        let _ = events.send(Key::End.into());
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_broken_between_words() {
        let rows = [
            ("one two three", 13, "one two three"),
            ("one two three", 12, "one two\n  three"),
            ("one two three", 7, "one two\n  three"),
            ("one two three", 6, "one\n  two\n  three"),
            ("one  two   three", 9, "one  two\n  three"),
            ("    one two", 8, "    one\n      two"),
            ("überlang x", 4, "überlang\n  x"),
            ("a ─► b c", 6, "a ─► b\n  c"),
            ("one\n\ntwo three\n", 5, "one\n\ntwo\n  three\n"),
            ("", 5, ""),
            ("one two", 1, "one\n  two"),
        ];
        for (text, columns, expected) in rows {
            assert_eq!(wrap(text, columns), expected, "{text:?} in {columns}");
        }
    }
}
