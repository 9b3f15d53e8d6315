//! Two network namespaces joined by a wire, each with a thread and a runtime of its own.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd as _;
use std::process::Command;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressProtocol};
use nix::sched::{CloneFlags, unshare};
use relevo_ha::address::ADDRESS_PROTOCOL;
use relevo_ha::{RouterStatus, VirtualAddress};
use rtnetlink::{Handle, LinkUnspec, LinkVeth, MulticastGroup};
use tokio::sync::{oneshot, watch};

/// The interface's name on both nodes.
pub(crate) const INTERFACE: &str = "eth1";
const PROMOTE_SECONDARIES: &str = "/proc/sys/net/ipv4/conf/eth1/promote_secondaries";
/// Far longer than anything awaited here takes.
const PATIENCE: Duration = Duration::from_secs(10);

/// Both ends of the wire.
pub(crate) struct Pair {
    pub(crate) one: Node,
    pub(crate) two: Node,
}

/// Runs a test on a fresh pair, as root of this machine or of a user namespace.
pub(crate) fn with_pair<Test: AsyncFnOnce(&Pair)>(test: Test) {
    if !nix::unistd::geteuid().is_root() {
        return run_again_as_root_of_a_user_namespace::<Test>();
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let pair = Pair { one: Node::start().await, two: Node::start().await };
        pair.join().await;
        tokio::time::timeout(3 * PATIENCE, test(&pair)).await.expect("the test takes too long");
    });
}

/// A user namespace is only for a process with one thread, which a test is not: it is run again in a process of its own.
fn run_again_as_root_of_a_user_namespace<Test>() {
    // The type of a closure is named after the function it is in.
    let test = std::any::type_name::<Test>().split("::").nth(1).unwrap();
    let unshare = |program: &str| {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--net", program]);
        command
    };
    match unshare("true").output() {
        Ok(output) if output.status.success() => (),
        failed => {
            return eprintln!(
                "{test} did not run: it takes root or a user namespace, and there is neither: {failed:?}"
            );
        }
    }
    let program = std::env::current_exe().unwrap();
    let status = unshare(program.to_str().unwrap()).args(["--exact", test, "--nocapture"]).status().unwrap();
    assert!(status.success(), "{test} failed in a user namespace");
}

impl Pair {
    /// Lays the wire: 192.0.2.1 on one side, 192.0.2.2 on the other.
    pub(crate) async fn join(&self) {
        let theirs = self.two.namespace.as_raw_fd();
        self.one
            .run(async move {
                let handle = netlink();
                handle.link().add(LinkVeth::new(INTERFACE, "wire").build()).execute().await.unwrap();
                let other_end = LinkUnspec::new_with_name("wire").setns_by_fd(theirs).build();
                handle.link().set(other_end).execute().await.unwrap();
            })
            .await;
        self.two
            .run(async {
                let rename = LinkUnspec::new_with_index(index("wire").await).name(INTERFACE).build();
                netlink().link().set(rename).execute().await.unwrap();
            })
            .await;
        for (node, own) in [(&self.one, Ipv4Addr::new(192, 0, 2, 1)), (&self.two, Ipv4Addr::new(192, 0, 2, 2))] {
            node.add_address(own, 24).await;
            node.set_up(true).await;
        }
    }
}

/// One namespace.
pub(crate) struct Node {
    runtime: tokio::runtime::Handle,
    namespace: File,
    _ends_the_thread: oneshot::Sender<()>,
}

