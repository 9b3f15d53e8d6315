//! Agent checks: a server says itself how it is, in the language of HAProxy's agents.
//!
//! A line of words: `75%` is that much of its weight, `ready`, `drain` and `maint` what it wants, `up`, `down`, `stopped` and
//! `fail` whether it serves, a reason behind `#`. What a line does not mention stays as it was, and so does everything while
//! there is no answer, or one that is none: whether a server can be reached is what its health check is for.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{info, warn};

use super::chance::Chance;
use super::probe::{Failure, connect};
use crate::balancer::state::{Admin, AgentReport, Place, Shared};
use crate::config::model::{Agent, BackendIndex, Server};
use crate::stats::checks::{Answer, Outcome};
use crate::status::ServerStatus;

/// No line is longer.
const LONGEST: usize = 1024;

/// Until the process ends, or at once if there is no such server, or no agent.
pub(super) async fn watch_agent(shared: Arc<Shared>, backend: BackendIndex, index: usize) {
    let Some(Place { backend: config, server, state, .. }) = shared.server(backend, index) else { return };
    let Some(agent) = &config.agent else { return };
    let mut chance = Chance::new(("agent", &shared.config.node, &config.name, &server.name));
    let mut report = state.agent();
    let mut is_in_trouble = false;
    // At the start all are asked at once, and from then on at any time of the interval.
    let mut is_in_turn = false;
    loop {
        state.end_of_maintenance().await;
        let began = Instant::now();
        if let Some(address) = state.address.load_full() {
            let address = SocketAddr::new(address.ip(), agent.port);
            let name = format_args!("the agent of server {}/{} at {address}", config.name, server.name).to_string();
            let answer = question(agent, server, address).await;
            let line = answer.as_deref().map_err(|failure| failure.words().to_owned());
            let heeded = line.and_then(|line| heed(&report, line));
            state.checks.answered(Answer {
                outcome: outcome(&answer, &heeded),
                duration: began.elapsed(),
                words: ServerStatus::reason_from(heeded.as_ref().err().or(answer.as_ref().ok()).map_or("", |it| it))
                    .into(),
            });
            match heeded {
                Ok(heeded) => {
                    report = heeded;
                    shared.set_agent(backend, index, report.clone());
                    if is_in_trouble {
                        info!("{name} answers again");
                    }
                    is_in_trouble = false;
                }
                Err(trouble) => {
                    if !is_in_trouble {
                        warn!("{name} is of no use until it answers: {trouble}");
                    }
                    is_in_trouble = true;
                }
            }
        }
        let spread = config.health.spread;
        sleep_until(
            began + if is_in_turn { chance.spread(agent.interval, spread) } else { chance.part(agent.interval) },
        )
        .await;
        is_in_turn = true;
    }
}

/// For the statistics.
fn outcome(answer: &Result<String, Failure>, heeded: &Result<AgentReport, String>) -> Outcome {
    match (answer, heeded) {
        (Err(Failure::Node(_)), _) => Outcome::NotChecked,
        (Err(Failure::Server(trouble)), _) => Outcome::from_words(Err(trouble), true),
        (Ok(_), Err(_)) => Outcome::WrongResponse,
        (Ok(_), Ok(report)) if report.down.is_some() => Outcome::SaysDown,
        (Ok(_), Ok(_)) => Outcome::Passed(None),
    }
}

/// One question, one line: within the interval, and no longer than [`LONGEST`].
async fn question(agent: &Agent, server: &Server, address: SocketAddr) -> Result<String, Failure> {
    let answer = async {
        let mut connection = connect(server, address).await?;
        connection.write_all(agent.send.as_bytes()).await?;
        let mut line = Vec::new();
        let mut bytes = [0; 256];
        loop {
            let length = connection.read(&mut bytes).await?;
            line.extend(bytes.iter().take(length));
            let end = line.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
            if length == 0 || end.is_some() {
                line.truncate(end.unwrap_or(line.len()));
                return Ok(String::from_utf8_lossy(&line).into_owned());
            }
            if line.len() > LONGEST {
                return Err(format!("its answer is longer than {LONGEST} bytes").into());
            }
        }
    };
    let answer = timeout(agent.interval, answer).await;
    answer.map_err(|_| format!("no answer within {:?}", agent.interval))?
}

