//! The statistics among what a frontend serves: the page, its CSV and its metrics, behind a password.

use std::rc::Rc;

use bytes::Bytes;
use hyper::header::{
    ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue,
    REFERRER_POLICY, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};

use crate::balancer::http::body::ResponseBody;
use crate::balancer::http::client::Client;
use crate::balancer::statistics::snapshot;
use crate::config::model::Frontend;
use crate::stats::{access, csv, page, prometheus};

/// What somebody wants to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum View {
    Page,
    Csv,
    Metrics,
}

/// `None`: the request is for a server.
pub(super) fn wanted(frontend: &Frontend, request: &Parts) -> Option<View> {
    let statistics = frontend.statistics.as_ref()?;
    let rest = request.uri.path().strip_prefix(statistics.path.trim_end_matches('/'))?;
    // HAProxy's words come behind semicolons, in any order; agents that read its statistics add some that change nothing here.
    let (rest, words) = rest.split_once(';').unwrap_or((rest, ""));
    let has = |wanted| words.split(';').any(|word| word == wanted);
    match rest {
        "" | "/" if has("csv") => Some(View::Csv),
        "" | "/" if has("json") || has("json-schema") => None,
        "" | "/" => Some(View::Page),
        "/metrics" => Some(View::Metrics),
        _ => None,
    }
}

/// What is shown, or why not.
pub(super) async fn answer(client: &Rc<Client>, view: View, request: &Parts) -> Response<ResponseBody> {
    {
        let mut record = client.record.borrow_mut();
        record.is_for_statistics = true;
        record.end(*b"LR");
    }
    let response = show(client, view, request).await;
    client.is_answered.set(true);
    response
}

async fn show(client: &Rc<Client>, view: View, request: &Parts) -> Response<ResponseBody> {
    if !matches!(request.method, Method::GET | Method::HEAD) {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "The statistics can only be read.\n");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    let session = &client.session;
    let Some(statistics) = session.frontend().statistics.clone() else {
        return plain(StatusCode::NOT_FOUND, "There are no statistics here.\n");
    };
    let authorization = request.headers.get(AUTHORIZATION).map(|value| value.as_bytes().to_vec());
    if authorization.is_none() && !statistics.users.is_empty() {
        return refused(&statistics.realm);
    }
    let refresh = request.uri.query().and_then(refresh);
    let shared = session.worker.shared.clone();
    let realm = statistics.realm.clone();

    let turn = shared.clone();
    let Ok(_turn) = turn.statistics.turn.acquire().await else {
        return plain(StatusCode::SERVICE_UNAVAILABLE, "The statistics are closed.\n");
    };
    // Checking a password and making a page may take milliseconds, which this worker's other clients shall not wait.
    let made = tokio::task::spawn_blocking(move || {
        access::is_allowed(&statistics.users, authorization.as_deref()).then(|| {
            let snapshot = snapshot(&shared);
            match view {
                View::Page => (page::render(&snapshot, &statistics.path, refresh), page::CONTENT_TYPE),
                View::Csv => (csv::render(&snapshot), "text/plain; charset=utf-8"),
                View::Metrics => (prometheus::render(snapshot), prometheus::CONTENT_TYPE),
            }
        })
    });
    match made.await {
        Ok(Some((text, content_type))) => {
            let mut response = response(StatusCode::OK, Bytes::from(text), content_type);
            response.headers_mut().insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(page::SECURITY_POLICY));
            response
        }
        Ok(None) => refused(&realm),
        Err(error) => {
            tracing::error!(%error, "the statistics could not be made");
            plain(StatusCode::INTERNAL_SERVER_ERROR, "The statistics could not be made.\n")
        }
    }
}

fn refused(realm: &str) -> Response<ResponseBody> {
    let mut response = plain(StatusCode::UNAUTHORIZED, "Name and password, please.\n");
    let challenge = HeaderValue::try_from(format!("Basic realm=\"{realm}\", charset=\"UTF-8\""));
    let challenge = challenge.unwrap_or(HeaderValue::from_static("Basic realm=\"statistics\""));
    response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    response
}

/// `?refresh=5`: seconds, from one to an hour.
fn refresh(query: &str) -> Option<u32> {
    let value = query.split('&').find_map(|pair| pair.strip_prefix("refresh="))?;
    value.parse().ok().filter(|seconds| (1..=3600).contains(seconds))
}

fn plain(status: StatusCode, text: &'static str) -> Response<ResponseBody> {
    response(status, Bytes::from_static(text.as_bytes()), "text/plain; charset=utf-8")
}

fn response(status: StatusCode, text: Bytes, content_type: &'static str) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::Page(Some(text)));
    *response.status_mut() = status;
    let headers: [(HeaderName, &'static str); 4] = [
        (CONTENT_TYPE, content_type),
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
    ];
    for (name, value) in headers {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use hyper::Request;

    use super::*;
    use crate::config::parse;

    #[test]
    fn three_paths_lead_to_the_statistics_and_no_other() {
        let view = |path: &str, target: &str| {
            let text = format!(
                "[frontends.f]\nbind = '*:1'\ndefault_backend = 'b'\nstats = {{ path = '{path}', users = {{ a = 'b' }} }}\n\
                 [backends.b]\nservers = {{ name = 's', address = 'a:1' }}\n"
            );
            let text = text.replace("servers = {", "servers = [{").replace("'a:1' }", "'a:1' }]");
            let config = parse(&text, "test").unwrap_or_else(|errors| panic!("{errors}"));
            wanted(&config.balancer.frontends[0], &Request::get(target).body(()).unwrap().into_parts().0)
        };
        for (path, target, expected) in [
            ("/stats", "/stats", Some(View::Page)),
            ("/stats", "/stats/", Some(View::Page)),
            ("/stats", "/stats?refresh=5", Some(View::Page)),
            ("/stats", "/stats;csv", Some(View::Csv)),
            ("/stats", "/stats/metrics", Some(View::Metrics)),
            ("/stats", "/statsmetrics", None),
            ("/stats", "/statistics", None),
            ("/stats", "/stats/other", None),
            ("/stats", "/metrics", None),
            ("/stats", "/", None),
            ("/", "/", Some(View::Page)),
            ("/", "/;csv", Some(View::Csv)),
            ("/", "/;csv;norefresh", Some(View::Csv)),
            ("/stats", "/stats;norefresh;csv", Some(View::Csv)),
            ("/stats", "/stats/;up;norefresh", Some(View::Page)),
            ("/stats", "/stats;csvs", Some(View::Page)),
            ("/stats", "/stats;json", None),
            ("/stats", "/stats/other;csv", None),
            ("/", "/metrics", Some(View::Metrics)),
            ("/", "/stats", None),
        ] {
            assert_eq!(view(path, target), expected, "{path} {target}");
        }
    }

    #[test]
    fn the_page_comes_again_after_some_seconds() {
        assert_eq!(refresh("refresh=5"), Some(5));
        assert_eq!(refresh("a=b&refresh=60"), Some(60));
        for query in ["", "refresh", "refresh=0", "refresh=-1", "refresh=3601", "refresh=5s"] {
            assert_eq!(refresh(query), None, "{query}");
        }
    }
}
