//! The way of a request: its target checked, a backend by the routes, a server, an answer.

use std::convert::Infallible;
use std::rc::Rc;

use hyper::body::Incoming;
use hyper::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderValue, UPGRADE};
use hyper::http::request::Parts;
use hyper::{Request, Response, StatusCode, Version};

use crate::balancer::access_log::Record;
use crate::balancer::balance::key;
use crate::balancer::connect::Attempts;
use crate::balancer::health::observation::Seen;
use crate::balancer::http::ask::{ask, held_body};
use crate::balancer::http::body::{ClientBody, RequestBody, ResponseBody};
use crate::balancer::http::client::{Client, Phase};
use crate::balancer::http::opening::Opening;
use crate::balancer::http::page::Refusal;
use crate::balancer::http::statistics;
use crate::balancer::http::tunnel::Tunnel;
use crate::balancer::http::turn::let_others_read;
use crate::balancer::http::{forwarded, headers, target};
use crate::balancer::persistence::Persistence;
use crate::balancer::pool::Keep;
use crate::balancer::routing::condition::Subject;
use crate::balancer::routing::route;
use crate::balancer::rules::{self, ResponseEdits};
use crate::balancer::session::UnderWay;
use crate::config::model::{ConnectionMode, ErrorPage};

/// A server's answer to a client's request, or a page of ours.
pub(super) async fn answer(
    client: Rc<Client>,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Infallible> {
    // Together with the request before it.
    let leaves_no_pause = client.session.worker.is_outlived() && client.phase.get() != Phase::Head;
    let version = request.version();
    let mut edits = ResponseEdits::default();
    let mut response = forward(&client, request, &mut edits).await.unwrap_or_else(|refusal| {
        let mut record = client.record.borrow_mut();
        record.is_denied = refusal.is_denial();
        record.end(refusal.termination());
        drop(record);
        client.is_answered.set(true);
        if refusal.ends_connection() {
            client.unread.forget();
        }
        refusal.response(page_instead(&client, refusal))
    });
    edits.apply(&client, &mut response);
    let session = &client.session;
    let closes = mode(&client) == ConnectionMode::Close
        || session.is_left_behind()
        || leaves_no_pause
        || client.unread.ends_connection();
    if closes && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let options = if response.headers().contains_key(UPGRADE) { "close, upgrade" } else { "close" };
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static(options));
        client.ends.set(true);
        // hyper would add keep-alive, if the client asked for it by HTTP/1.0 and this were 1.1.
        *response.version_mut() = version;
    }
    client.record.borrow_mut().status = Some(response.status().as_u16());
    client.response_begins(response.headers());
    client.phase.set(Phase::Responding);
    Ok(response)
}

/// What becomes of the connections: the later of what the frontend and the backend say.
fn mode(client: &Client) -> ConnectionMode {
    let backend = client.record.borrow().backend.map(|backend| client.session.backend(backend).connection);
    client.session.frontend().connection.max(backend.unwrap_or_default())
}

/// A page of the backend's, or else of the frontend's.
fn page_instead(client: &Client, refusal: Refusal) -> Option<&ErrorPage> {
    let status = refusal.status().as_u16();
    let backend =
        client.record.borrow().backend.and_then(|backend| client.session.backend(backend).errors.get(&status));
    backend.or_else(|| client.session.frontend().errors.get(&status))
}

