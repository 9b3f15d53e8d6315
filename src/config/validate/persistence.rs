//! `backends.NAME.cookie` and `backends.NAME.stick`: how sessions are kept, and what goes with one way of it alone.

use std::ops::Range;
use std::time::Duration;

use toml::Spanned;

use super::{Checker, plain};
use crate::config::file::{self, Table};
use crate::config::model::{CookieAttributes, CookieMode, CookiePersistence, InsertedCookie, SameSite, Stick, StickBy};
use crate::config::value::{CookieWord, FromText, StickWord, Text, Token};

impl Checker<'_> {
    pub(super) fn cookie(&mut self, written: Spanned<Table<file::Cookie>>) -> Option<CookiePersistence> {
        let place = written.span();
        let Table(written) = written.into_inner();
        let file::Cookie {
            name,
            mode,
            indirect,
            nocache,
            postonly,
            httponly,
            secure,
            domain,
            same_site,
            max_idle,
            max_life,
        } = written;
        let name = self.required(name, &place, "name", Token::ACCEPTED);
        let mode = self.required(mode, &place, "mode", CookieWord::ACCEPTED);
        let flags = [&indirect, &nocache, &postonly].map(|flag| flag.as_ref().map(Spanned::span));
        let others = [max_idle.as_ref().map(Spanned::span), max_life.as_ref().map(Spanned::span)];
        let is_set = |flag: Option<Spanned<bool>>, default| flag.map_or(default, Spanned::into_inner);
        let mode = match mode?.0 {
            CookieWord::Insert => CookieMode::Insert(InsertedCookie {
                indirect: is_set(indirect, true),
                nocache: is_set(nocache, false),
                postonly: is_set(postonly, false),
                max_idle: self.age(max_idle),
                max_life: self.age(max_life),
            }),
            other => {
                for place in flags.into_iter().chain(others).flatten() {
                    self.problem(place, "this is a key of mode \"insert\" alone", "the cookie is the application's");
                }
                if other == CookieWord::Prefix { CookieMode::Prefix } else { CookieMode::Rewrite }
            }
        };
        let attributes = CookieAttributes {
            // That of an application most often has it, and is to keep it.
            httponly: is_set(httponly, !matches!(mode, CookieMode::Insert(_))),
            secure: is_set(secure, false),
            domain: plain(domain.map(Spanned::into_inner)).map(|domain| domain.0),
            same_site: same_site.as_ref().map(|same_site| same_site.get_ref().0),
        };
        if let Some(same_site) = same_site.filter(|same_site| same_site.get_ref().0 == SameSite::None)
            && !attributes.secure
        {
            self.problem(same_site.span(), "browsers take such a cookie with `secure` alone", "add `secure = true`");
        }
        Some(CookiePersistence { name: name?.into_inner().0.0, mode, attributes })
    }

    /// Ages of cookies are counted in seconds.
    fn age(&mut self, written: Option<Spanned<Text<Duration>>>) -> Option<Duration> {
        let written = written?;
        let age = written.get_ref().0;
        if age < Duration::from_secs(1) {
            self.problem(written.span(), "expected at least one second", format!("found {age:?}"));
        }
        Some(age)
    }

    /// `cookie` is where the name of the backend's persistence cookie stands, and that name.
    pub(super) fn stick(
        &mut self,
        written: Spanned<Table<file::Stick>>,
        cookie: Option<(Range<usize>, &str)>,
    ) -> Option<Stick> {
        let place = written.span();
        let Table(file::Stick { by, name, expire, size }) = written.into_inner();
        let by = self.required(by, &place, "by", StickWord::ACCEPTED)?.into_inner().0;
        let by = match by {
            StickWord::Source => {
                if let Some(name) = &name {
                    let message = "this is a key of \"header\" and \"cookie\" alone";
                    self.problem(name.span(), message, "a session is known by its client's address");
                }
                StickBy::Source
            }
            StickWord::Header => {
                let accepted = "a header's, as in `{ by = \"header\", name = \"X-User\" }`";
                let name = self.required(name, &place, "name", accepted)?;
                StickBy::Header(name.into_inner().0.0.to_ascii_lowercase())
            }
            StickWord::Cookie => {
                let accepted = "a cookie's, as in `{ by = \"cookie\", name = \"JSESSIONID\" }`";
                let name = self.required(name, &place, "name", accepted)?;
                if let Some((cookie, _)) = cookie.filter(|(_, cookie)| *cookie == name.get_ref().0.0) {
                    let message = "the table goes by the application's cookie";
                    self.conflict(name.span(), message, "this one carries the server", cookie, "here");
                }
                StickBy::Cookie(name.into_inner().0.0)
            }
        };
        Some(Stick {
            by,
            expire: plain(expire).unwrap_or(Duration::from_secs(30 * 60)),
            size: size.map_or(100_000, |size| size.0 as usize),
        })
    }
}
