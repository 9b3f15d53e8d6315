//! Keys without a return key: the terminal's state is changed as little as that needs, and put back on every exit.

use std::io::{IsTerminal, Read};
use std::sync::mpsc;

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
