//! The format of a log's line in HAProxy's language ("Custom log format" in its manual), parsed once.

use serde::{Deserialize, Serialize};

use super::nearest::nearest;

/// A line's parts, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogFormat(pub Vec<Part>);

/// A part of a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Part {
    /// As it is.
    Text(String),
    /// One space, unless there is one already: what is empty leaves none behind.
    Space,
    /// Something of the request.
    Field {
        /// What.
        field: Field,
        /// Between quotation marks.
        is_quoted: bool,
    },
}

macro_rules! fields {
    ($($name:literal $field:ident $what:literal,)*) => {
        /// What a line can say of a request.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
        pub enum Field {
            $(#[doc = $what] $field,)*
        }

        impl Field {
            /// With their names behind `%`.
            pub const NAMED: &[(&str, Field)] = &[$(($name, Field::$field),)*];
        }
    };
}

fields! {
    "B" BytesSent "Bytes sent to the client.",
    "CC" RequestCookie "The captured cookie of the request.",
    "CS" ResponseCookie "The captured cookie of the response.",
    "H" Node "This node's name.",
    "HM" Method "The request's method.",
    "HP" Path "Its path; with the host where that was in the request line.",
    "HPO" PathOnly "Its path alone.",
    "HQ" Query "Its query, from `?` on.",
    "HU" Target "All of its target.",
    "HV" Version "Its version.",
    "ST" Status "The response's status.",
    "ID" RequestId "The request's id, where there is one.",
    "T" DateUtc "Of the connection, in UTC.",
    "Ta" ActiveTime "From the request's first byte to the response's last.",
    "Tc" ConnectTime "Until the server's connection was there.",
    "Td" DataTime "The response's body.",
    "Th" HandshakeTime "TLS and the like.",
    "Ti" IdleTime "Before the request's first byte.",
    "Tl" DateLocal "Of the connection, in local time.",
    "Tq" RequestAndIdleTime "Ti, Th and TR.",
    "TR" RequestTime "The request's head.",
    "Tr" ResponseTime "Until the response's head was there.",
    "Ts" Timestamp "Of the connection, in seconds since 1970.",
    "Tt" TotalTime "Ti and Ta.",
    "Tu" UserTime "As the client sees it.",
    "Tw" QueueTime "Until a server was free.",
    "U" BytesReceived "Bytes of the client.",
    "ac" Connections "Of this process.",
    "b" Backend "Its name.",
    "bc" BackendConnections "At the backend.",
    "bq" BackendQueue "Requests before this one in the backend's queue.",
    "ci" ClientAddress "The client's address.",
    "cp" ClientPort "The client's port.",
    "f" Frontend "Its name.",
    "fc" FrontendConnections "At the frontend.",
    "ft" FrontendTransport "Its name, with `~` for TLS.",
    "hr" RequestHeaders "Captured, between braces.",
    "hrl" RequestHeaderList "Captured, one by one.",
    "hs" ResponseHeaders "Captured, between braces.",
    "hsl" ResponseHeaderList "Captured, one by one.",
    "ms" Milliseconds "Of the connection's date.",
    "pid" ProcessId "Of the balancer.",
    "r" RequestLine "As it came.",
    "rc" Retries "With `+` where it went to another server.",
    "rt" RequestCount "Requests so far.",
    "s" Server "Its name.",
    "sc" ServerConnections "At the server.",
    "si" ServerAddress "The server's address.",
    "sp" ServerPort "The server's port.",
    "sq" ServerQueue "Requests before this one in the server's queue.",
    "t" Date "Of the connection, with milliseconds.",
    "tr" RequestDate "Of the request's first byte, with milliseconds.",
    "trg" RequestDateUtc "Of the request's first byte, in UTC.",
    "trl" RequestDateLocal "Of the request's first byte, in local time.",
    "ts" Termination "Who ended it and when.",
    "tsc" TerminationAndCookies "The same, and what became of the session's cookies.",
}

/// HAProxy's fields that have no counterpart here yet.
const LATER: [&str; 9] = ["bi", "bp", "fi", "fp", "lc", "sslc", "sslv", "o", "Tus"];

/// HAProxy's `option httplog`.
pub const HTTP_LOG: &str = "%ci:%cp [%tr] %ft %b/%s %TR/%Tw/%Tc/%Tr/%Ta %ST %B %CC %CS %tsc %ac/%fc/%bc/%sc/%rc %sq/%bq \
                            %hr %hs %{+Q}r";
/// HAProxy's `option tcplog`.
pub const TCP_LOG: &str = "%ci:%cp [%t] %ft %b/%s %Tw/%Tc/%Tt %B %ts %ac/%fc/%bc/%sc/%rc %sq/%bq";

impl LogFormat {
    /// Of a text.
    ///
    /// # Errors
    /// What is wrong with it, in a sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.chars().any(char::is_control) {
            return Err("a line has no control characters".to_owned());
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            if first == '%' {
                let (part, behind) = percent(rest)?;
                push(&mut parts, part);
                rest = behind;
            } else if first == ' ' {
                push(&mut parts, Part::Space);
                rest = rest.trim_start_matches(' ');
            } else {
                let end = rest.find(['%', ' ']).unwrap_or(rest.len());
                push(&mut parts, Part::Text(rest[..end].to_owned()));
                rest = &rest[end..];
            }
        }
        Ok(Self(parts))
    }
}

