//! TCP mode: a client's connection and a server's, and the bytes between them.

use bytes::Bytes;
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
pub async fn serve(stream: TcpStream, session: Session) {
    let mut record = Record::new(session.accepted);
    record.head = Some(session.accepted);
    session.worker.shared.requests.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    carry(&stream, &session, &mut record).await;
    accounting::count(&session, &record, clock::now());
    if session.worker.access_log.is_on() {
        let client = format!("{}:{}", session.client.ip().to_canonical(), session.client.port());
        session.worker.access_log.write(&session, client.as_bytes(), &record);
    }
}

async fn carry(client: &TcpStream, session: &Session, record: &mut Record) {
    let source = session.client.ip().to_canonical();
    let subject = Subject { source, destination_port: session.destination_port, request: None };
    let Some(index) = route(session.frontend(), &subject) else { return record.end(*b"PR") };
    let at_backend = UnderWay::at_backend(&session.worker, index);
    record.backend = Some(index);

    let (backend, state) = (session.backend(index), &session.worker.shared.backends[index.0]);
    let mut persistence = Persistence::of_connection(backend, state, source);
    let key = key::of_client(&backend.balance, source);
    let mut attempts = match Attempts::begin(session, index, persistence.server(), key) {
        Ok(attempts) => attempts,
        Err(_) => return record.end(*b"SC"),
    };
    persistence.goes_to(attempts.server());
    let connected = attempts.connect().await;
    record.server = Some(attempts.server());
    record.retries = attempts.retries;
    record.redispatched = attempts.redispatched;

    match connected {
        Ok(server) => {
            attempts.under_way.reached(false);
            persistence.goes_to(attempts.server());
            record.connected = Some(clock::now());
            let (from_client, from_server) =
                (Side { stream: client, first: Bytes::new() }, Side { stream: &server.stream, first: Bytes::new() });
            let ended = relay::run(session, from_client, from_server, backend.timeouts).await;
            record.bytes = ended.to_client;
            record.received = ended.from_client;
            ended.end.into_iter().for_each(|end| record.end(end));
        }
        Err(Unreachable::Timeout) => record.end(*b"sC"),
        Err(_) => record.end(*b"SC"),
    }
    record.leave(&at_backend, Some(&attempts.under_way));
}
