//! What a request is tested by: patterns, networks, names of headers and methods.

use hyper::Method;
use hyper::header::HeaderName;

use super::{FromText, Hint};
use crate::config::model::{FieldName, MethodName, Network, Pattern};

impl FromText for Pattern {
    const ACCEPTED: &'static str = "a regular expression, such as \"^/user/[0-9]+$\"";

    fn from_text(text: &str) -> Result<Self, Hint> {
        Pattern::new(text).map_err(|error| Some(why_none(&error)))
    }
}

/// The library draws the place on several lines, the last of which says what is wrong.
fn why_none(error: &regex::Error) -> String {
    match error {
        regex::Error::CompiledTooBig(limit) => {
            format!("compiled it takes more than {} KiB: repeat less in it, or write several", limit / 1024)
        }
        other => {
            let message = other.to_string();
            let last = message.lines().last().unwrap_or_default();
            last.strip_prefix("error: ").unwrap_or(last).to_owned()
        }
    }
}

/// A pattern for hosts, which have no case.
#[derive(Debug, Clone)]
pub(in crate::config) struct HostPattern(pub(in crate::config) Pattern);

impl FromText for HostPattern {
    const ACCEPTED: &'static str = "a regular expression, such as \"^www[0-9]+[.]example[.]com$\"";

    fn from_text(text: &str) -> Result<Self, Hint> {
        Pattern::from_text(&format!("(?i){text}")).map(HostPattern)
    }
}

impl FromText for Network {
    const ACCEPTED: &'static str =
        "a network or an address, such as \"192.0.2.0/24\", \"192.0.2.7\" or \"2001:db8::/32\"";

    fn from_text(text: &str) -> Result<Self, Hint> {
        let Some(network) = Network::parse(text) else { return Err(None) };
        // Mostly one of the two is mistyped.
        let whole = network.trunc();
        if whole == network { Ok(network) } else { Err(Some(format!("did you mean \"{whole}\"?"))) }
    }
}

impl FromText for FieldName {
    const ACCEPTED: &'static str = "the name of a header, such as \"X-Forwarded-Proto\"";

    fn from_text(text: &str) -> Result<Self, Hint> {
        let without_colon = text.trim_end_matches(':');
        let hint = (without_colon.len() < text.len()).then(|| format!("did you mean \"{without_colon}\"?"));
        HeaderName::from_bytes(text.as_bytes()).map(FieldName).map_err(|_| hint)
    }
}

impl FromText for MethodName {
    const ACCEPTED: &'static str = "a method in capitals, such as \"GET\"";

    fn from_text(text: &str) -> Result<Self, Hint> {
        match Method::from_bytes(text.as_bytes()) {
            Ok(method) if !text.contains(|c: char| c.is_ascii_lowercase()) => Ok(MethodName(method)),
            Ok(_) => Err(Some(format!("did you mean \"{}\"?", text.to_ascii_uppercase()))),
            Err(_) => Err(None),
        }
    }
}
