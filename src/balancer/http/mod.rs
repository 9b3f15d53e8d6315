//! A client's HTTP connection, from its first byte to its last.
//!
//! The way of a request: hyper reads its head here; `forward.rs` finds a server and asks it; `exchange.rs` is that one
//! question and its answer, on a connection of `upstream`; `body.rs` carries the bodies; hyper sends the response here.
//!
//! One task serves one client. The connection to the server has no task of its own: the request polls it, then the body of
//! its response, then it waits in the pool. So nothing goes from task to task, and a client that leaves takes all with it.

pub mod body;
pub mod client;
mod exchange;
mod forward;
mod forwarded;
mod headers;
pub mod opening;
pub mod page;
pub mod socket;
mod statistics;
mod tunnel;
mod turn;
pub mod upstream;

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use tokio::net::TcpStream;

use crate::balancer::session::Session;
use client::{Client, ClientSocket, Phase};
use page::HEAD_TIMEOUT;

/// Longest head of a request, and what is read at once of its body.
const BUFFER: usize = 64 * 1024;

/// Why the loop of a connection ended.
enum End {
    /// It was closed, by either side, as hyper understands it.
    Closed(hyper::Result<()>),
    /// No request came, or the rest of one did not.
    NoRequest,
    /// It does not take its response.
    DoesNotRead,
}

/// Serves a client until its connection ends.
pub async fn serve(stream: TcpStream, session: Session) {
    let client = Client::new(session);
    let session = &client.session;
    session.await_client(session.frontend().timeouts.http_request);

    let socket = ClientSocket::new(stream, client.clone());
    let service = service_fn({
        let client = client.clone();
        move |request| forward::answer(client.clone(), request)
    });
    let mut connection = Builder::new()
        .auto_date_header(false) // a server's response has its own, or none
        .header_read_timeout(None) // ours tells the head from the pause before it
        .max_buf_size(BUFFER)
        .serve_connection(socket, service);

    let mut is_told_to_stop = false;
    let end = poll_fn(|context| {
        session.set_waker(context.waker());
        if session.worker.is_stopping.get() && !is_told_to_stop {
            is_told_to_stop = true;
            Pin::new(&mut connection).graceful_shutdown();
        }
        if let Poll::Ready(result) = Pin::new(&mut connection).poll(context) {
            return Poll::Ready(End::Closed(result));
        }
        match client.phase.get() {
            _ if !session.client_is_late() => Poll::Pending,
            Phase::Idle | Phase::Head => Poll::Ready(End::NoRequest),
            // The request itself ends, with a page.
            Phase::Exchange => Poll::Pending,
            Phase::Responding => Poll::Ready(End::DoesNotRead),
        }
    })
    .await;

    let tunnel = client.tunnel.take();
    match (end, tunnel) {
        (End::Closed(Ok(())), Some(tunnel)) => {
            let parts = connection.into_parts();
            tunnel.run(&client, parts.io.into_stream(), parts.read_buf).await;
        }
        (End::NoRequest, _) if client.phase.get() == Phase::Head => {
            client.bad_request(408, *b"cR");
            // Best effort: it fits an empty send buffer, and the client may be gone.
            let _ = connection.into_parts().io.into_stream().try_write(HEAD_TIMEOUT);
        }
        (end, _) => {
            note_end(&client, end);
            drop(connection);
        }
    }
    client.request_ends();
}

/// What the log says of a connection that ended while it was at something.
fn note_end(client: &Client, end: End) {
    let result = match end {
        End::NoRequest => return,
        End::DoesNotRead => return client.record.borrow_mut().end(*b"cD"),
        End::Closed(result) => result,
    };
    match (client.phase.get(), result) {
        (Phase::Head, Err(error)) if error.is_parse() => client.bad_request(400, *b"PR"),
        (Phase::Head, Err(_)) => client.bad_request(400, *b"CR"),
        (Phase::Exchange, _) => {
            let mut record = client.record.borrow_mut();
            let queued = &client.session.queued;
            if queued.is_waiting() {
                record.server = queued.server();
                return record.end(*b"CQ");
            }
            let when = if record.connected.is_some() { *b"CH" } else { *b"CC" };
            record.end(when);
        }
        (Phase::Responding, _) => client.record.borrow_mut().end(*b"CD"),
        (Phase::Idle | Phase::Head, _) => {}
    }
}
