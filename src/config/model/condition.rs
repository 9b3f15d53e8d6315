//! What a route or a rule asks of a request.

use std::fmt;
use std::net::IpAddr;

use hyper::Method;
use hyper::header::HeaderName;
use ipnet::IpNet;
use regex::bytes::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};

/// All of its tests must hold. Without tests it always does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition(pub Vec<Test>);

/// One key of a condition: one of its values must hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Test {
    /// The host in lower case, without port.
    Host(Vec<String>),
    /// Its end, in lower case.
    HostSuffix(Vec<String>),
    /// A part of it, in any case.
    HostRegex(Vec<Pattern>),
    /// The whole path.
    Path(Vec<String>),
    /// Its beginning.
    PathPrefix(Vec<String>),
    /// Its end.
    PathSuffix(Vec<String>),
    /// Whole segments, anywhere in it; without slashes at either end.
    PathDirectory(Vec<String>),
    /// A part of it.
    PathRegex(Vec<Pattern>),
    /// The method.
    Method(Vec<MethodName>),
    /// A header of the request.
    Header(Vec<HeaderTest>),
    /// A cookie of the request.
    Cookie(Vec<NamedTest>),
    /// A parameter of the query.
    Query(Vec<NamedTest>),
    /// Where the client is.
    Source(Vec<Network>),
    /// The port that the client connected to.
    DestinationPort(Vec<u16>),
    /// One of these holds.
    Any(Vec<Condition>),
    /// All of these hold.
    All(Vec<Condition>),
    /// This does not hold.
    Not(Box<Condition>),
}

/// A cookie or a parameter, by its name, as written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedTest {
    /// Compared with regard to case.
    pub name: String,
    /// One value of this name must hold.
    pub value: ValueTest,
}

/// A header, by its name, in any case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeaderTest {
    /// In lower case.
    pub name: FieldName,
    /// One value of this name must hold.
    pub value: ValueTest,
}

/// What is asked of a value: each list that is not empty must have a match. With none, it is enough that it is there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValueTest {
    /// The whole value.
    pub value: Vec<String>,
    /// Its beginning.
    pub prefix: Vec<String>,
    /// Its end.
    pub suffix: Vec<String>,
    /// A part of it.
    pub regex: Vec<Pattern>,
}

/// A network, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network(IpNet);

