//! What is done where servers fail: further attempts, connections that are kept or not, pages of one's own.

use std::ops::Range;

use toml::Spanned;

use super::{Checker, in_file_order};
use crate::config::error_page;
use crate::config::file;
use crate::config::model::{ErrorPages, Retry, RetryBudget};
use crate::config::value::{OneOrMany, RetryOn};

impl Checker<'_> {
    /// `errors`: the files are read here, since the balancer's process sees none.
    pub(super) fn error_pages(&mut self, written: Option<&Spanned<file::ErrorFiles>>) -> ErrorPages {
        let mut pages = ErrorPages::new();
        let Some(written) = written else { return pages };
        for (status, path) in in_file_order(written.get_ref()) {
            let Some(status) = status.get_ref().parse().ok().filter(|status| (400..=599).contains(status)) else {
                let found = format!("found `{}`", status.get_ref().escape_debug());
                self.problem(status.span(), "expected a status from 400 to 599", found);
                continue;
            };
            let place = path.span();
            let path = &path.get_ref().0;
            match (self.machine.read)(path) {
                Err(error) => self.problem(place, "expected a file that can be read", error.to_string()),
                Ok(bytes) => match error_page::parse(path, bytes, status) {
                    Err(error) => self.problem(place, "expected a file with an answer", error),
                    Ok(page) => drop(pages.insert(status, page)),
                },
            }
        }
        pages
    }
}

pub(super) fn retry(written: &file::Backend) -> Retry {
    let default = Retry::default();
    let mut retry = Retry {
        connection_failure: written.retry_on.is_none(),
        non_idempotent: written.retry_non_idempotent.as_ref().is_some_and(|it| *it.get_ref()),
        buffer: written.buffer_request.as_ref().map(|bytes| bytes.get_ref().0 as usize),
        budget: match &written.retry_budget {
            None => default.budget,
            Some(budget) => {
                let file::RetryBudget { percent, min_per_second } = budget.get_ref().0;
                RetryBudget {
                    percent: percent.map_or(default.budget.percent, |percent| percent.0),
                    min_per_second: min_per_second.map_or(default.budget.min_per_second, |number| number.0),
                }
            }
        },
        ..default
    };
    let words = written.retry_on.clone().map(|words| OneOrMany::values(words.into_inner())).unwrap_or_default();
    for word in words {
        match word.0 {
            RetryOn::ConnectionFailure => retry.connection_failure = true,
            RetryOn::EmptyResponse => retry.empty_response = true,
            RetryOn::JunkResponse => retry.junk_response = true,
            RetryOn::ResponseTimeout => retry.response_timeout = true,
            RetryOn::Status(status) => retry.statuses.push(status),
            RetryOn::All => {
                (retry.connection_failure, retry.empty_response) = (true, true);
                (retry.junk_response, retry.response_timeout) = (true, true);
                retry.statuses.extend([500, 502, 503, 504]);
            }
        }
    }
    retry.statuses.sort_unstable();
    retry.statuses.dedup();
    retry
}

/// Where `retry_on` has more than a connection that fails.
pub(super) fn retried_after_an_answer(written: &file::Backend) -> Option<Range<usize>> {
    let retry = retry(written);
    written.retry_on.as_ref().filter(|_| retry.repeats()).map(Spanned::span)
}
