//! Sessions kept by a cookie.

use hyper::HeaderMap;

use crate::config::model::{CookiePersistence, Server};

/// The server that the client's cookie names, if there is one of that name.
pub fn requested_server(_cookie: &CookiePersistence, _servers: &[Server], _headers: &HeaderMap) -> Option<usize> {
    None
}

/// Take from the request what the server is not to see.
pub fn prepare_request(_cookie: &CookiePersistence, _servers: &[Server], _headers: &mut HeaderMap) {}

/// Put into the response what brings the client back to `server`. `client_had_it`: its cookie named this very server.
pub fn prepare_response(_cookie: &CookiePersistence, _server: &Server, _client_had_it: bool, _headers: &mut HeaderMap) {
}
