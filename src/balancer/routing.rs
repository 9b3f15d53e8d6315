//! Which backend a request goes to: the frontend's routes in order, then its default.

use crate::config::model::{BackendIndex, Frontend, Route};

/// The first route whose every list has a match, else the default backend; `None` is answered with 404.
///
/// `host` is what the request named, with or without port, in any case; `path` has no query and is compared byte by byte,
/// its percent-encoding left alone.
pub fn route(frontend: &Frontend, host: Option<&str>, path: &str) -> Option<BackendIndex> {
    let host = host.map(host_name).unwrap_or_default();
    let matching = frontend.routes.iter().find(|route| matches(route, host, path));
    matching.map(|route| route.backend).or(frontend.default_backend)
}

fn matches(route: &Route, host: &str, path: &str) -> bool {
    let one_of = |list: &[String], holds: &dyn Fn(&str) -> bool| list.is_empty() || list.iter().any(|item| holds(item));

    one_of(&route.host, &|name| host_name(name).eq_ignore_ascii_case(host))
        && one_of(&route.path_prefix, &|prefix| path.starts_with(prefix))
        && one_of(&route.path_suffix, &|suffix| path.ends_with(suffix))
        && one_of(&route.path, &|whole| path == whole)
}

/// Without port, without the root's dot; an IPv6 literal with or without its brackets.
fn host_name(host: &str) -> &str {
    if let Some((literal, _port)) = host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return literal;
    }
    let name = match host.split_once(':') {
        Some((_, more)) if more.contains(':') => return host,
        Some((name, _port)) => name,
        None => host,
    };
    name.strip_suffix('.').unwrap_or(name)
}
