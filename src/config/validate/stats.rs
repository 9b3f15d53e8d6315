//! `[stats]` and `frontends.NAME.stats`: where the statistics are shown, and to whom.

use toml::Spanned;

use super::frontends::Bound;
use super::{Checker, plain, timeout};
use crate::config::file::{self, Named, Table};
use crate::config::model::{Capture, ClientTimeouts, ConnectionMode, ErrorPages, Frontend, Mode, Statistics, User};

/// The name of the frontend that `[stats]` makes.
const NAME: &str = "stats";
const REALM: &str = "Relevo statistics";

impl Checker<'_> {
    /// A frontend with nothing but statistics, from its root on.
    pub(super) fn frontend_of_stats(
        &mut self,
        frontends: &Named<file::Frontend>,
        written: Spanned<Table<file::Stats>>,
        defaults: &file::Timeouts,
        bound: &mut Bound,
    ) -> Option<Frontend> {
        let place = written.span();
        let Table(written) = written.into_inner();
        if let Some((name, _)) = frontends.iter().find(|(name, _)| name.get_ref() == NAME) {
            let message = "every frontend has its own name";
            self.conflict(name.span(), message, "is taken", place.clone(), "this makes a frontend of that name");
        }
        if written.listen.is_none() {
            self.missing(&place, "listen", "a list of addresses, such as `listen = [\"127.0.0.1:8404\"]`");
            return None;
        }
        let has_users = !written.users.is_empty() || self.is_refused(&place, "users");
        let binds = self.binds(written.listen, &place, bound)?;
        if !has_users && binds.iter().any(|bind| !bind.address.ip().is_loopback()) {
            let accepted = "who may see them (without, they are only shown on the loopback), such as \
                            `users = { admin = \"secret\" }`";
            self.missing(&place, "users", accepted);
        }
        let timeouts = ClientTimeouts {
            client: timeout(None, &defaults.client, 50),
            http_request: timeout(None, &defaults.http_request, 10),
            http_keep_alive: timeout(None, &defaults.http_keep_alive, 10),
        };
        let statistics = Statistics { path: "/".to_owned(), realm: REALM.to_owned(), users: self.users(written.users) };
        Some(Frontend {
            name: NAME.to_owned(),
            binds,
            mode: Mode::Http,
            rules: Vec::new(),
            routes: Vec::new(),
            default_backend: None,
            forwarding: None,
            trusted_proxies: Vec::new(),
            request_id: None,
            max_connections: None,
            max_connections_per_source: None,
            timeouts,
            capture: Capture::default(),
            statistics: Some(statistics),
            connection: ConnectionMode::default(),
            tcp_keep_alive: None,
            errors: ErrorPages::new(),
        })
    }

    /// The statistics among what a frontend serves.
    pub(super) fn statistics(&mut self, written: Spanned<Table<file::FrontendStats>>) -> Option<Statistics> {
        let place = written.span();
        let Table(file::FrontendStats { path, realm, users }) = written.into_inner();
        let path = self.required(path, &place, "path", "the path of the page, such as \"/stats\"");
        if users.is_empty() {
            self.missing(&place, "users", "who may see them, such as `users = { admin = \"secret\" }`");
        }
        let realm = plain(realm).map_or_else(|| REALM.to_owned(), |realm| realm.0);
        let users = self.users(users);
        let path = path?;
        let text = path.get_ref().0.0.as_str();
        if text.len() > 1 && text.ends_with('/') || text.contains(['?', '#', ';']) {
            let message = "expected the path of the page, such as \"/stats\"";
            self.problem_with_hint(path.span(), message, "", "without `?`, `;`, `#`, or a `/` at its end");
        }
        Some(Statistics { path: path.into_inner().0.0, realm, users })
    }

    fn users(&mut self, written: file::Users) -> Vec<User> {
        let mut users = Vec::new();
        for (name, password) in written {
            if name.get_ref().is_empty() || name.get_ref().chars().any(|c| c == ':' || c.is_control()) {
                self.problem(name.span(), "expected the name of a user, without colon", "");
            }
            users.push(User { name: name.into_inner(), password: password.0 });
        }
        users
    }
}
