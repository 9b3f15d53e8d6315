//! What is written of a condition: in a route beside its backend, in a rule under `when`.

use serde::Deserialize;
use toml::Spanned;

use super::{Number, OneOrMany, Table, Text, Token};
use crate::config::model::{FieldName, MethodName, Network, Pattern};
use crate::config::value::{
    FieldValue, HostPattern, HostSuffix, ParameterName, PathDirectory, PathSuffix, RouteHost, UrlPath,
};

/// One value or several, any of which is enough.
type Values<T> = Option<Spanned<OneOrMany<T>>>;
type Conditions = Option<Spanned<Vec<Spanned<Table<Condition>>>>>;

/// The keys of a condition, and those of the table it is written in.
macro_rules! with_condition {
    ($(#[$attribute:meta])* $name:ident { $($key:ident: $type:ty,)* }) => {
        $(#[$attribute])*
        #[derive(Debug, Default, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub(in crate::config) struct $name {
            pub(in crate::config) host: Values<Text<RouteHost>>,
            pub(in crate::config) host_suffix: Values<Text<HostSuffix>>,
            pub(in crate::config) host_regex: Values<Text<HostPattern>>,
            pub(in crate::config) path: Values<Text<UrlPath>>,
            pub(in crate::config) path_prefix: Values<Text<UrlPath>>,
            pub(in crate::config) path_suffix: Values<Text<PathSuffix>>,
            pub(in crate::config) path_directory: Values<Text<PathDirectory>>,
            pub(in crate::config) path_regex: Values<Text<Pattern>>,
            pub(in crate::config) method: Values<Text<MethodName>>,
            pub(in crate::config) header: Values<Table<NamedTest<FieldName>>>,
            pub(in crate::config) cookie: Values<Table<NamedTest<Token>>>,
            pub(in crate::config) query: Values<Table<NamedTest<ParameterName>>>,
            pub(in crate::config) source: Values<Text<Network>>,
            pub(in crate::config) destination_port: Values<Number<1, 65535>>,
            pub(in crate::config) any: Conditions,
            pub(in crate::config) all: Conditions,
            pub(in crate::config) not: Option<Box<Spanned<Table<Condition>>>>,
            $(pub(in crate::config) $key: $type,)*
        }
    };
}

with_condition! {
    /// `when`, and what is in `any`, `all` and `not`.
    Condition {}
}

with_condition! {
    /// `[[frontends.NAME.routes]]`
    Route { backend: Option<Spanned<String>>, }
}

impl Route {
    /// Its own key and its condition.
    pub(in crate::config) fn split(self) -> (Option<Spanned<String>>, Condition) {
        let Route {
            host,
            host_suffix,
            host_regex,
            path,
            path_prefix,
            path_suffix,
            path_directory,
            path_regex,
            method,
            header,
            cookie,
            query,
            source,
            destination_port,
            any,
            all,
            not,
            backend,
        } = self;
        let condition = Condition {
            host,
            host_suffix,
            host_regex,
            path,
            path_prefix,
            path_suffix,
            path_directory,
            path_regex,
            method,
            header,
            cookie,
            query,
            source,
            destination_port,
            any,
            all,
            not,
        };
        (backend, condition)
    }
}

/// The `name` of a header, a cookie or a parameter, and what is asked of its value.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default, bound = "Text<N>: Deserialize<'de>")]
pub(in crate::config) struct NamedTest<N> {
    pub(in crate::config) name: Option<Text<N>>,
    pub(in crate::config) value: Values<Text<FieldValue>>,
    pub(in crate::config) prefix: Values<Text<FieldValue>>,
    pub(in crate::config) suffix: Values<Text<FieldValue>>,
    pub(in crate::config) regex: Values<Text<Pattern>>,
}

impl<N> Default for NamedTest<N> {
    fn default() -> Self {
        Self { name: None, value: None, prefix: None, suffix: None, regex: None }
    }
}