impl Node {
    async fn start() -> Node {
        let (started, has_started) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let namespace = File::open("/proc/thread-self/ns/net").unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let _ = started.send((runtime.handle().clone(), namespace));
            let _ = runtime.block_on(ended);
        });
        let (runtime, namespace) = has_started.await.expect("no namespace");
        Node { runtime, namespace, _ends_the_thread: end }
    }

    /// Runs something in the namespace.
    pub(crate) async fn run<T: Send + 'static>(&self, what: impl Future<Output = T> + Send + 'static) -> T {
        self.runtime.spawn(what).await.unwrap()
    }

    pub(crate) async fn add_address(&self, address: Ipv4Addr, prefix_length: u8) {
        self.run(async move {
            let add = netlink().address().add(index(INTERFACE).await, IpAddr::V4(address), prefix_length);
            add.execute().await.unwrap();
        })
        .await;
    }

    pub(crate) async fn delete_address(&self, address: Ipv4Addr) {
        self.run(async move {
            let message = addresses().await.into_iter().find(|message| local(message) == Some(address)).unwrap();
            netlink().address().del(message).execute().await.unwrap();
        })
        .await;
    }

    /// These and no others, in this order; the kernel keeps none whose first of its subnet goes.
    pub(crate) async fn set_addresses(&self, order: &[Ipv4Addr]) {
        self.forbid_promotion().await;
        self.run(async {
            for message in addresses().await {
                // It may have gone with another.
                let _ = netlink().address().del(message).execute().await;
            }
        })
        .await;
        for &address in order {
            self.add_address(address, 24).await;
        }
    }

    /// All that it has, in their order.
    pub(crate) async fn addresses(&self) -> Vec<Ipv4Addr> {
        self.run(async { addresses().await.iter().filter_map(local).collect() }).await
    }

    pub(crate) async fn forbid_promotion(&self) {
        self.run(async { std::fs::write(PROMOTE_SECONDARIES, "0").unwrap() }).await;
    }

    /// Waits until the kernel keeps the others when the first address of a subnet goes.
    pub(crate) async fn until_promotion(&self) {
        let wait = self.run(async {
            while std::fs::read_to_string(PROMOTE_SECONDARIES).unwrap().trim() != "1" {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        tokio::time::timeout(PATIENCE, wait).await.expect("promote_secondaries stays 0");
    }

    pub(crate) async fn set_up(&self, up: bool) {
        self.run(async move {
            let link = LinkUnspec::new_with_index(index(INTERFACE).await);
            let link = if up { link.up() } else { link.down() };
            netlink().link().set(link.build()).execute().await.unwrap();
        })
        .await;
    }

    /// Has the kernel refuse to send any advert, if nftables is there.
    pub(crate) async fn forbid_adverts(&self) -> bool {
        const RULES: &str = "add table ip mute; add chain ip mute output { type filter hook output priority 0; }; \
                             add rule ip mute output ip protocol 112 drop";
        self.run(async {
            // What it starts is in this thread's namespace.
            let output = match Command::new("nft").arg(RULES).output() {
                Ok(output) => output,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return false,
                Err(error) => panic!("nft: {error}"),
            };
            assert!(output.status.success(), "nft: {}", String::from_utf8_lossy(&output.stderr));
            true
        })
        .await
    }

    /// As it is written.
    pub(crate) async fn hardware_address(&self) -> String {
        // The directory of this thread's namespace is mounted nowhere.
        self.run(async {
            let output = Command::new("ip").args(["-o", "link", "show", INTERFACE]).output().unwrap();
            let line = String::from_utf8(output.stdout).unwrap();
            line.split_whitespace().skip_while(|word| *word != "link/ether").nth(1).unwrap().to_owned()
        })
        .await
    }

    /// Deletes the interface, and with it the wire.
    pub(crate) async fn delete_interface(&self) {
        self.run(async { netlink().link().del(index(INTERFACE).await).execute().await.unwrap() }).await;
    }

    /// The address as the kernel has it.
    pub(crate) async fn address(&self, address: Ipv4Addr) -> Option<AddressMessage> {
        self.run(async move { addresses().await.into_iter().find(|message| local(message) == Some(address)) }).await
    }

    /// Waits for notifications until the address is there, or gone.
    pub(crate) async fn until_address(&self, address: Ipv4Addr, present: bool) {
        let wait = self.run(async move {
            let (connection, _handle, mut events) =
                rtnetlink::new_multicast_connection(&[MulticastGroup::Ipv4Ifaddr]).unwrap();
            tokio::spawn(connection);
            while addresses().await.iter().any(|message| local(message) == Some(address)) != present {
                events.next().await;
            }
        });
        tokio::time::timeout(PATIENCE, wait).await.expect("the address is not as awaited");
    }
}

/// Waits until the only router is as described.
pub(crate) async fn until(
    status: &mut watch::Receiver<Vec<RouterStatus>>,
    what: &str,
    is_so: impl Fn(&RouterStatus) -> bool,
) -> RouterStatus {
    let wait = status.wait_for(|routers| is_so(&routers[0]));
    if let Ok(routers) = tokio::time::timeout(PATIENCE, wait).await {
        return routers.unwrap()[0].clone();
    }
    panic!("not {what}: {:?}", status.borrow()[0]);
}

/// Whether the address carries our mark, and the seconds it is valid for.
pub(crate) fn lease(message: &AddressMessage) -> (bool, u32) {
    let marked = AddressAttribute::Protocol(AddressProtocol::Other(ADDRESS_PROTOCOL));
    let valid = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::CacheInfo(lifetime) => Some(lifetime.ifa_valid),
        _ => None,
    });
    (message.attributes.contains(&marked), valid.unwrap())
}

/// Adds an address as a keeper would have left it.
pub(crate) async fn leave_behind(node: &Node, left: VirtualAddress) {
    node.run(async move {
        let mut add = netlink().address().add(index(INTERFACE).await, IpAddr::V4(left.address), left.prefix_length);
        let mark = AddressAttribute::Protocol(AddressProtocol::Other(ADDRESS_PROTOCOL));
        add.message_mut().attributes.push(mark);
        add.execute().await.unwrap();
    })
    .await;
}

fn netlink() -> Handle {
    let (connection, handle, _) = rtnetlink::new_connection().unwrap();
    tokio::spawn(connection);
    handle
}

async fn index(name: &str) -> u32 {
    let link = netlink().link().get().match_name(name.to_owned()).execute().try_next().await.unwrap();
    link.expect("no such interface").header.index
}

async fn addresses() -> Vec<AddressMessage> {
    let all: Vec<AddressMessage> = netlink().address().get().execute().try_collect().await.unwrap();
    all.into_iter().filter(|message| message.header.family == AddressFamily::Inet).collect()
}

fn local(message: &AddressMessage) -> Option<Ipv4Addr> {
    message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(IpAddr::V4(address)) => Some(*address),
        _ => None,
    })
}

/// Blocks a thread of its own until `read` returns; a socket read there must have a timeout.
pub(crate) async fn blocking<T: Send + 'static>(read: impl FnOnce() -> io::Result<T> + Send + 'static) -> T {
    tokio::task::spawn_blocking(read).await.unwrap().expect("nothing arrived in time")
}
