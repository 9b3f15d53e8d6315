//! What the tests put around a peer link: a proxy that cuts it, a process that can be killed, a log that is read.

use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use socket2::SockRef;
use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::LIMIT;

#[derive(Clone, Copy)]
pub(super) enum Cut {
    Fin,
    Reset,
}

/// Between a peer and us: cuts a connection while both processes live.
pub(super) struct Proxy {
    pub(super) address: SocketAddr,
    cuts: mpsc::Sender<Cut>,
    accepted: mpsc::Receiver<()>,
}

impl Proxy {
    pub(super) async fn start(target: SocketAddr) -> Proxy {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (cuts, mut cut) = mpsc::channel(1);
        let (accept, accepted) = mpsc::channel(16);
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let mut far = TcpStream::connect(target).await.unwrap();
                let _ = accept.send(()).await;
                tokio::select! {
                    _ = copy_bidirectional(&mut near, &mut far) => {}
                    kind = cut.recv() => {
                        if let Some(Cut::Reset) = kind {
                            SockRef::from(&near).set_linger(Some(Duration::ZERO)).unwrap();
                        }
                    }
                }
            }
        });
        Proxy { address, cuts, accepted }
    }

    /// Returns when the connection that is there is cut and the peer has dialled again.
    pub(super) async fn cut(&mut self, cut: Cut) {
        self.accepted.recv().await;
        self.cuts.send(cut).await.unwrap();
        timeout(LIMIT, self.accepted.recv()).await.expect("the peer dials again");
    }
}

/// What is logged while a test runs.
pub(super) struct Log {
    lines: Arc<Mutex<Vec<u8>>>,
    _subscriber: tracing::subscriber::DefaultGuard,
}

impl Log {
    pub(super) fn start() -> Log {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || Lines(writer.clone())).finish();
        Log { lines, _subscriber: tracing::subscriber::set_default(subscriber) }
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8(self.lines.lock().unwrap().clone()).unwrap()
    }
}

struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        io::Write::write(&mut *self.0.lock().unwrap(), bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(super) const PEER_VARIABLE: &str = "RELEVO_TEST_PEER";

/// lb2, active, in a process of its own: this test binary, running `other_process`.
pub(super) struct OtherProcess {
    child: Child,
    pub(super) address: SocketAddr,
}

impl OtherProcess {
    pub(super) fn start(lb1: SocketAddr) -> OtherProcess {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "keeper::peering::tests::other_process", "--ignored", "--nocapture"])
            .env(PEER_VARIABLE, lb1.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let address = lines.filter_map(|line| line.strip_prefix("listens on ")?.parse().ok()).next();
        OtherProcess { child, address: address.expect("the other process says where it listens") }
    }

    pub(super) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    pub(super) fn wait(&mut self) {
        self.child.wait().unwrap();
    }
}

impl Drop for OtherProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
