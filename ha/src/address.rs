//! Virtual addresses in the kernel: leased for a while, never given for good, and marked so that what is left behind can be
//! told from what others added.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use futures_util::TryStreamExt as _;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressProtocol, CacheInfo};
use nix::errno::Errno;
use rtnetlink::{AddressMessageBuilder, Handle};
use thiserror::Error;

use crate::clock::InTime;
use crate::interface_settings;
use crate::router::VirtualAddress;

/// The mark (IFA_PROTO, `proto` in the output of `ip address`) of every address that is ours: VRRP's protocol number.
pub const ADDRESS_PROTOCOL: u8 = 112;

/// The kernel answers as soon as it has done what was asked; an answer that is not there by then was lost.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// A list that is made while addresses come and go may miss one.
const ROUNDS: usize = 3;

/// What the kernel did not do.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Error {
    #[error("cannot open a netlink socket: {0}")]
    Open(#[source] io::Error),
    #[error("cannot list the addresses of this host: {0}")]
    List(#[source] io::Error),
    #[error("cannot lease {address}: {source}{}", advice(source))]
    Lease { address: VirtualAddress, source: io::Error },
    #[error("cannot lease {0} any more: it is too late, another router may hold it by now")]
    TooLate(VirtualAddress),
    #[error("cannot remove {address}: {source}{}", advice(source))]
    Remove { address: VirtualAddress, source: io::Error },
    #[error(
        "cannot set promote_secondaries, without which {address} takes other addresses of its subnet along: {source}{}",
        advice(source)
    )]
    Setting { address: VirtualAddress, source: io::Error },
}

fn advice(source: &io::Error) -> &'static str {
    if source.raw_os_error() == Some(Errno::EPERM as i32) {
        " (it takes root, or the capability CAP_NET_ADMIN)"
    } else {
        ""
    }
}

/// Removes every address that carries our mark, on any interface; returns what was removed.
///
/// # Errors
/// The kernel lists or removes nothing for us.
pub async fn release_all() -> Result<Vec<(String, VirtualAddress)>, Error> {
    Releaser::new()?.release_all().await
}

/// Ready to remove our addresses: its socket is open.
pub struct Releaser(Addresses);

impl Releaser {
    /// Opens the socket. Must be called on a tokio runtime, which must run while [`release_all`](Self::release_all) does.
    ///
    /// # Errors
    /// No socket is to be had.
    pub fn new() -> Result<Releaser, Error> {
        Addresses::open().map(Releaser).map_err(Error::Open)
    }

    /// Removes every address that carries our mark, on any interface; returns what was removed.
    ///
    /// # Errors
    /// The kernel lists them not, or removes one not; the others are removed even so.
    pub async fn release_all(&self) -> Result<Vec<(String, VirtualAddress)>, Error> {
        let mut released = Vec::new();
        let mut failure = None;
        for _ in 0..ROUNDS {
            let marked = self.0.marked().await?;
            if marked.is_empty() {
                return Ok(released);
            }
            for (index, address) in marked {
                match self.0.remove(index, address).await {
                    Ok(true) => released.push((interface_name(index), address)),
                    Ok(false) => (),
                    Err(error) => failure = Some(error),
                }
            }
        }
        failure.map_or(Ok(released), Err)
    }
}

/// A netlink socket for changing addresses. The kernel may keep whoever writes to it waiting (for a lock that every change
/// of the network takes), so it is not for a thread that must be in time.
pub(crate) struct Addresses {
    handle: Handle,
}

impl Addresses {
    /// Must be called on a tokio runtime.
    pub(crate) fn open() -> io::Result<Addresses> {
        let (connection, handle, _unsolicited) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        Ok(Addresses { handle })
    }

    /// For reading.
    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Adds the address, or makes its lease `seconds` long again, if that is in time.
    ///
    /// The prefix route is the kernel's own affair: it adds one where the subnet has none yet.
    pub(crate) async fn lease(
        &self,
        index: u32,
        address: VirtualAddress,
        seconds: u32,
        in_time: &InTime,
    ) -> Result<(), Error> {
        let mut request =
            self.handle.address().add(index, IpAddr::V4(address.address), address.prefix_length).replace();
        let mut lifetime = CacheInfo::default();
        lifetime.ifa_valid = seconds;
        lifetime.ifa_preferred = seconds;
        request.message_mut().attributes.extend([
            AddressAttribute::CacheInfo(lifetime),
            AddressAttribute::Protocol(AddressProtocol::Other(ADDRESS_PROTOCOL)),
        ]);
        if let Err(source) = interface_settings::apply(&self.handle, index).await {
            return Err(Error::Setting { address, source });
        }
        // Nothing else runs on this thread between this look at the clock and the system call.
        if !in_time.is_now() {
            return Err(Error::TooLate(address));
        }
        match answer(request.execute()).await {
            Ok(()) => (),
            Err(error) if error.raw_os_error() == Some(Errno::EEXIST as i32) => (),
            Err(source) => return Err(Error::Lease { address, source }),
        }
        // The call itself can have waited for the kernel's lock, or been suspended with the process.
        if !in_time.is_now() {
            self.remove(index, address).await?;
            return Err(Error::TooLate(address));
        }
        Ok(())
    }

