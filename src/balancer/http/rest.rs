//! A connection between its requests.
//!
//! hyper holds some 18 KiB for a connection, whether or not anything happens on it, and most connections wait most of the
//! time. So one that is quiet for a moment is taken out of hyper: its socket and its session stay, and its next bytes bring
//! it back. One that was just accepted begins like this.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use std::{io, mem, net};

use crate::balancer::clock::Millis;
use crate::balancer::http::own::Own;
use crate::balancer::http::socket::Socket;
use crate::balancer::session::Session;

/// How long a connection is quiet before it rests: long beside the way from a response to the next request, short beside the
/// time people take to read.
pub const WAKEFUL: Duration = Duration::from_millis(250);

/// A connection on which nothing is under way.
pub(super) struct Resting {
    pub(super) socket: Socket,
    pub(super) session: Session,
    /// The request before ended, or the connection was accepted.
    pub(super) waiting_since: Instant,
    /// When it is closed if nothing comes.
    pub(super) until: Millis,
    /// The connections to servers that are for its requests alone.
    pub(super) own: Own,
}

impl Resting {
    /// A connection that was just accepted.
    ///
    /// # Errors
    /// When its socket cannot be watched.
    pub(super) fn new(stream: net::TcpStream, session: Session) -> io::Result<Self> {
        let socket = Socket::new(stream)?;
        let until = session.await_client(session.frontend().timeouts.http_request);
        Ok(Self { socket, waiting_since: session.accepted, until, own: Own::default(), session })
    }

    /// Goes over to the newest configuration, with what is its own.
    pub(super) fn renew(&mut self) {
        if let Some(before) = self.session.renew() {
            self.own.move_to(&before.shared, &self.session.worker.shared);
        }
    }

    /// Has something come? `false`: nothing has in time, or nothing is waited for any more.
    fn poll_wake(&mut self, context: &mut Context<'_>) -> Poll<bool> {
        self.session.set_waker(context.waker());
        self.renew();
        match self.socket.poll_read_ready(context) {
            // Whether these are bytes, the end or an error shows when they are read.
            Poll::Ready(()) => Poll::Ready(true),
            Poll::Pending if self.session.client_is_late() || self.session.is_to_end() => Poll::Ready(false),
            Poll::Pending => Poll::Pending,
        }
    }
}

/// What a connection's task holds.
pub(super) enum Stage {
    /// It waits.
    Resting(Resting),
    /// It has work, after which it goes on with another stage.
    Working(Work),
    /// It has ended.
    Over,
}

/// The work of a connection. It has a place of its own, so that the task stays small without it.
pub(super) type Work = Pin<Box<dyn Future<Output = Stage>>>;

/// A connection's task.
pub(super) struct Serving {
    stage: Stage,
    work: fn(Resting) -> Work,
}

impl Serving {
    /// Begins at rest; `work` is done whenever it wakes.
    pub(super) fn new(resting: Resting, work: fn(Resting) -> Work) -> Self {
        Self { stage: Stage::Resting(resting), work }
    }
}

impl Future for Serving {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        loop {
            let wakes = match &mut self.stage {
                Stage::Resting(resting) => ready!(resting.poll_wake(context)),
                Stage::Working(work) => {
                    self.stage = ready!(work.as_mut().poll(context));
                    continue;
                }
                Stage::Over => return Poll::Ready(()),
            };
            self.stage = match mem::replace(&mut self.stage, Stage::Over) {
                Stage::Resting(resting) if wakes => Stage::Working((self.work)(resting)),
                _ => Stage::Over,
            };
        }
    }
}
