//! A text with variables in braces: `https://{host}{uri}`.

use std::fmt;

use hyper::header::HeaderValue;
use serde::{Deserialize, Serialize};

/// The value of a header, a location or a path, parts of which are known only with a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Template {
    text: String,
    parts: Vec<Part>,
    constant: Option<HeaderValue>,
}

/// A piece of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// As it stands.
    Text(String),
    /// What it is for a request.
    Variable(Variable),
}

/// What a template can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variable {
    /// The client's address.
    Client,
    /// The request's host, without port.
    Host,
    /// The path, without query.
    Path,
    /// The query, without question mark.
    Query,
    /// Path and query as they came.
    Uri,
    /// The method.
    Method,
    /// `http` or `https`.
    Scheme,
    /// This node's name.
    Node,
    /// The frontend's name.
    Frontend,
    /// The request's id.
    RequestId,
    /// The backend's name: known with the response.
    Backend,
    /// The server's name: known with the response.
    Server,
}

impl Variable {
    const ALL: [(&str, Variable); 12] = [
        ("client", Variable::Client),
        ("host", Variable::Host),
        ("path", Variable::Path),
        ("query", Variable::Query),
        ("uri", Variable::Uri),
        ("method", Variable::Method),
        ("scheme", Variable::Scheme),
        ("node", Variable::Node),
        ("frontend", Variable::Frontend),
        ("request_id", Variable::RequestId),
        ("backend", Variable::Backend),
        ("server", Variable::Server),
    ];

    /// Is it known only when a server has answered?
    pub fn is_of_response(self) -> bool {
        matches!(self, Self::Backend | Self::Server)
    }

    /// As it is written.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, variable)| *variable == self).map_or("", |(name, _)| name)
    }

    /// All names.
    pub fn names() -> impl Iterator<Item = &'static str> {
        Self::ALL.iter().map(|(name, _)| *name)
    }
}

/// Why a text is no template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// There is no such variable.
    #[error("there is no variable `{{{0}}}`")]
    Unknown(String),
    /// A brace alone.
    #[error("a brace is not closed; write `{{{{` and `}}}}` for braces themselves")]
    Unbalanced,
    /// HAProxy's way to name something.
    #[error("expressions in `%[…]` are HAProxy's; here a variable stands in braces, such as `{{client}}`")]
    Expression,
    /// It has more than one line, or bytes that no header can carry.
    #[error("it has control characters")]
    Control,
}

impl Template {
    /// `{name}` is a variable, `{{` and `}}` are braces.
    ///
    /// # Errors
    /// It names what is not known, or is not what a header can carry.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        if text.chars().any(|c| c.is_control() && c != '\t') {
            return Err(TemplateError::Control);
        }
        if text.contains("%[") {
            return Err(TemplateError::Expression);
        }
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, from) = rest.split_at(at);
            literal.push_str(before);
            if let Some(after) = from.strip_prefix("{{") {
                literal.push('{');
                rest = after;
            } else if let Some(after) = from.strip_prefix("}}") {
                literal.push('}');
                rest = after;
            } else {
                let named = from.strip_prefix('{').and_then(|inner| inner.split_once('}'));
                let (name, after) = named.ok_or(TemplateError::Unbalanced)?;
                let variable = Variable::ALL.iter().find(|(known, _)| *known == name);
                let (_, variable) = variable.ok_or_else(|| TemplateError::Unknown(name.to_owned()))?;
                if !literal.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut literal)));
                }
                parts.push(Part::Variable(*variable));
                rest = after;
            }
        }
        literal.push_str(rest);
        let constant = if parts.is_empty() { HeaderValue::from_str(&literal).ok() } else { None };
        if !literal.is_empty() {
            parts.push(Part::Text(literal));
        }
        Ok(Self { text: text.to_owned(), parts, constant })
    }

    /// Its pieces in order.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// What it names.
    pub fn variables(&self) -> impl Iterator<Item = Variable> {
        self.parts.iter().filter_map(|part| match part {
            Part::Variable(variable) => Some(*variable),
            Part::Text(_) => None,
        })
    }

    /// What it always is, if it names no variable.
    pub fn constant(&self) -> Option<&HeaderValue> {
        self.constant.as_ref()
    }
}

/// As it was written.
impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl TryFrom<String> for Template {
    type Error = TemplateError;

    fn try_from(text: String) -> Result<Self, TemplateError> {
        Self::parse(&text)
    }
}

impl From<Template> for String {
    fn from(template: Template) -> String {
        template.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn braces_are_variables_or_braces() {
        let parts = |text: &str| Template::parse(text).map(|template| template.parts);
        let text = |text: &str| Part::Text(text.to_owned());
        assert_eq!(parts("a {{b}} c"), Ok(vec![text("a {b} c")]));
        assert_eq!(
            parts("{scheme}://{host}{{{uri}}}"),
            Ok(vec![
                Part::Variable(Variable::Scheme),
                text("://"),
                Part::Variable(Variable::Host),
                text("{"),
                Part::Variable(Variable::Uri),
                text("}"),
            ])
        );
        assert_eq!(parts(""), Ok(vec![]));
        assert_eq!(parts("{hots}"), Err(TemplateError::Unknown("hots".to_owned())));
        for broken in ["{", "}", "a{host", "host}", "{{host}"] {
            assert_eq!(parts(broken), Err(TemplateError::Unbalanced), "{broken}");
        }
        assert_eq!(parts("%[src]"), Err(TemplateError::Expression));
        assert_eq!(parts("50% [a]"), Ok(vec![text("50% [a]")]));
        for split in ["a\r\nSet-Cookie: b=1", "a\nb", "a\0b", "a\u{85}b"] {
            assert_eq!(parts(split), Err(TemplateError::Control), "{split:?}");
        }
    }
}
