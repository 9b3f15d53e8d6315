//! What is left of a request's body when its response is there already: read, and thrown away.
//!
//! Many a client sends all of its body before it looks at the response; closing would take that from it (RFC 9112 §9.6).
//! And whoever sends on shall find the connection as good as after any other request.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::body::{Body as _, Incoming};

/// The rest of the body of a client's request.
#[derive(Default)]
pub struct Unread {
    rest: RefCell<Option<Incoming>>,
    /// The client asks before it sends its body, and was not told to.
    is_refused: Cell<bool>,
}

impl Unread {
    /// Another request begins.
    pub fn reset(&self) {
        self.is_refused.set(false);
        self.forget();
    }

    /// Nobody reads this any more.
    pub fn leave(&self, rest: Incoming) {
        *self.rest.borrow_mut() = Some(rest);
    }

    /// The client has not been told to send its body (RFC 9110 §10.1.1): nobody knows whether it will.
    pub fn refuse(&self) {
        self.is_refused.set(true);
    }

    /// Must the connection end because nobody knows what comes next on it?
    pub fn ends_connection(&self) -> bool {
        self.is_refused.get()
    }

    /// What still comes is of no interest, since the connection ends.
    pub fn forget(&self) {
        self.rest.take();
    }

    /// Is there something left?
    pub fn is_some(&self) -> bool {
        self.rest.borrow().is_some()
    }

    /// Throws away what has come; ready: there is no more.
    pub fn poll_discard(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut rest = self.rest.borrow_mut();
        while let Some(body) = &mut *rest {
            match Pin::new(&mut *body).poll_frame(context) {
                Poll::Pending => return Poll::Pending,
                // hyper says of a body with a length that it is over only when the next request comes.
                Poll::Ready(Some(Ok(_))) if !body.is_end_stream() => {}
                Poll::Ready(_) => *rest = None,
            }
        }
        Poll::Ready(())
    }
}
