//! From a request to an answer: servers are asked until one has answered or no further attempt may be made.

use std::time::Duration;

use bytes::Bytes;
use hyper::Response;
use hyper::http::request::Parts;

use crate::balancer::clock;
use crate::balancer::connect::{Attempts, Unreachable};
use crate::balancer::health::observation::Seen;
use crate::balancer::http::body::{ClientBody, RequestBody};
use crate::balancer::http::client::Client;
use crate::balancer::http::exchange::{Failure, exchange};
use crate::balancer::http::opening::Opening;
use crate::balancer::http::own::response_binds;
use crate::balancer::http::page::{BodyUse, Refusal};
use crate::balancer::http::upstream::{self, Outgoing};
use crate::balancer::pool::{Keep, Upstream};
use crate::config::model::{BackendIndex, Retry, Reuse};

/// A body whole, where it has at most so many bytes, so that it can be sent again; or as it comes.
///
/// # Errors
/// The client is too slow, or what it sends is no body.
pub(super) async fn held_body(
    client: &Client,
    most: usize,
    mut opening: Opening,
    mut body: ClientBody,
    server_timeout: Duration,
) -> Result<RequestBody, Refusal> {
    let is_there = !(body.is_over() && opening.is_empty());
    if is_there && body.size_hint().lower() <= most as u64 {
        // One byte more, so that the end of a body that just fits is seen.
        opening.read(&mut body, client, most + 1).await?;
        if opening.is_whole_in(most) {
            return Ok(RequestBody::held(opening.into_bytes()));
        }
    }
    Ok(RequestBody::new(opening.into_bytes(), body, server_timeout))
}

/// Asks for the head of a response, whose body comes from the same connection.
///
/// # Errors
/// When there is none.
pub(super) async fn ask(
    client: &Client,
    backend: BackendIndex,
    keep: Keep,
    attempts: &mut Attempts<'_>,
    request: &Parts,
    body: RequestBody,
) -> Result<(Response<()>, Box<Upstream>), Refusal> {
    let config = client.session.backend(backend);
    let may_repeat = request.method.is_idempotent() || config.retry.non_idempotent;
    let repeatable = if may_repeat { body.repeatable() } else { None };
    // A server may close a connection just when a client's first request is on its way to it: only what can be sent again
    // takes that risk.
    let mut may_reuse = config.reuse != Reuse::Safe || repeatable.is_some() || !client.is_at_its_first_request();
    let mut outgoing = Outgoing::new(request, body);
    loop {
        let kept = if may_reuse { client.kept(keep, backend, attempts.server()) } else { None };
        let mut upstream = match kept {
            Some(upstream) => upstream,
            None => match Box::pin(attempts.connect_once()).await {
                Ok(connected) => Upstream::new(connected, backend, attempts.server(), keep),
                // Nothing was sent: a connection that is kept to the next server is as good as it was at the first.
                Err(failure) => {
                    Box::pin(attempts.failed(failure)).await.map_err(Refusal::Unavailable)?;
                    continue;
                }
            },
        };
        if keep == Keep::Bound {
            upstream.keep = keep;
        }
        let is_reused = upstream.is_reused();
        attempts.under_way.reached(is_reused);
        client.record.borrow_mut().connected = Some(clock::now());

        let outcome = match exchange(client, &mut upstream.connection, outgoing, config.timeouts.server).await {
            Ok(response) => {
                client.record.borrow_mut().answered = Some(clock::now());
                Outcome::Answer(response, upstream)
            }
            Err(Failure::ServerTimeout) => Outcome::Timeout,
            Err(Failure::ClientTimeout) => return Err(Refusal::ClientTimeout(BodyUse::PassedOn)),
            Err(Failure::Connection(upstream::Failure::Client { is_malformed: true })) => {
                return Err(Refusal::BadBody(BodyUse::PassedOn));
            }
            Err(Failure::Connection(upstream::Failure::Client { is_malformed: false })) => {
                return Err(Refusal::ClientGone(BodyUse::PassedOn));
            }
            Err(Failure::Connection(upstream::Failure::NotSent(unsent))) => {
                // It was closed before anything was sent: of a kept connection this costs no attempt.
                if !is_reused {
                    attempts.observe(Seen::NotAnswered);
                    Box::pin(attempts.failed(Unreachable::Failed)).await.map_err(Refusal::Unavailable)?;
                }
                outgoing = *unsent;
                continue;
            }
            // The keep-alive race: a server may close a connection just as a request is on its way to it. The request is
            // then sent once more, on a new connection, if nothing of an answer had come and it may be repeated
            // (RFC 9112 §9.3.1). nginx does the same; HAProxy leaves it to the client.
            Err(Failure::Connection(upstream::Failure::Lost { in_silence: true })) if is_reused => {
                let Some(body) = &repeatable else { return Err(Refusal::BadGateway) };
                may_reuse = false;
                outgoing = Outgoing::new(request, RequestBody::held(body.clone()));
                continue;
            }
            Err(Failure::Connection(upstream::Failure::Lost { in_silence: true })) => Outcome::Nothing,
            Err(Failure::Connection(upstream::Failure::Lost { in_silence: false })) => Outcome::CutShort,
            Err(Failure::Connection(upstream::Failure::Malformed)) => Outcome::Junk,
        };
        let Some(body) = repeatable.as_ref().filter(|_| outcome.is_retried(&config.retry) && attempts.may_repeat())
        else {
            return outcome.finish();
        };
        if let Some(seen) = outcome.seen(body) {
            attempts.observe(seen);
        }
        let is_timeout = matches!(outcome, Outcome::Timeout);
        if let Outcome::Answer(response, mut upstream) = outcome
            && upstream.connection.is_over()
        {
            if response_binds(response.headers()) {
                upstream.keep = upstream.keep.bound();
            }
            client.leave(upstream);
        }
        client.record.borrow_mut().answered = None;
        Box::pin(attempts.go_on(!is_timeout)).await.map_err(Refusal::Unavailable)?;
        outgoing = Outgoing::new(request, RequestBody::held(body.clone()));
    }
}

/// What became of a request that a server got.
enum Outcome {
    Answer(Response<()>, Box<Upstream>),
    /// The connection ended in silence.
    Nothing,
    /// It ended before a head was whole.
    CutShort,
    /// Something came that is no HTTP, or no answer that can be passed on.
    Junk,
    Timeout,
}

impl Outcome {
    fn is_retried(&self, retry: &Retry) -> bool {
        match self {
            Self::Answer(response, _) => {
                !retry.statuses.is_empty() && retry.statuses.contains(&response.status().as_u16())
            }
            Self::Nothing => retry.empty_response,
            Self::CutShort | Self::Junk => retry.junk_response,
            Self::Timeout => retry.response_timeout,
        }
    }

    fn finish(self) -> Result<(Response<()>, Box<Upstream>), Refusal> {
        match self {
            Self::Answer(response, upstream) => Ok((response, upstream)),
            Self::Nothing | Self::CutShort => Err(Refusal::BadGateway),
            Self::Junk => Err(Refusal::BadResponse),
            Self::Timeout => Err(Refusal::ServerTimeout),
        }
    }

    /// What it says of the server; what ended with a body may have ended because of it.
    fn seen(&self, body: &Bytes) -> Option<Seen<'static>> {
        match self {
            Self::Answer(response, _) => Some(Seen::Answered(response.status().as_u16())),
            Self::Nothing | Self::CutShort | Self::Junk if !body.is_empty() => None,
            Self::Nothing | Self::CutShort | Self::Junk | Self::Timeout => Some(Seen::NotAnswered),
        }
    }
}
