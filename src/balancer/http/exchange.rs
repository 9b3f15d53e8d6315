//! One request on one connection, and the head of its response.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::{Request, Response};

use crate::balancer::http::body::RequestBody;
use crate::balancer::http::client::Client;
use crate::balancer::pool::Upstream;

/// Why there is no response.
pub(super) enum Failure {
    /// The connection was closed before anything of the request was sent.
    NotSent(Box<Request<RequestBody>>),
    /// It was closed or broke after that, or what came is no HTTP.
    Lost,
    /// The server has been silent for too long.
    ServerTimeout,
    /// The client has, while its body was awaited.
    ClientTimeout,
}

/// Sends a request; gives the response's head and the connection its body comes from.
///
/// # Errors
/// When there is no response: the connection is then closed.
pub(super) async fn exchange(
    client: &Client,
    mut upstream: Box<Upstream>,
    request: Request<RequestBody>,
    timeout: Duration,
) -> Result<(Response<Incoming>, Box<Upstream>), Failure> {
    let session = &client.session;
    session.await_server(timeout);
    let mut response = pin!(upstream.send(request));
    let answered = poll_fn(|context| {
        client.upstream_waker.set_task(context.waker());
        // The response comes out of the connection that is polled one line before: it needs no waker.
        let mut quiet = Context::from_waker(Waker::noop());
        let answered = client.upstream_waker.poll(|context| {
            let is_over = upstream.poll(context).is_ready();
            let answered = response.as_mut().poll(&mut quiet);
            if is_over && answered.is_pending() {
                upstream.close();
                return response.as_mut().poll(&mut quiet);
            }
            answered
        });
        match answered {
            Poll::Ready(Ok(response)) => Poll::Ready(Ok(response)),
            Poll::Ready(Err(mut error)) => Poll::Ready(Err(match error.take_message() {
                Some(request) => Failure::NotSent(Box::new(request)),
                None => Failure::Lost,
            })),
            Poll::Pending if session.server_is_late() => Poll::Ready(Err(Failure::ServerTimeout)),
            Poll::Pending if session.client_is_late() => Poll::Ready(Err(Failure::ClientTimeout)),
            Poll::Pending => Poll::Pending,
        }
    })
    .await;
    session.server_came();
    answered.map(|response| (response, upstream))
}
