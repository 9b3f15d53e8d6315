//! A client's HTTP connection, from its first byte to its last.
//!
//! The way of a request: hyper reads its head here; `forward.rs` finds out where it goes; `ask.rs` asks servers until one has
//! answered; `exchange.rs` is one such question and its answer, on a connection of `upstream`; `body.rs` carries the bodies;
//! hyper sends the response here.
//!
//! One task serves one client. The connection to the server has no task of its own: the request polls it, then the body of
//! its response, then it waits in the pool. So nothing goes from task to task, and a client that leaves takes all with it.

mod ask;
pub mod body;
mod bypass;
pub mod client;
mod client_socket;
mod exchange;
mod forward;
pub mod forwarded;
mod headers;
pub mod opening;
mod own;
pub mod page;
pub mod rest;
pub mod socket;
mod statistics;
mod target;
mod tunnel;
mod turn;
mod unread;
mod upgrade;
pub mod upstream;

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::{io, net};

use bytes::Bytes;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1::{Builder, Connection};
use hyper::service::{HttpService, service_fn};

use crate::balancer::session::Session;
use body::ResponseBody;
use client::{Client, Phase};
use client_socket::ClientSocket;
use page::HTTP_2_PREFACE;
use rest::{Resting, Serving, Stage};

/// Longest head of a request, and what is read at once of its body.
const BUFFER: usize = 64 * 1024;

/// Why the loop of a connection ended.
enum End {
    /// It was closed, by either side, as hyper understands it.
    Closed(hyper::Result<()>),
    /// It has been quiet for a moment, and hyper has let go of it.
    Quiet,
    /// No request came, or the rest of one did not.
    NoRequest,
    /// It does not take its response.
    DoesNotRead,
    /// Its configuration was replaced long ago.
    Over,
}

/// Serves a client until its connection ends.
///
/// # Errors
/// When its socket cannot be watched.
pub fn serve(stream: net::TcpStream, session: Session) -> io::Result<impl Future<Output = ()>> {
    let resting = Resting::new(stream, session)?;
    Ok(Serving::new(resting, |resting| Box::pin(serve_requests(resting, Bytes::new()))))
}

/// Serves a client while it has requests, the `first` bytes of which have come already.
async fn serve_requests(mut resting: Resting, first: Bytes) -> Stage {
    resting.renew();
    let Resting { socket, session, waiting_since, until, own } = resting;
    let client = Client::new(session, waiting_since, until, own);
    let session = &client.session;
    let service = service_fn({
        let client = client.clone();
        move |request: Request<Incoming>| {
            // Here: hyper looks for more of it before it polls what becomes of it.
            client.has_asked.set(true);
            forward::answer(client.clone(), request)
        }
    });
    let mut connection = Builder::new()
        .auto_date_header(false) // a server's response has its own, or none
        .header_read_timeout(None) // ours tells the head from the pause before it
        .max_buf_size(BUFFER)
        .serve_connection(ClientSocket::new(socket, first, client.clone()), service);

    let mut is_told_to_stop = false;
    let end = poll_fn(|context| {
        session.set_waker(context.waker());
        // Before its next request is read, which is for the newest configuration.
        if client.phase.get() == Phase::Idle && session.is_outdated() && !client.leaves_hyper.get() {
            return leave(&client, Pin::new(&mut connection), context);
        }
        let mut polled = Pin::new(&mut connection).poll(context);
        client.discard(context);
        // Only now: a request that has come is served.
        if polled.is_pending() && session.worker.is_stopping.get() && !is_told_to_stop {
            is_told_to_stop = true;
            Pin::new(&mut connection).graceful_shutdown();
            polled = Pin::new(&mut connection).poll(context);
        }
        if let Poll::Ready(result) = polled {
            return Poll::Ready(End::Closed(result));
        }
        match client.phase.get() {
            _ if session.worker.is_over() => Poll::Ready(End::Over),
            _ if !session.client_is_late() => Poll::Pending,
            Phase::Idle if !client.leaves_hyper.get() => leave(&client, Pin::new(&mut connection), context),
            Phase::Idle | Phase::Head | Phase::Discarding => Poll::Ready(End::NoRequest),
            // The request itself ends, with a page.
            Phase::Exchange => Poll::Pending,
            Phase::Responding => Poll::Ready(End::DoesNotRead),
        }
    })
    .await;
    if matches!(end, End::Quiet) {
        let parts = connection.into_parts();
        // The beginning of another request may have come together with the one before.
        let (socket, first) = parts.io.into_parts(parts.read_buf);
        drop(parts.service);
        let Some(resting) = client::rest(client, socket) else { return Stage::Over };
        return match first.is_empty() {
            true => Stage::Resting(resting),
            false => Stage::Working(Box::pin(serve_requests(resting, first))),
        };
    }

    let tunnel = client.tunnel.take();
    match (end, tunnel) {
        (End::Closed(Ok(())), Some(tunnel)) => {
            let parts = connection.into_parts();
            return Stage::Working(Box::pin(async move {
                let (socket, first) = parts.io.into_parts(parts.read_buf);
                if let Ok(mut stream) = socket.into_both() {
                    tunnel.run(&client, &mut stream, first).await;
                }
                client.request_ends();
                Stage::Over
            }));
        }
        (End::NoRequest, _) if client.phase.get() == Phase::Head => {
            let (status, answer) = page::head_timeout(session.frontend().errors.get(&408));
            client.bad_request(status, *b"cR");
            client.add_sent(connection.into_parts().io.write_last(&answer) as u64);
        }
        (End::Closed(Err(error)), _) if error.is_parse_version_h2() => {
            client.bad_request(400, *b"PR");
            client.add_sent(connection.into_parts().io.write_last(HTTP_2_PREFACE) as u64);
        }
        (end, _) => {
            note_end(&client, end);
            drop(connection);
        }
    }
    client.request_ends();
    Stage::Over
}

/// Has hyper let go of the connection: between two requests it does so at once; what it does not let go of stays with it.
fn leave<S>(
    client: &Client,
    mut connection: Pin<&mut Connection<ClientSocket, S>>,
    context: &mut Context<'_>,
) -> Poll<End>
where
    S: HttpService<Incoming, ResBody = ResponseBody>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    client.leaves_hyper.set(true);
    connection.as_mut().graceful_shutdown();
    client.session.await_client_until(client.idle_until.get());
    connection.poll(context).map(|result| match result {
        Ok(()) => End::Quiet,
        Err(error) => End::Closed(Err(error)),
    })
}

/// What the log says of a connection that ended while it was at something.
fn note_end(client: &Client, end: End) {
    let result = match end {
        End::NoRequest | End::Quiet => return,
        End::DoesNotRead => return client.record.borrow_mut().end(*b"cD"),
        End::Over if client.phase.get() == Phase::Exchange => return client.record.borrow_mut().end(*b"KH"),
        End::Over => return client.record.borrow_mut().end(*b"KD"),
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
                let backend = record.backend.and_then(|backend| client.session.worker.shared.backends.get(backend.0));
                let others = backend.map_or(0, |backend| backend.connections.load(Relaxed).saturating_sub(1));
                record.backend_connections = others;
                return record.end(*b"CQ");
            }
            let when = if record.connected.is_some() { *b"CH" } else { *b"CC" };
            record.end(when);
        }
        (Phase::Responding, _) => client.record.borrow_mut().end(*b"CD"),
        (Phase::Idle | Phase::Head | Phase::Discarding, _) => {}
    }
}
