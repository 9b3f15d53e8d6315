//! What a template is for a request, and later for its response.

use std::io::Write;
use std::net::IpAddr;

use hyper::header::HeaderValue;
use hyper::http::request::Parts;

use crate::balancer::routing::condition::{Subject, host};
use crate::balancer::session::Session;
use crate::config::model::{Part, Template, Variable};

/// What variables are taken from.
#[derive(Clone, Copy)]
pub(super) struct Facts<'a> {
    /// The connection it came on.
    pub(super) session: &'a Session,
    /// Whom it comes from.
    pub(super) source: IpAddr,
    /// The request as it is now.
    pub(super) head: &'a Parts,
}

/// A template of which only the server is unknown.
pub(super) enum Resolved {
    /// All of it is known.
    Ready(Option<HeaderValue>),
    /// Texts, each before a variable of the response, and the last one.
    Late(Vec<(Vec<u8>, Variable)>, Vec<u8>),
}

impl<'a> Facts<'a> {
    /// The same for conditions.
    pub(super) fn subject(&self) -> Subject<'a> {
        Subject { source: self.source, destination_port: self.session.destination_port, request: Some(self.head) }
    }

    /// The text of a template; variables of the response are empty.
    pub(super) fn text(&self, template: &Template) -> Vec<u8> {
        let mut text = Vec::new();
        for part in template.parts() {
            match part {
                Part::Text(part) => text.extend_from_slice(part.as_bytes()),
                Part::Variable(variable) => self.write(*variable, &mut text),
            }
        }
        text
    }

    /// The value of a header; `None` where there is nothing to say. No variable can end a line: what cannot be in a header
    /// is refused whole.
    pub(super) fn value(&self, template: &Template) -> Option<HeaderValue> {
        match template.constant() {
            Some(constant) => Some(constant.clone()),
            None => header_value(self.text(template)),
        }
    }

    /// As far as the request goes.
    pub(super) fn resolve(&self, template: &Template) -> Resolved {
        if !template.variables().any(Variable::is_of_response) {
            return Resolved::Ready(self.value(template));
        }
        let (mut pieces, mut text) = (Vec::new(), Vec::new());
        for part in template.parts() {
            match part {
                Part::Text(part) => text.extend_from_slice(part.as_bytes()),
                Part::Variable(variable) if variable.is_of_response() => {
                    pieces.push((std::mem::take(&mut text), *variable));
                }
                Part::Variable(variable) => self.write(*variable, &mut text),
            }
        }
        Resolved::Late(pieces, text)
    }

    /// As it stands in a URL: an IPv6 address in brackets.
    pub(super) fn write_host(&self, text: &mut Vec<u8>) {
        let host = host(self.head).as_bytes();
        let [open, close]: [&[u8]; 2] = if host.contains(&b':') { [b"[", b"]"] } else { [b"", b""] };
        for part in [open, host, close] {
            text.extend_from_slice(part);
        }
    }

    fn write(&self, variable: Variable, text: &mut Vec<u8>) {
        let uri = &self.head.uri;
        let frontend = self.session.frontend();
        let known: &str = match variable {
            Variable::Client => {
                // Writing into memory does not fail.
                let _ = write!(text, "{}", self.source);
                return;
            }
            Variable::RequestId => {
                let id = frontend.request_id.as_ref().and_then(|id| self.head.headers.get(&id.header.0));
                text.extend_from_slice(id.map(HeaderValue::as_bytes).unwrap_or_default());
                return;
            }
            Variable::Host => return self.write_host(text),
            Variable::Path => uri.path(),
            Variable::Query => uri.query().unwrap_or_default(),
            Variable::Uri => uri.path_and_query().map_or("/", |uri| uri.as_str()),
            Variable::Method => self.head.method.as_str(),
            Variable::Scheme => self.session.scheme(),
            Variable::Node => &self.session.worker.shared.config.node,
            Variable::Frontend => &frontend.name,
            Variable::Backend | Variable::Server => "",
        };
        text.extend_from_slice(known.as_bytes());
    }
}

impl Resolved {
    /// With what is known of the response; both are empty where no server was asked.
    pub(super) fn finish(self, backend: &str, server: &str) -> Option<HeaderValue> {
        let (pieces, rest) = match self {
            Self::Ready(value) => return value,
            Self::Late(pieces, rest) => (pieces, rest),
        };
        let mut text = Vec::new();
        for (before, variable) in pieces {
            text.extend_from_slice(&before);
            text.extend_from_slice(if variable == Variable::Server { server } else { backend }.as_bytes());
        }
        text.extend_from_slice(&rest);
        header_value(text)
    }
}

fn header_value(text: Vec<u8>) -> Option<HeaderValue> {
    HeaderValue::from_maybe_shared(bytes::Bytes::from(text)).ok().filter(|value| !value.is_empty())
}
