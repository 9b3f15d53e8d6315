//! Provisioning: machines with a real systemd, the package, and what becomes of the service when it is killed, stopped,
//! restarted or its machine restarts.

mod ansible;
mod containers;
mod exercises;
mod installation;
mod machines;
mod pair;
mod service;
mod vagrantfile;
