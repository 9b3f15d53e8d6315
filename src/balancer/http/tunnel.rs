//! A connection that both sides have agreed to use for another protocol (101 Switching Protocols), such as WebSocket.

use std::rc::Rc;

use bytes::Bytes;
use tokio::net::TcpStream;

use crate::balancer::http::client::Client;
use crate::balancer::relay::{self, Side};
use crate::balancer::session::UnderWay;
use crate::config::model::ServerTimeouts;

/// The server's side, waiting for the client's.
pub struct Tunnel {
    /// The server's socket.
    pub stream: TcpStream,
    /// What has come from it already.
    pub first: Bytes,
    /// How long it may be silent.
    pub timeouts: ServerTimeouts,
    /// Counts it at the backend.
    pub at_backend: UnderWay,
    /// Counts it at the server.
    pub at_server: UnderWay,
}

impl Tunnel {
    /// Carries bytes until one side ends; `first` is what has come from the client already.
    pub async fn run(mut self, client: &Rc<Client>, stream: &mut TcpStream, first: Bytes) {
        let session = &client.session;
        let from_client = Side { stream, first };
        let from_server = Side { stream: &mut self.stream, first: self.first };
        let ended = relay::run(session, from_client, from_server, self.timeouts).await;
        client.add_sent(ended.to_client);
        client.add_received(ended.from_client);
        let mut record = client.record.borrow_mut();
        record.leave(&self.at_backend, Some(&self.at_server));
        if let Some(end) = ended.end {
            record.end(end);
        }
    }
}
