//! Whether this node may take addresses from a router that works: not before its servers have been checked since it was away,
//! and not while fewer of them serve here than there. Pure.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::config::model::Balancer;
use crate::process::messages::FIRST_ROUND;
use crate::status::{BackendStatus, ServerState};

/// What a node needs to hear of others and to reach its servers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Means {
    /// The interface of the virtual router of this name.
    Interface(String),
    /// The link to the peer of this name.
    Link(String),
}

/// How far the checks are that were asked for when something came back.
#[derive(Debug, Default)]
pub(super) struct Readiness {
    /// Of checks, the last that was asked for.
    round: u64,
    /// While it is waited for: until then at most.
    until: Option<Instant>,
    /// What was there at the last look.
    there: BTreeSet<Means>,
}

/// The election of one virtual router, and what is known of servers.
pub(super) struct Situation<'a> {
    /// This node is active.
    pub(super) is_active: bool,
    /// Its servers.
    pub(super) backends: &'a [BackendStatus],
    /// Of those that may be active: what each has said last.
    pub(super) rivals: &'a [Rival<'a>],
}

/// Another node that may be active.
pub(super) struct Rival<'a> {
    pub(super) name: &'a str,
    /// What it says is what is so now, and not what was when it was last heard.
    pub(super) is_linked: bool,
    pub(super) backends: &'a [BackendStatus],
}

/// A round of checks takes no longer.
pub(super) fn patience(config: &Balancer) -> Duration {
    let timeouts = config.backends.iter().map(|backend| backend.health.timeout);
    timeouts.max().unwrap_or_default() + Duration::from_secs(1)
}

impl Readiness {
    /// Another balancer serves: it checks its servers from the first on.
    pub(super) fn serves(&mut self, now: Instant, patience: Duration) {
        (self.round, self.until) = (FIRST_ROUND, Some(now + patience));
    }

    /// What is there now. Where something has come back it gives the round of checks to ask for.
    pub(super) fn look(&mut self, there: BTreeSet<Means>, now: Instant, patience: Duration) -> Option<u64> {
        let before = std::mem::replace(&mut self.there, there);
        // Before it serves, all is to be checked anyway.
        if self.round == 0 || self.there.is_subset(&before) {
            return None;
        }
        self.round += 1;
        self.until = Some(now + patience);
        Some(self.round)
    }

    /// Every server has been checked in this round, or an earlier one.
    pub(super) fn checked(&mut self, round: u64, now: Instant) {
        if self.until.is_some_and(|until| round >= self.round || now >= until) {
            self.until = None;
        }
    }

    /// When to look again, whatever happens.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.until
    }

    /// May it take the addresses from a router that works? If not, why.
    pub(super) fn judge(&self, situation: &Situation<'_>) -> Result<(), String> {
        if self.until.is_some() && !situation.is_active {
            return Err("its servers have not all been checked since it came back".to_owned());
        }
        situation.rivals.iter().try_for_each(|rival| compare(situation.backends, rival))
    }
}

fn compare(own: &[BackendStatus], rival: &Rival<'_>) -> Result<(), String> {
    for backend in own {
        let Some(theirs) = rival.backends.iter().find(|theirs| theirs.name == backend.name) else { continue };
        let (here, there) = (usable(backend), usable(theirs));
        if here < there {
            let (name, peer) = (&backend.name, rival.name);
            let when = if rival.is_linked { "" } else { ", when it was last heard" };
            return Err(format!("backend {name} has {here} usable servers here, and {there} at {peer}{when}"));
        }
    }
    Ok(())
}

fn usable(backend: &BackendStatus) -> usize {
    backend.servers.iter().filter(|server| server.state == ServerState::Up).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::ServerStatus;

    const PATIENCE: Duration = Duration::from_secs(3);

    fn app(up: usize) -> Vec<BackendStatus> {
        let server = |index| ServerStatus {
            state: if index < up { ServerState::Up } else { ServerState::Down },
            ..ServerStatus::default()
        };
        let servers = (0..3).map(server).collect();
        vec![BackendStatus { name: "app".into(), servers, ..BackendStatus::default() }]
    }

    fn all() -> BTreeSet<Means> {
        [Means::Interface("main".into()), Means::Link("lb2".into())].into()
    }

    fn without(what: &Means) -> BTreeSet<Means> {
        all().into_iter().filter(|means| means != what).collect()
    }

    fn judge(readiness: &Readiness, is_active: bool, here: usize, there: Option<usize>) -> Result<(), String> {
        judge_of(readiness, is_active, here, there, true)
    }

    fn judge_of(
        readiness: &Readiness,
        is_active: bool,
        here: usize,
        there: Option<usize>,
        is_linked: bool,
    ) -> Result<(), String> {
        let (here, there) = (app(here), there.map(app));
        let rivals: Vec<_> = there.iter().map(|backends| Rival { name: "lb2", is_linked, backends }).collect();
        readiness.judge(&Situation { is_active, backends: &here, rivals: &rivals })
    }

    #[test]
    fn a_backup_is_ready_when_its_servers_were_checked_since_it_came_back_or_the_time_is_over() {
        let now = Instant::now();
        for back in all() {
            let mut readiness = Readiness::default();
            assert_eq!(readiness.look(all(), now, PATIENCE), None, "it does not serve yet");
            readiness.serves(now, PATIENCE);
            assert!(judge(&readiness, false, 3, None).is_err());
            assert_eq!(judge(&readiness, true, 3, None), Ok(()), "it has them: whose should they be?");
            readiness.checked(FIRST_ROUND - 1, now);
            assert!(judge(&readiness, false, 3, None).is_err());
            readiness.checked(FIRST_ROUND, now);
            assert_eq!(judge(&readiness, false, 3, None), Ok(()));

            assert_eq!(readiness.look(without(&back), now, PATIENCE), None);
            assert_eq!(judge(&readiness, false, 3, None), Ok(()));
            assert_eq!(readiness.look(all(), now, PATIENCE), Some(FIRST_ROUND + 1), "{back:?}");
            assert_eq!(readiness.look(all(), now, PATIENCE), None, "asked once");
            readiness.checked(FIRST_ROUND, now + PATIENCE - Duration::from_millis(1));
            assert!(judge(&readiness, false, 3, None).is_err());
            readiness.checked(FIRST_ROUND, now + PATIENCE);
            assert_eq!((judge(&readiness, false, 3, None), readiness.deadline()), (Ok(()), None));
        }
    }

    #[test]
    fn whoever_reaches_fewer_servers_is_not_ready() {
        let readiness = Readiness::default();
        for is_active in [false, true] {
            assert_eq!(judge(&readiness, is_active, 2, Some(2)), Ok(()));
            assert_eq!(judge(&readiness, is_active, 3, Some(2)), Ok(()));
            assert_eq!(judge(&readiness, is_active, 0, None), Ok(()), "nobody is known to do better");
            let reason = judge(&readiness, is_active, 1, Some(3)).unwrap_err();
            assert_eq!(reason, "backend app has 1 usable servers here, and 3 at lb2");
            let reason = judge_of(&readiness, is_active, 1, Some(3), false).unwrap_err();
            assert!(reason.ends_with("and 3 at lb2, when it was last heard"), "{reason}");
        }
    }

    #[test]
    fn backends_of_one_node_alone_are_not_compared() {
        let mut theirs = app(3);
        theirs[0].name = "other".into();
        assert_eq!(compare(&app(0), &Rival { name: "lb2", is_linked: true, backends: &theirs }), Ok(()));
    }
}
