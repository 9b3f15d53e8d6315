//! One request on one connection, and the head of its response.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use hyper::Response;

use crate::balancer::http::client::Client;
use crate::balancer::http::upstream::{self, Connection, Outgoing};

/// Why there is no response.
pub(super) enum Failure {
    /// The connection gave none.
    Connection(upstream::Failure),
    /// The server has been silent for too long.
    ServerTimeout,
    /// The client has, while its body was awaited.
    ClientTimeout,
}

/// Sends a request; gives the response's head. Its body comes from the same connection.
///
/// # Errors
/// When there is no response: the connection is then of no more use.
pub(super) async fn exchange(
    client: &Client,
    connection: &mut Connection,
    outgoing: Outgoing,
    timeout: Duration,
) -> Result<Response<()>, Failure> {
    let session = &client.session;
    session.await_server(timeout);
    connection.begin(outgoing);
    let answered = poll_fn(|context| match connection.poll_response(context) {
        Poll::Ready(answered) => Poll::Ready(answered.map_err(Failure::Connection)),
        Poll::Pending if session.server_is_late() => Poll::Ready(Err(Failure::ServerTimeout)),
        Poll::Pending if session.client_is_late() => Poll::Ready(Err(Failure::ClientTimeout)),
        Poll::Pending => Poll::Pending,
    })
    .await;
    session.server_came();
    answered
}