impl Network {
    /// `192.0.2.0/24`, `2001:db8::/32`, or an address alone.
    pub fn parse(text: &str) -> Option<Self> {
        text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).ok().map(Self)
    }

    /// Is the address in it?
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address)
    }

    /// Without what stands in the address beyond the prefix.
    pub fn trunc(&self) -> Self {
        Self(self.0.trunc())
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A regular expression over bytes, compiled, that is found in time linear in the length of what is searched and, at worst, in
/// its own size.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern(Regex);

/// The most that a compiled pattern may take. At worst each byte that is searched is looked at by all of it, so this is what
/// keeps the longest head that a client can send from holding a worker for so long that it is taken for hanging:
/// `x.{0,5000}y` would.
const MOST_COMPILED: usize = 48 << 10;

/// The most that a thread may remember of its search.
const MOST_REMEMBERED: usize = 1 << 20;

impl Pattern {
    /// Classes such as `\w` are those of ASCII.
    ///
    /// # Errors
    /// It is none, or too big when compiled.
    pub fn new(text: &str) -> Result<Self, regex::Error> {
        let mut builder = RegexBuilder::new(text);
        builder
            .unicode(false)
            .size_limit(MOST_COMPILED)
            .dfa_size_limit(MOST_REMEMBERED)
            .nest_limit(50)
            .build()
            .map(Self)
    }

    /// The compiled form.
    pub fn regex(&self) -> &Regex {
        &self.0
    }

    /// Is it found in there?
    pub fn is_match(&self, text: &[u8]) -> bool {
        self.0.is_match(text)
    }

    /// The first group that a replacement names and the pattern has not: nothing would stand there. A name goes as far as letters,
    /// digits and `_` do, `$1a` is the group `1a`; braces end it sooner.
    pub fn missing_group<'text>(&self, replacement: &'text str) -> Option<&'text str> {
        let mut rest = replacement;
        while let Some((_, behind)) = rest.split_once('$') {
            if let Some(behind) = behind.strip_prefix('$') {
                rest = behind; // a dollar itself
                continue;
            }
            let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let name = match behind.strip_prefix('{') {
                Some(braced) => braced.split_once('}').map_or("", |(name, _)| name),
                None => behind.split(|c| !is_of_name(c)).next().unwrap_or_default(),
            };
            if !name.is_empty() && !self.has_group(name) {
                return Some(name);
            }
            rest = behind;
        }
        None
    }

    fn has_group(&self, name: &str) -> bool {
        match name.parse::<usize>() {
            Ok(number) => number < self.0.captures_len(),
            Err(_) => self.0.capture_names().flatten().any(|known| known == name),
        }
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pattern({:?})", self.as_str())
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Pattern {}

/// A header's name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FieldName(pub HeaderName);

/// A request's method.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MethodName(pub Method);

/// Between the keeper and its balancer they go as they were written.
macro_rules! as_text {
    ($type:ty, |$text:ident| $parse:expr, |$value:ident| $print:expr) => {
        impl TryFrom<String> for $type {
            type Error = String;

            fn try_from($text: String) -> Result<Self, String> {
                $parse
            }
        }

        impl From<$type> for String {
            fn from($value: $type) -> String {
                $print
            }
        }
    };
}

as_text!(Network, |text| Network::parse(&text).ok_or_else(|| format!("{text:?} is no network")), |network| network
    .to_string());
as_text!(Pattern, |text| Pattern::new(&text).map_err(|error| error.to_string()), |pattern| pattern.as_str().to_owned());
as_text!(FieldName, |text| text.parse().map(FieldName).map_err(|_| format!("{text:?} is no header's name")), |name| {
    name.0.as_str().to_owned()
});
as_text!(MethodName, |text| text.parse().map(MethodName).map_err(|_| format!("{text:?} is no method")), |method| {
    method.0.to_string()
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_that_would_explode_is_none() {
        for text in [
            "(a{1000}){1000}",
            "x.{0,500}y",
            "(((a{100}){100}){100}){100}",
            &"(".repeat(1000),
            "(",
            "a{2,1}",
            r"(a)\1",
            "(?=a)",
        ] {
            assert!(Pattern::new(text).is_err(), "{text:.40}");
        }
        let list: String = (0..100).map(|number| format!("|bot{number:04}")).collect();
        for text in
            ["x.{0,200}y", "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", "[A-Za-z0-9-]{1,255}", &format!("none{list}")]
        {
            assert!(Pattern::new(text).is_ok(), "{text:.40}");
        }
        // Where others backtrack for ages.
        let catastrophe = Pattern::new("^(a+)+$").unwrap();
        let mut text = vec![b'a'; 60_000];
        text.push(b'!');
        assert!(!catastrophe.is_match(&text));
    }

    #[test]
    fn a_replacement_names_groups_that_are_there() {
        let pattern = Pattern::new("^/(a)/(?<rest>.*)$").unwrap();
        for replacement in ["/$1", "/${1}a", "/$2/$0", "/$rest", "/${rest}x", "/$$9", "/$", "/$/x", "/a$-"] {
            assert_eq!(pattern.missing_group(replacement), None, "{replacement}");
            let _ = pattern.regex().replace(b"/a/b", replacement.as_bytes());
        }
        for (replacement, missing) in
            [("/$3", "3"), ("/$1a", "1a"), ("/$1/$rests", "rests"), ("/${4}", "4"), ("/$$$5", "5"), ("/$1_", "1_")]
        {
            assert_eq!(pattern.missing_group(replacement), Some(missing), "{replacement}");
        }
    }

    #[test]
    fn networks_contain_their_addresses() {
        let contains =
            |network: &str, address: &str| Network::parse(network).unwrap().contains(address.parse().unwrap());
        assert!(contains("192.0.2.0/24", "192.0.2.255") && !contains("192.0.2.0/24", "192.0.3.0"));
        assert!(contains("192.0.2.7", "192.0.2.7") && !contains("192.0.2.7", "192.0.2.8"));
        assert!(contains("0.0.0.0/0", "192.0.2.7") && !contains("0.0.0.0/0", "::1"));
        assert!(contains("2001:db8::/32", "2001:db8:1::1") && !contains("2001:db8::/32", "2001:db9::1"));
        for text in ["", "192.0.2.0/33", "192.0.2", "example.com", "::/129"] {
            assert_eq!(Network::parse(text), None, "{text}");
        }
    }
}