async fn forward(
    client: &Rc<Client>,
    request: Request<Incoming>,
    edits: &mut ResponseEdits,
) -> Result<Response<ResponseBody>, Refusal> {
    let (mut head, incoming) = request.into_parts();
    client.request_begins(&head);
    let mut body = ClientBody::new(incoming, client, &head);
    let_others_read().await;
    target::check(&mut head)?;
    // As it came: what a rule makes of the path makes no page of it.
    let view = statistics::wanted(client.session.frontend(), &head);
    // Before anything looks at the headers: what a client names in Connection is gone, and takes nothing of ours with it.
    let headers::Wishes { upgrade, end, bound } = headers::make_request_end_to_end(&mut head)?;
    client.ends.set(end);

    let session = &client.session;
    let frontend = session.frontend();
    if !frontend.trusted_proxies.is_empty() {
        let peer = session.client.ip().to_canonical();
        client.source.set(forwarded::client_address(peer, &head.headers, &frontend.trusted_proxies));
    }
    if let Some(id) = &frontend.request_id {
        forwarded::identify(&mut head.headers, id);
        if session.worker.access_log.is_on() {
            client.record.borrow_mut().request_id = head.headers.get(&id.header.0).cloned();
        }
    }
    let mut opening = Opening::default();
    if !frontend.rules.is_empty()
        && let Some(answer) = rules::apply(client, &mut head, &mut body, &mut opening, edits).await?
    {
        client.record.borrow_mut().end(*b"LR");
        client.is_answered.set(true);
        return Ok(answer);
    }
    if let Some(view) = view {
        return Ok(Box::pin(statistics::answer(client, view, &head)).await);
    }
    let subject =
        Subject { source: client.source.get(), destination_port: session.destination_port, request: Some(&head) };
    let index = route(frontend, &subject).ok_or(Refusal::NoRoute)?;
    let backend = session.backend(index);
    client.goes_to(index);

    let (state, source) = (&session.worker.shared.backends[index.0], client.source.get());
    let mut persistence = Persistence::of_request(backend, state, source, &head.headers);
    note_cookie(client, &persistence, None);
    let key = key::of_request(&backend.balance, source, &head.uri, &head.headers);
    let mode = mode(client);
    prepare_request(client, &persistence, &mut head);
    if mode != ConnectionMode::KeepAlive && upgrade.is_none() {
        head.headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    let server_timeout = backend.timeouts.server;
    let body = match backend.retry.buffer {
        None => RequestBody::new(opening.into_bytes(), body, server_timeout),
        Some(most) => Box::pin(held_body(client, most, opening, body, server_timeout)).await?,
    };

    let at_backend = UnderWay::at_backend(&session.worker, index);
    let kept_at = persistence.server().or_else(|| client.bound_to(index).filter(|_| key.is_none()));
    let begun = Attempts::begin(session, index, kept_at, key).await;
    client.record.borrow_mut().server =
        begun.as_ref().map_or_else(|_| session.queued.server(), |attempts| Some(attempts.server()));
    let mut attempts = begun.map_err(|reason| {
        client.record.borrow_mut().leave(&at_backend, None);
        Refusal::Unavailable(reason)
    })?;
    // Before anything comes of it: what a browser asks at the same time is to go to the same server.
    persistence.goes_to(attempts.server());
    note_cookie(client, &persistence, Some(attempts.server()));
    let has_body = !body.is_empty();
    let keep = Keep::new(mode, backend.reuse);
    let keep = if bound { keep.bound() } else { keep };
    let asked = ask(client, index, keep, &mut attempts, &head, body).await;
    note_attempts(&mut client.record.borrow_mut(), &attempts, &at_backend);
    note_cookie(client, &persistence, Some(attempts.server()));
    match &asked {
        Ok((response, _)) => attempts.observe(Seen::Answered(response.status().as_u16())),
        // What ended with a body may have ended because of it.
        Err(Refusal::BadGateway | Refusal::BadResponse) if has_body => {}
        Err(Refusal::BadGateway | Refusal::BadResponse | Refusal::ServerTimeout) => attempts.observe(Seen::NotAnswered),
        Err(_) => {}
    }
    let (mut response, mut upstream) = asked?;
    let_others_read().await;

    let server = attempts.server();
    let status = response.status();
    let is_upgrade = status == StatusCode::SWITCHING_PROTOCOLS;
    if headers::make_response_end_to_end(response.headers_mut(), status) {
        upstream.keep = upstream.keep.bound();
    }
    *response.version_mut() = Version::HTTP_11;
    persistence.goes_to(server);
    if let Some(letter) = persistence.prepare_response(server, &head, response.headers_mut()) {
        client.record.borrow_mut().termination.response_cookie = letter;
    }

    let timeouts = backend.timeouts;
    let at_server = attempts.under_way;
    if !is_upgrade {
        let mut response =
            response.map(|()| ResponseBody::new(upstream, client, timeouts.server, at_backend, at_server));
        // What the whole would be long (RFC 9110 §8.6).
        if status == StatusCode::NOT_MODIFIED && response.headers().contains_key(CONTENT_LENGTH) {
            *response.body_mut() = ResponseBody::Withheld;
        }
        return Ok(response);
    }
    if !upgrade.is_some_and(|upgrade| upgrade.is_agreed_to(response.headers())) {
        return Err(Refusal::BadResponse);
    }
    let (stream, first) = upstream.connection.into_tunnel();
    client.tunnel.replace(Some(Tunnel { stream, first, timeouts, at_backend, at_server }));
    Ok(response.map(|()| ResponseBody::Empty))
}

/// The head as the server is to see it.
fn prepare_request(client: &Client, persistence: &Persistence<'_>, head: &mut Parts) {
    if let Some(forwarding) = &client.session.frontend().forwarding {
        forwarded::add(client, forwarding, head);
    }
    persistence.prepare_request(&mut head.headers);
    // It goes on as HTTP/1.1, which has a Host; rules, routes and the headers above know of none.
    if head.version == Version::HTTP_10
        && !head.headers.contains_key(HOST)
        && let Some(host) = client.destination().and_then(target::host_of)
    {
        head.headers.insert(HOST, host);
    }
    head.version = Version::HTTP_11;
}

fn note_attempts(record: &mut Record, attempts: &Attempts<'_>, at_backend: &UnderWay) {
    record.server = Some(attempts.server());
    record.retries = attempts.retries;
    record.redispatched = attempts.redispatched;
    record.leave(at_backend, Some(&attempts.under_way));
}

/// What the log says of the request's cookie, which went to this server.
fn note_cookie(client: &Client, persistence: &Persistence<'_>, server: Option<usize>) {
    if let Some(letter) = persistence.request_letter(server) {
        client.record.borrow_mut().termination.had_cookie(letter);
    }
}