    /// Removes the address and no other; false if it was not there.
    pub(crate) async fn remove(&self, index: u32, address: VirtualAddress) -> Result<bool, Error> {
        match interface_settings::apply(&self.handle, index).await {
            Ok(()) => (),
            Err(error) if is_absent(&error) => return Ok(false),
            Err(source) => return Err(Error::Setting { address, source }),
        }
        let message = AddressMessageBuilder::<Ipv4Addr>::new()
            .index(index)
            .address(address.address, address.prefix_length)
            .build();
        match answer(self.handle.address().del(message).execute()).await {
            Ok(()) => Ok(true),
            Err(error) if is_absent(&error) => Ok(false),
            Err(source) => Err(Error::Remove { address, source }),
        }
    }

    async fn marked(&self) -> Result<Vec<(u32, VirtualAddress)>, Error> {
        let listed: Vec<AddressMessage> =
            answer(self.handle.address().get().execute().try_collect()).await.map_err(Error::List)?;
        Ok(listed.iter().filter(|message| is_marked(message)).filter_map(virtual_address).collect())
    }
}

/// Whether it is one of ours.
pub(crate) fn is_marked(message: &AddressMessage) -> bool {
    message.attributes.contains(&AddressAttribute::Protocol(AddressProtocol::Other(ADDRESS_PROTOCOL)))
}

/// The interface's index and the IPv4 address of a message.
pub(crate) fn virtual_address(message: &AddressMessage) -> Option<(u32, VirtualAddress)> {
    if message.header.family != AddressFamily::Inet {
        return None;
    }
    message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(IpAddr::V4(address)) => {
            Some((message.header.index, VirtualAddress { address: *address, prefix_length: message.header.prefix_len }))
        }
        _ => None,
    })
}

fn is_absent(error: &io::Error) -> bool {
    [Errno::EADDRNOTAVAIL, Errno::ENODEV, Errno::EAFNOSUPPORT]
        .iter()
        .any(|absent| error.raw_os_error() == Some(*absent as i32))
}

/// Of an interface that is gone its number.
pub(crate) fn interface_name(index: u32) -> String {
    nix::net::if_::if_indextoname(index)
        .map_or_else(|_gone| format!("interface {index}"), |name| name.to_string_lossy().into_owned())
}

/// What the kernel answers, as the error number it is.
pub(crate) async fn answer<T>(request: impl Future<Output = Result<T, rtnetlink::Error>>) -> io::Result<T> {
    match tokio::time::timeout(ANSWER_TIMEOUT, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(rtnetlink::Error::NetlinkError(message))) => Err(message.to_io()),
        Ok(Err(error)) => Err(io::Error::other(error)),
        Err(_elapsed) => Err(io::Error::new(io::ErrorKind::TimedOut, "the kernel did not answer")),
    }
}

#[cfg(test)]
mod tests {
    use nix::sched::{CloneFlags, unshare};

    use super::*;
    use crate::clock;
    use crate::election::Time;

    const LOOPBACK_INDEX: u32 = 1;
    const ADDRESS: VirtualAddress = VirtualAddress { address: Ipv4Addr::new(192, 0, 2, 20), prefix_length: 24 };

    #[test]
    fn an_address_is_taken_in_time_or_not_at_all() {
        // A test has a thread of its own, and so may have a network of its own.
        if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
            return eprintln!("did not run: it takes root, to make a network namespace: {error}");
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let addresses = Addresses::open().unwrap();
            let in_time = InTime::default();
            let lease = || addresses.lease(LOOPBACK_INDEX, ADDRESS, 1, &in_time);
            let soon = || Time(clock::now().0 + 60_000_000);

            assert!(matches!(lease().await, Err(Error::TooLate(ADDRESS))), "its router is not active");
            assert_eq!(addresses.marked().await.unwrap(), []);

            in_time.set(Some(soon()));
            lease().await.unwrap();
            lease().await.unwrap();
            assert_eq!(addresses.marked().await.unwrap(), [(LOOPBACK_INDEX, ADDRESS)]);

            in_time.set(Some(clock::now()));
            assert!(matches!(lease().await, Err(Error::TooLate(ADDRESS))));

            assert!(addresses.remove(LOOPBACK_INDEX, ADDRESS).await.unwrap());
            assert!(!addresses.remove(LOOPBACK_INDEX, ADDRESS).await.unwrap());
        });
    }
}
