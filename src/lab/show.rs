//! The demo as a person sees it: the state of the pair, a running stream of requests, and keys that do harm.

use std::io::Write;
use std::path::PathBuf;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::error::{Context, Result};
use super::fault::{Fault, Struck};
use super::node::{ask, is_active};
use super::outage::{Attempt, Outage};
use super::pair::{FLOATING, NODE_ADDRESSES, NODES, Pair, servers_up};
use super::terminal::{Key, Terminal, read_keys, wrapped};
use crate::status::{BalancerState, PairStatus};

/// Between two lines of the stream.
const LINE: Duration = Duration::from_millis(500);
/// Between two questions to the nodes.
const ASK: Duration = Duration::from_millis(200);
/// So long must all be well before an outage counts as over.
const WELL: Duration = Duration::from_millis(500);

const KEYS: &str = r"  k  kill -9 all processes of the active node      c  cut its network cable
  f  freeze it (SIGSTOP to all its processes)      p  drop its frames silently
  b  bring everything back                         s  stop a web server
  ?  these keys                                    q  quit
";

/// Shows a pair until somebody quits.
pub struct Show<'a> {
    pair: &'a mut Pair,
    harm: Vec<(Fault, usize, Struck)>,
    shown: [String; 2],
    /// The last fault whose outage was not told yet.
    struck: Option<Instant>,
    last_line: Instant,
}

enum Event {
    Key(Key),
    Status(Box<[Option<PairStatus>; 2]>),
}

impl From<Key> for Event {
    fn from(key: Key) -> Self {
        Self::Key(key)
    }
}

impl<'a> Show<'a> {
    /// Of a pair that is ready.
    pub fn new(pair: &'a mut Pair) -> Self {
        Self { pair, harm: Vec::new(), shown: Default::default(), struck: None, last_line: Instant::now() }
    }

