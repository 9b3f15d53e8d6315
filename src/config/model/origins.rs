//! Where the parts of a configuration were in the one before, by their names: what was counted and found out goes with them.

use super::{Backend, Balancer};

/// Of a whole configuration; `None` is what was not there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origins {
    /// By index of the frontend: its index before.
    pub frontends: Vec<Option<usize>>,
    /// By index of the backend.
    pub backends: Vec<BackendOrigin>,
}

/// Of a backend.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BackendOrigin {
    /// Its index before.
    pub index: Option<usize>,
    /// By index of the server: its index before, in the backend that had this name.
    pub servers: Vec<Option<usize>>,
}

impl Origins {
    /// What each part of `new` was in `old`.
    pub fn find(new: &Balancer, old: &Balancer) -> Self {
        let frontend = |name: &String| old.frontends.iter().position(|frontend| frontend.name == *name);
        Self {
            frontends: new.frontends.iter().map(|new| frontend(&new.name)).collect(),
            backends: new.backends.iter().map(|new| BackendOrigin::find(new, &old.backends)).collect(),
        }
    }

    /// Where everything is new.
    pub fn none(new: &Balancer) -> Self {
        let backend = |new: &Backend| BackendOrigin { index: None, servers: vec![None; new.servers.len()] };
        Self { frontends: vec![None; new.frontends.len()], backends: new.backends.iter().map(backend).collect() }
    }
}

impl BackendOrigin {
    fn find(new: &Backend, old: &[Backend]) -> Self {
        let index = old.iter().position(|old| old.name == new.name);
        let servers = index.and_then(|index| old.get(index)).map_or(&[][..], |old| &old.servers);
        let server = |name: &String| servers.iter().position(|server| server.name == *name);
        Self { index, servers: new.servers.iter().map(|new| server(&new.name)).collect() }
    }
}