/// What a server's agent says by now, after this line too.
///
/// # Errors
/// What in the line is no word of an agent's. Then none of it counts.
fn heed(before: &AgentReport, line: &str) -> Result<AgentReport, String> {
    let plain: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let (words, description) = plain.split_once('#').unwrap_or((&plain, ""));
    let description = description.trim();
    let mut report = before.clone();
    let (mut has_words, mut has_wishes) = (false, false);
    for word in words.split([' ', ',']).filter(|word| !word.is_empty()) {
        has_words = true;
        match word.to_ascii_lowercase().as_str() {
            word @ ("ready" | "drain" | "maint") => {
                has_wishes = true;
                report.admin = match word {
                    "ready" => Admin::Ready,
                    "drain" => Admin::Drain,
                    _ => Admin::Maintenance,
                };
            }
            "up" => report.down = None,
            word @ ("down" | "stopped" | "fail") => {
                let separator = if description.is_empty() { "" } else { ": " };
                report.down = Some(format!("its agent says {word}{separator}{description}").into());
            }
            // Limits are the file's alone.
            word if word.strip_prefix("maxconn:").is_some_and(|limit| limit.parse::<u32>().is_ok()) => {}
            word => match word.strip_suffix('%').and_then(|percent| percent.parse().ok()) {
                Some(percent) => (report.percent, has_wishes) = (percent, true),
                None => return Err(format!("{word:.100?} is not a word of an agent's")),
            },
        }
    }
    if has_wishes {
        report.why = (!description.is_empty()).then(|| description.into());
    }
    if has_words { Ok(report) } else { Err("its answer is empty".to_owned()) }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::Mutex;
    use std::time::Duration;

    use proptest::prelude::*;
    use tokio::net::TcpListener;

    use super::*;
    use crate::balancer::state::tests::{one_backend, server, states, until};
    use crate::config::model::Balance;
    use crate::status::ServerState;

    #[test]
    fn the_words_of_agents() {
        let ready = AgentReport::default();
        let down = |reason: &str| AgentReport { down: Some(reason.into()), ..AgentReport::default() };
        let admin = |admin| AgentReport { admin, ..AgentReport::default() };
        let percent = |percent| AgentReport { percent, ..AgentReport::default() };
        let rows = [
            ("50%", &ready, percent(50)),
            ("0%", &ready, percent(0)),
            ("200% up", &ready, percent(200)),
            ("drain", &ready, admin(Admin::Drain)),
            ("MAINT", &ready, admin(Admin::Maintenance)),
            ("up", &admin(Admin::Drain), admin(Admin::Drain)),
            ("ready", &admin(Admin::Drain), ready.clone()),
            ("ready", &down("x"), down("x")),
            ("up", &down("x"), ready.clone()),
            ("up,ready,100%", &AgentReport { admin: Admin::Maintenance, percent: 3, ..down("x") }, ready.clone()),
            ("up ready 30% maxconn:20", &ready, percent(30)),
            ("down", &ready, down("its agent says down")),
            ("stopped", &ready, down("its agent says stopped")),
            ("fail # disk\tfull\u{1b}[1m", &ready, down("its agent says fail: disk full [1m")),
            ("down#", &ready, down("its agent says down")),
            ("\t up\t", &ready, ready.clone()),
            ("maint # upgrade", &ready, AgentReport { why: Some("upgrade".into()), ..admin(Admin::Maintenance) }),
            ("0% #late", &ready, AgentReport { why: Some("late".into()), ..percent(0) }),
            ("up # well", &ready, ready.clone()),
            ("ready", &AgentReport { why: Some("late".into()), ..admin(Admin::Drain) }, ready.clone()),
            ("75%", &down("x"), AgentReport { percent: 75, ..down("x") }),
        ];
        for (line, before, after) in rows {
            assert_eq!(heed(before, line), Ok(after), "{line:?}");
        }
    }

    #[test]
    fn what_is_no_answer_changes_nothing() {
        let rows = [
            ("", "its answer is empty"),
            ("# all is well", "its answer is empty"),
            ("up 50", "\"50\" is not a word of an agent's"),
            ("-5%", "\"-5%\" is not a word of an agent's"),
            ("99999999999%", "\"99999999999%\" is not a word of an agent's"),
            ("maxconn:many", "\"maxconn:many\" is not a word of an agent's"),
            ("HTTP/1.1 200 OK", "\"http/1.1\" is not a word of an agent's"),
        ];
        for (line, trouble) in rows {
            assert_eq!(heed(&AgentReport::default(), line), Err(trouble.to_owned()), "{line:?}");
        }
    }

    proptest! {
        #[test]
        fn no_line_confuses_it(line in "\\PC{0,40}|([ ,#%0-9:]|up|down|drain|ready){0,12}") {
            if let Err(trouble) = heed(&AgentReport::default(), &line) {
                prop_assert!(trouble.len() < 1000 && !trouble.contains(char::is_control), "{trouble:?}");
            }
        }
    }

    /// An agent that says what it is told; empty: it says nothing and keeps the connection.
    async fn agent() -> (SocketAddr, Arc<Mutex<&'static str>>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let said = Arc::new(Mutex::new(""));
        let says = said.clone();
        tokio::spawn(async move {
            let mut silent = Vec::new();
            while let Ok((mut connection, _)) = listener.accept().await {
                let text = *says.lock().unwrap();
                let mut asked = [0; 4];
                let _ = connection.read_exact(&mut asked).await;
                assert_eq!(&asked, b"how?");
                // Some of them may not get all of it.
                let _ = connection.write_all(text.as_bytes()).await;
                if text.is_empty() {
                    silent.push(connection);
                }
            }
        });
        (address, said)
    }

    #[tokio::test]
    async fn a_server_is_what_its_agent_says_and_stays_so_while_it_says_nothing_of_use() {
        let (address, says) = agent().await;
        let mut config = one_backend(Balance::RoundRobin, vec![server("a", 60)]);
        config.backends[0].agent =
            Some(Agent { port: address.port(), interval: Duration::from_millis(20), send: "how?".into() });
        let shared = Shared::new(config);
        *says.lock().unwrap() = "up ready 50%\n";
        let watching = tokio::spawn(watch_agent(shared.clone(), BackendIndex(0), 0));
        let is = |state: ServerState, weight: u32, reason: &'static str| {
            let shared = shared.clone();
            async move {
                let now = || (shared.backends[0].servers[0].weight(), states(&shared)[0].clone());
                until(|| now() == (weight, (state, reason.to_owned()))).await;
            }
        };
        is(ServerState::Up, 30, "not checked").await;
        let rows = [
            ("drain\r\n", ServerState::Drain, 30, "its agent asks for drain"),
            ("drain # going\n", ServerState::Drain, 30, "its agent asks for drain: going"),
            ("fail 100% # the disk is full", ServerState::Down, 60, "its agent says fail: the disk is full"),
            ("maint # upgrade\n", ServerState::Maintenance, 60, "its agent asks for maintenance: upgrade"),
            ("ready\nthis is not read", ServerState::Down, 60, "its agent says fail: the disk is full"),
            ("up\n", ServerState::Up, 60, "not checked"),
            ("0%\n", ServerState::Drain, 0, "its agent asks for a weight of 0%"),
        ];
        for (line, state, weight, reason) in rows {
            *says.lock().unwrap() = line;
            is(state, weight, reason).await;
        }

        // Long enough for several of each.
        let endless: &'static str = "x".repeat(1 << 20).leak();
        for nothing in ["", "\n", "SSH-2.0-OpenSSH_9.2\r\n", endless] {
            *says.lock().unwrap() = nothing;
            tokio::time::sleep(Duration::from_millis(60)).await;
            is(ServerState::Drain, 0, "its agent asks for a weight of 0%").await;
        }
        *says.lock().unwrap() = "100%\n";
        is(ServerState::Up, 60, "not checked").await;
        watching.abort();
    }
}
