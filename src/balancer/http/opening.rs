//! The beginning of a request's body, held back so that a rule can look at it.

use std::future::poll_fn;
use std::task::Poll;

use bytes::Bytes;

use crate::balancer::http::body::{ClientBody, is_malformed};
use crate::balancer::http::client::Client;
use crate::balancer::http::page::{BodyUse, Refusal};

/// What has been read of a body, in one piece. Empty unless a rule asks, it costs nothing.
#[derive(Default)]
pub struct Opening {
    text: Vec<u8>,
    is_whole: bool,
}

impl Opening {
    /// The first bytes of a body, or all of it where it is shorter. So many, and what came together with the last of them, are
    /// held. The client has as much time for them as for a head.
    ///
    /// # Errors
    /// The client is too slow, or what it sends is no body.
    pub async fn read(&mut self, body: &mut ClientBody, client: &Client, first: usize) -> Result<&[u8], Refusal> {
        let session = &client.session;
        if body.is_over() {
            self.is_whole = true;
        }
        if self.text.len() < first && !self.is_whole {
            session.await_client(session.frontend().timeouts.http_request);
        }
        while self.text.len() < first && !self.is_whole {
            let frame = poll_fn(|context| match body.poll_frame(context) {
                Poll::Ready(frame) => Poll::Ready(Ok(frame)),
                Poll::Pending if session.client_is_late() => Poll::Ready(Err(Refusal::ClientTimeout(BodyUse::Held))),
                Poll::Pending => Poll::Pending,
            });
            match frame.await? {
                Some(Ok(frame)) => {
                    let data = frame.data_ref().map(Bytes::as_ref).unwrap_or_default();
                    client.add_received(data.len() as u64);
                    self.text.extend_from_slice(data);
                }
                Some(Err(error)) if is_malformed(&error) => return Err(Refusal::BadBody(BodyUse::Held)),
                Some(Err(_)) => return Err(Refusal::ClientGone(BodyUse::Held)),
                None => self.is_whole = true,
            }
        }
        session.client_came();
        Ok(self.text.get(..first).unwrap_or(&self.text))
    }

    /// Has nothing been read?
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Is it the whole body, and no longer than this?
    pub fn is_whole_in(&self, most: usize) -> bool {
        self.is_whole && self.text.len() <= most
    }

    /// What has been read, for the server.
    pub fn into_bytes(self) -> Bytes {
        self.text.into()
    }
}