fn push(parts: &mut Vec<Part>, part: Part) {
    match (parts.last_mut(), part) {
        (Some(Part::Text(text)), Part::Text(more)) => text.push_str(&more),
        (_, part) => parts.push(part),
    }
}

/// What begins with `%`, and what is behind it.
fn percent(text: &str) -> Result<(Part, &str), String> {
    let behind = &text[1..];
    if let Some(rest) = behind.strip_prefix('%') {
        return Ok((Part::Text("%".to_owned()), rest));
    }
    if behind.starts_with('[') {
        return Err("expressions in `%[…]` are not supported in this version".to_owned());
    }
    let (is_quoted, behind) = match behind.strip_prefix('{') {
        None => (false, behind),
        Some(flags) => match flags.split_once('}') {
            Some(("+Q", rest)) => (true, rest),
            Some(("-Q", rest)) => (false, rest),
            Some((flags, _)) => return Err(format!("the flags `{{{flags}}}` are not supported; `{{+Q}}` is")),
            None => return Err("`%{` is not closed".to_owned()),
        },
    };
    let end = behind.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(behind.len());
    let (name, rest) = behind.split_at(end);
    if let Some((_, field)) = Field::NAMED.iter().find(|(known, _)| *known == name) {
        return Ok((Part::Field { field: *field, is_quoted }, rest));
    }
    Err(match name {
        "" => "`%` is followed by the name of a field; `%%` is the character".to_owned(),
        name if LATER.contains(&name) => format!("`%{name}` is not supported in this version"),
        name => match near(name) {
            Some(known) => format!("there is no field `%{name}`; did you mean `%{known}`?"),
            None => format!("there is no field `%{name}`"),
        },
    })
}

/// Names are short: the one in another case is meant, one that begins it (text came close behind), or one like it.
fn near(name: &str) -> Option<&'static str> {
    let names = || Field::NAMED.iter().map(|(known, _)| *known);
    let same = names().find(|known| known.eq_ignore_ascii_case(name));
    let beginning = || names().filter(|known| name.starts_with(known)).max_by_key(|known| known.len());
    same.or_else(|| nearest(name, names())).or_else(beginning)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_is_texts_spaces_and_fields() {
        let field = |field, is_quoted| Part::Field { field, is_quoted };
        let text = |text: &str| Part::Text(text.to_owned());
        let parts = LogFormat::parse("a%%b:%ci  [%tr]%{+Q}r ").unwrap().0;
        let expected = [
            text("a%b:"),
            field(Field::ClientAddress, false),
            Part::Space,
            text("["),
            field(Field::RequestDate, false),
            text("]"),
            field(Field::RequestLine, true),
            Part::Space,
        ];
        assert_eq!(parts, expected);
    }

    #[test]
    fn haproxys_own_formats_are_formats() {
        assert!(LogFormat::parse(HTTP_LOG).is_ok() && LogFormat::parse(TCP_LOG).is_ok());
    }

    #[test]
    fn what_is_no_field_is_said_with_what_may_be_meant() {
        for (text, words) in [
            ("%st", "did you mean `%ST`?"),
            ("%cip", "did you mean `%ci`?"),
            ("%zz", "there is no field `%zz`"),
            ("100%", "`%%` is the character"),
            ("%[src]", "`%[…]`"),
            ("%sslv", "not supported in this version"),
            ("%{+E}r", "`{+E}`"),
            ("%{+Q", "not closed"),
            ("a\nb", "control characters"),
        ] {
            let error = LogFormat::parse(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
