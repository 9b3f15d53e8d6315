//! What goes wrong is said once and clearly, leaves nothing half done, and disturbs nobody who is served.

mod configuration;
mod mistakes;
#[path = "../rig/mod.rs"]
mod rig;
mod served;
mod strangers;

use std::net::SocketAddr;

use rig::server::Server;

/// A frontend at this address whose server nobody will ask.
fn minimal(web: SocketAddr) -> String {
    with_server(web, Server::nowhere())
}

/// A frontend at this address with this server.
fn with_server(web: SocketAddr, server: SocketAddr) -> String {
    format!(
        "[frontends.web]\nbind = \"{web}\"\ndefault_backend = \"app\"\n\
         [[backends.app.servers]]\nname = \"a\"\naddress = \"{server}\"\ncheck = false\n"
    )
}

/// A virtual router on this interface.
fn vrrp(interface: &str) -> String {
    format!(
        "[vrrp.main]\ninterface = \"{interface}\"\nvirtual_router_id = 51\npriority = 200\naddresses = [\"192.0.2.20/24\"]\n\
         advertisement_interval = \"50ms\"\n"
    )
}

/// The lines of the log that warn of something or worse, and have these words.
fn warnings(messages: &str, words: &str) -> Vec<String> {
    let is_warning = |line: &&str| line.contains(" WARN ") || line.contains(" ERROR ");
    messages.lines().filter(is_warning).filter(|line| line.contains(words)).map(str::to_owned).collect()
}