    /// Until `q` or the end of stdin.
    pub fn run(mut self, terminal: &Terminal) -> Result<()> {
        say(&format!("{}\n{KEYS}", introduction(self.pair)))?;
        if !terminal.is_there() {
            say("Input is not a terminal: keys are read as they come, until q or the end of input.\n")?;
        }
        terminal.deliver_keys();
        let (sender, events) = mpsc::channel();
        read_keys(sender.clone());
        follow_status(self.pair.nodes.each_ref().map(|node| node.control_socket()), sender);
        loop {
            match events.recv_timeout(LINE.saturating_sub(self.last_line.elapsed())) {
                Ok(Event::Key(Key::Character('q') | Key::End)) => return Ok(()),
                Ok(Event::Key(Key::Character(key))) => self.press(key)?,
                Ok(Event::Status(status)) => self.show_changes(&status)?,
                Err(RecvTimeoutError::Timeout) => self.show_requests()?,
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    }

    fn press(&mut self, key: char) -> Result<()> {
        match key {
            'k' => self.strike(Fault::AllKilled),
            'c' => self.strike(Fault::CarrierLost),
            'p' => self.strike(Fault::Partitioned),
            'f' => self.strike(Fault::Frozen),
            'b' => self.bring_back(),
            's' => self.stop_server(),
            _ => say(&format!("\n{KEYS}")),
        }
    }

    fn strike(&mut self, fault: Fault) -> Result<()> {
        let Some(active) = self.pair.active() else {
            return say(">>> there is no single active node to do that to; b brings everything back");
        };
        say(&format!(">>> {} on {}", fault.name(), NODES[active]))?;
        match fault.strike(self.pair, active) {
            Ok(struck) => {
                self.struck = Some(struck.at());
                self.harm.push((fault, active, struck));
                Ok(())
            }
            Err(error) => say(&format!(">>> {error}")),
        }
    }

    fn bring_back(&mut self) -> Result<()> {
        say(">>> bringing everything back")?;
        // A node that was frozen and then killed is thawed before it is buried: the last harm goes first.
        while let Some((fault, node, struck)) = self.harm.pop() {
            fault.undo(self.pair, node, struck)?;
        }
        self.pair.servers.iter_mut().try_for_each(|server| server.start())
    }

    fn stop_server(&mut self) -> Result<()> {
        match self.pair.servers.iter_mut().find(|server| server.is_running()) {
            Some(server) => {
                say(&format!(">>> stopping {}", server.name()))?;
                server.stop();
                Ok(())
            }
            None => say(">>> no server runs; b brings everything back"),
        }
    }

    fn show_changes(&mut self, status: &[Option<PairStatus>; 2]) -> Result<()> {
        for (index, status) in status.iter().enumerate() {
            let line = node_line(index, status.as_ref());
            if self.shown[index] != line {
                say(&format!("    {line}"))?;
                self.shown[index] = line;
            }
        }
        Ok(())
    }

    fn show_requests(&mut self) -> Result<()> {
        let attempts = self.pair.prober.attempts(self.last_line);
        self.last_line = Instant::now();
        say(&request_line(&attempts))?;
        if let Some(struck) = self.struck.filter(|struck| self.is_over(*struck)) {
            say(&format!(">>> {}", outage_line(&self.pair.prober.outage(struck))))?;
            self.struck = None;
        }
        Ok(())
    }

    /// All is well, and nobody hangs who began before it was.
    fn is_over(&self, struck: Instant) -> bool {
        let prober = &self.pair.prober;
        struck.elapsed() > WELL && prober.is_well(WELL) && prober.all_over_before(Instant::now() - WELL)
    }
}

/// A line, or several.
pub fn say(text: &str) -> Result<()> {
    write(&(wrapped(text) + "\n"))
}

/// Whoever reads a pipe wants the text as it comes.
pub(super) fn write(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    written.context(|| "cannot write to standard output".into())
}

/// What there is, for somebody who sees it for the first time.
pub fn introduction(pair: &Pair) -> String {
    let servers: Vec<&str> = pair.servers.iter().map(|server| server.name()).collect();
    format!(
        "A pair of load balancers on this machine, in network namespaces of its own:\n\n  client ──► {FLOATING} ──► {} or \
         {} ──► {}\n\nOne node is active and holds the floating IP {FLOATING}; the other takes\n\
         over when it fails. A client asks every 2 ms, each time on a new connection.\n\
         An outage lasts from the start of its first request that fails or takes over\n\
         50 ms to the start of the one after which all are well. A request already under\n\
         way when a node dies may hang for seconds or fail; that alone does not make the\n\
         outage longer.\n",
        NODES[0],
        NODES[1],
        servers.join(", ")
    )
}

/// A line for a node.
pub fn node_line(index: usize, status: Option<&PairStatus>) -> String {
    let name = NODES[index];
    let Some(PairStatus { node, .. }) = status else { return format!("{name}  does not answer") };
    let Some(router) = super::node::router(node) else { return format!("{name}  has no virtual router") };
    let role = match (is_active(node), node.can_take_over) {
        (true, _) => format!("ACTIVE, holds {FLOATING}"),
        (false, true) => "backup, can take over".to_owned(),
        (false, false) => {
            format!("{:?}, cannot take over: {}", router.state, node.cannot_take_over_because).to_lowercase()
        }
    };
    let balancer = match node.balancer.state {
        BalancerState::Serving => "balancer serves",
        // It does not know its servers yet.
        BalancerState::Starting => return format!("{name}  {role}; balancer starts"),
        BalancerState::Down => "balancer is down",
    };
    let up = servers_up(node);
    let all: usize = node.backends.iter().map(|backend| backend.servers.len()).sum();
    format!("{name}  {role}; {balancer}, {up} of {all} servers up")
}

/// The last request of a span, and the span in figures.
fn request_line(attempts: &[Attempt]) -> String {
    let Some(last) = attempts.last() else { return "  no request was answered; they hang".to_owned() };
    let took = last.took.as_secs_f64() * 1e3;
    let last = match &last.outcome {
        Ok(answer) => format!("client ─► {} ─► {}  {took:6.1} ms", node_name(&answer.node), answer.server),
        Err(failure) => format!("client ─► {failure} after {took:.1} ms"),
    };
    let failed = attempts.iter().filter(|attempt| attempt.outcome.is_err()).count();
    let slowest = attempts.iter().map(|attempt| attempt.took).max().unwrap_or_default().as_secs_f64() * 1e3;
    format!("  {last}   ({} requests, {failed} failed, slowest {slowest:.1} ms)", attempts.len())
}

/// For people.
pub fn outage_line(outage: &Outage) -> String {
    if outage.duration.is_zero() {
        return format!("no outage: none of {} requests failed or took over 50 ms", outage.attempts);
    }
    let duration = outage.duration.as_secs_f64() * 1e3;
    let longest = outage.longest.as_secs_f64() * 1e3;
    let Outage { failed, slow, attempts, .. } = outage;
    format!(
        "an outage of {duration:.1} ms: of {attempts} requests {failed} failed and {slow} took over 50 ms, the longest \
         {longest:.1} ms"
    )
}

fn node_name(address: &str) -> &str {
    let index = NODE_ADDRESSES.iter().position(|own| own.to_string() == address);
    index.map_or(address, |index| NODES[index])
}

/// Asks both nodes again and again; one that hangs delays the news of the other by its time limit, not the demo.
fn follow_status(sockets: [PathBuf; 2], events: mpsc::Sender<Event>) {
    std::thread::spawn(move || {
        loop {
            let status = sockets.each_ref().map(|socket| ask(socket).ok());
            if events.send(Event::Status(Box::new(status))).is_err() {
                return;
            }
            std::thread::sleep(ASK);
        }
    });
}
