//! `tcp_keep_alive`: what the kernel can do (tcp(7)).

use std::time::Duration;

use toml::Spanned;

use super::Checker;
use crate::config::file::{self, Table};
use crate::config::model::TcpKeepAlive;
use crate::config::value::Text;

/// The kernel counts in seconds, up to so many.
const MOST: u64 = 32_767;

impl Checker<'_> {
    pub(super) fn tcp_keep_alive(&mut self, written: Option<Table<file::TcpKeepAlive>>) -> Option<TcpKeepAlive> {
        let Table(file::TcpKeepAlive { idle, interval, count }) = written?;
        Some(TcpKeepAlive {
            idle: self.whole_seconds(idle),
            interval: self.whole_seconds(interval),
            count: count.map(|count| count.0),
        })
    }

    fn whole_seconds(&mut self, written: Option<Spanned<Text<Duration>>>) -> Option<Duration> {
        let written = written?;
        let time = written.get_ref().0;
        if time.subsec_nanos() != 0 || !(1..=MOST).contains(&time.as_secs()) {
            self.problem(written.span(), "expected whole seconds, from 1s to 9h", format!("found {time:?}"));
        }
        Some(time)
    }
}
