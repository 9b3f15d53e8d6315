//! TCP mode: a client's connection and a server's, and the bytes between them.

use std::future::{self, Future, poll_fn};
use std::net;
use std::pin::pin;
use std::task::Poll;

use bytes::Bytes;
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::balancer::access_log::Record;
use crate::balancer::accounting;
use crate::balancer::balance::key;
use crate::balancer::clock;
use crate::balancer::connect::{Attempts, Unreachable};
use crate::balancer::persistence::Persistence;
use crate::balancer::relay::{self, Side};
use crate::balancer::routing::condition::Subject;
use crate::balancer::routing::route;
use crate::balancer::session::{Session, UnderWay};

/// Serves a client until its connection ends.
pub async fn serve(stream: net::TcpStream, session: Session) {
    let mut record = Record::new(session.accepted);
    record.head = Some(session.accepted);
    session.worker.count_request();
    carry(stream, &session, &mut record).await;
    accounting::count(&session, &record, clock::now());
    if session.worker.access_log.is_on() {
        let client = format!("{}:{}", session.client.ip().to_canonical(), session.client.port());
        session.worker.access_log.write(&session, client.as_bytes(), &record);
    }
}

async fn carry(client: net::TcpStream, session: &Session, record: &mut Record) {
    let source = session.client.ip().to_canonical();
    let subject = Subject { source, destination_port: session.destination_port, request: None };
    let Some(index) = route(session.frontend(), &subject) else { return record.end(*b"PR") };
    let at_backend = UnderWay::at_backend(&session.worker, index);
    record.backend = Some(index);

    let (backend, state) = (session.backend(index), &session.worker.shared.backends[index.0]);
    let mut persistence = Persistence::of_connection(backend, state, source);
    let key = key::of_client(&backend.balance, source);
    let begun = unless_gone(&client, session, Attempts::begin(session, index, persistence.server(), key)).await;
    let Some(Ok(mut attempts)) = begun else {
        record.server = session.queued.server();
        record.leave(&at_backend, None);
        return record.end(begun.and_then(Result::err).map_or(*b"CQ", Unreachable::termination));
    };
    persistence.goes_to(attempts.server());
    let connected = unless_gone(&client, session, attempts.connect()).await;
    record.server = Some(attempts.server());
    record.retries = attempts.retries;
    record.redispatched = attempts.redispatched;

    match connected {
        Some(Ok(mut server)) => {
            attempts.under_way.reached(false);
            persistence.goes_to(attempts.server());
            record.connected = Some(clock::now());
            // Only now is it waited for: a socket that is watched before tells of nothing but that it can be written to.
            let Ok(mut client) = TcpStream::from_std(client) else {
                record.leave(&at_backend, Some(&attempts.under_way));
                return record.end(*b"RC");
            };
            let (from_client, from_server) = (
                Side { stream: &mut client, first: Bytes::new() },
                Side { stream: &mut server.stream, first: Bytes::new() },
            );
            let ended = relay::run(session, from_client, from_server, backend.timeouts).await;
            record.bytes = ended.to_client;
            record.received = ended.from_client;
            ended.end.into_iter().for_each(|end| record.end(end));
        }
        Some(Err(reason)) => record.end(reason.termination()),
        None => record.end(*b"CQ"),
    }
    record.leave(&at_backend, Some(&attempts.under_way));
}

/// What comes of it; `None` if the client goes while it waits in a queue.
async fn unless_gone<F: Future>(client: &net::TcpStream, session: &Session, work: F) -> Option<F::Output> {
    let (mut work, mut gone) = (pin!(work), pin!(gone(client)));
    poll_fn(|context| match work.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending if session.queued.is_waiting() => gone.as_mut().poll(context).map(|()| None),
        Poll::Pending => Poll::Pending,
    })
    .await
}

/// A client that has said nothing and finishes is gone. One that has may have said all it wants to, and waits for an answer.
async fn gone(client: &net::TcpStream) {
    let Ok(client) = client.try_clone().and_then(TcpStream::from_std) else { return future::pending().await };
    if matches!(client.peek(&mut [0]).await, Ok(1..)) {
        let _ = client.ready(Interest::ERROR).await;
    }
}
