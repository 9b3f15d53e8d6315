//! HAProxy's CSV ("CSV format" in its management guide): the columns of version 2.6 in their order, without those that its
//! modules append behind `-`. What has no counterpart here is empty, or 0 where HAProxy always has a number.

use std::fmt::Write;
use std::time::Duration;

use crate::stats::checks::{Check, Outcome};
use crate::stats::counters::{Event, Phase};
use crate::stats::snapshot::{Backend, Condition, Health, Proxy, ProxyKind, Row, Server, Snapshot};
use crate::status::ServerState;

/// `# ` comes before the first.
pub const COLUMNS: &str = "pxname,svname,qcur,qmax,scur,smax,slim,stot,bin,bout,dreq,dresp,ereq,econ,eresp,wretr,wredis,\
    status,weight,act,bck,chkfail,chkdown,lastchg,downtime,qlimit,pid,iid,sid,throttle,lbtot,tracked,type,rate,rate_lim,\
    rate_max,check_status,check_code,check_duration,hrsp_1xx,hrsp_2xx,hrsp_3xx,hrsp_4xx,hrsp_5xx,hrsp_other,hanafail,\
    req_rate,req_rate_max,req_tot,cli_abrt,srv_abrt,comp_in,comp_out,comp_byp,comp_rsp,lastsess,last_chk,last_agt,qtime,\
    ctime,rtime,ttime,agent_status,agent_code,agent_duration,check_desc,agent_desc,check_rise,check_fall,check_health,\
    agent_rise,agent_fall,agent_health,addr,cookie,mode,algo,conn_rate,conn_rate_max,conn_tot,intercepted,dcon,dses,wrew,\
    connect,reuse,cache_lookups,cache_hits,srv_icur,src_ilim,qtime_max,ctime_max,rtime_max,ttime_max,eint,idle_conn_cur,\
    safe_conn_cur,used_conn_cur,need_conn_est,uweight,agg_server_status,agg_server_check_status,agg_check_status";

/// The whole text.
pub fn render(snapshot: &Snapshot) -> String {
    let mut text = format!("# {COLUMNS},\n");
    for (index, proxy) in snapshot.proxies.iter().enumerate() {
        let number = index + 1;
        match &proxy.kind {
            ProxyKind::Frontend { .. } => line(&mut text, &Entry { proxy, number, part: Part::Frontend }),
            ProxyKind::Backend(backend) => {
                for (index, server) in backend.servers.iter().enumerate() {
                    line(&mut text, &Entry { proxy, number, part: Part::Server(backend, server, index + 1) });
                }
                line(&mut text, &Entry { proxy, number, part: Part::Backend(backend) });
            }
        }
    }
    text
}

fn line(text: &mut String, entry: &Entry<'_>) {
    for column in COLUMNS.split(',') {
        let cell = entry.cell(column);
        if cell.contains([',', '"', '\n', '\r']) {
            let _ = write!(text, "\"{}\",", cell.replace('"', "\"\""));
        } else {
            text.push_str(&cell);
            text.push(',');
        }
    }
    text.push('\n');
}

/// What one line is about.
struct Entry<'a> {
    proxy: &'a Proxy,
    number: usize,
    part: Part<'a>,
}

enum Part<'a> {
    Frontend,
    Backend(&'a Backend),
    /// And its number.
    Server(&'a Backend, &'a Server, usize),
}

impl Entry<'_> {
    fn row(&self) -> &Row {
        match self.part {
            Part::Server(_, server, _) => &server.row,
            _ => &self.proxy.own,
        }
    }

    fn cell(&self, column: &str) -> String {
        self.common(column)
            .or_else(|| match &self.part {
                Part::Frontend => frontend(self.row(), column),
                Part::Backend(backend) => {
                    behind_a_frontend(self.row(), column).or_else(|| self::backend(backend, self.row(), column))
                }
                Part::Server(backend, server, number) => {
                    behind_a_frontend(self.row(), column).or_else(|| self::server(backend, server, *number, column))
                }
            })
            .unwrap_or_default()
    }

    fn common(&self, column: &str) -> Option<String> {
        let row = self.row();
        let totals = &row.totals;
        let number = match column {
            "pxname" => return Some(self.proxy.name.clone()),
            "mode" => return Some(self.proxy.mode.to_owned()),
            "pid" => 1,
            "iid" => self.number as u64,
            "scur" => row.sessions,
            "smax" => totals.most_sessions,
            "slim" => return Some(row.session_limit.map_or_else(String::new, |limit| limit.to_string())),
            "qlimit" => return Some(row.queue_limit.map_or_else(String::new, |limit| limit.to_string())),
            "stot" => totals[Event::Session],
            "bin" => totals[Event::BytesIn],
            "bout" => totals[Event::BytesOut],
            "dresp" => totals[Event::DeniedResponse],
            "rate" => row.rate.sessions,
            "rate_max" => row.rate.most_sessions,
            "hrsp_1xx" => totals[Event::Response1xx],
            "hrsp_2xx" => totals[Event::Response2xx],
            "hrsp_3xx" => totals[Event::Response3xx],
            "hrsp_4xx" => totals[Event::Response4xx],
            "hrsp_5xx" => totals[Event::Response5xx],
            "hrsp_other" => totals[Event::ResponseOther],
            "wrew" | "eint" => 0,
            _ => return None,
        };
        Some(number.to_string())
    }
}

fn frontend(row: &Row, column: &str) -> Option<String> {
    let totals = &row.totals;
    let number = match column {
        "svname" => return Some("FRONTEND".to_owned()),
        "status" => return Some("OPEN".to_owned()),
        "sid" | "type" | "rate_lim" => 0,
        "dreq" => totals[Event::DeniedRequest],
        "ereq" => totals[Event::RequestError],
        "req_rate" => row.rate.requests,
        "req_rate_max" => row.rate.most_requests,
        "req_tot" => totals[Event::Request],
        "conn_rate" => row.rate.sessions,
        "conn_rate_max" => row.rate.most_sessions,
        "conn_tot" => totals[Event::Session] + totals[Event::DeniedConnection],
        "dcon" => totals[Event::DeniedConnection],
        "intercepted" => totals[Event::Intercepted],
        "dses" | "comp_in" | "comp_out" | "comp_byp" | "comp_rsp" | "cache_lookups" | "cache_hits" => 0,
        _ => return None,
    };
    Some(number.to_string())
}

/// What servers and backends have alike.
fn behind_a_frontend(row: &Row, column: &str) -> Option<String> {
    let totals = &row.totals;
    let health = row.checks.as_ref();
    let seconds = |duration: fn(&Health) -> Duration| health.map_or(0, |health| duration(health).as_secs());
    let number = match column {
        "qcur" => row.queue.0,
        "qmax" => row.queue.1,
        "econ" => totals[Event::ConnectError],
        "eresp" => totals[Event::ResponseError],
        "wretr" => totals[Event::Retry],
        "wredis" => totals[Event::Redispatch],
        "chkdown" => health.map_or(0, |health| health.history.downs),
        "lastchg" => seconds(|health| health.unchanged_for),
        "downtime" => seconds(|health| health.downtime),
        "lbtot" => totals[Event::Balanced],
        "req_tot" => totals[Event::Request],
        "cli_abrt" => totals[Event::ClientAbort],
        "srv_abrt" => totals[Event::ServerAbort],
        "qtime" => totals.average_ms(Phase::Queue),
        "ctime" => totals.average_ms(Phase::Connect),
        "rtime" => totals.average_ms(Phase::Response),
        "ttime" => totals.average_ms(Phase::Total),
        "qtime_max" => totals.longest_ms(Phase::Queue),
        "ctime_max" => totals.longest_ms(Phase::Connect),
        "rtime_max" => totals.longest_ms(Phase::Response),
        "ttime_max" => totals.longest_ms(Phase::Total),
        "connect" => totals[Event::Connect],
        "reuse" => totals[Event::Reuse],
        _ => return None,
    };
    Some(number.to_string())
}

fn backend(backend: &Backend, row: &Row, column: &str) -> Option<String> {
    let (active, backup) = backend.usable();
    let number = match column {
        "svname" => return Some("BACKEND".to_owned()),
        "status" => return Some(if row.state == ServerState::Up { "UP" } else { "DOWN" }.to_owned()),
        "algo" => return Some(backend.algorithm.to_owned()),
        "cookie" => return backend.cookie.clone(),
        "type" => 1,
        "sid" => 0,
        "weight" => backend.weight().into(),
        "uweight" => backend.whole_weight().into(),
        "act" => active as u64,
        "bck" => backup as u64,
        "dreq" => row.totals[Event::DeniedRequest],
        "comp_in" | "comp_out" | "comp_byp" | "comp_rsp" | "cache_lookups" | "cache_hits" => 0,
        _ => return None,
    };
    Some(number.to_string())
}

fn server(backend: &Backend, server: &Server, number: usize, column: &str) -> Option<String> {
    if let Some(cell) = agent(server, column) {
        return Some(cell);
    }
    let last = server.last_check();
    let number = match column {
        "svname" => return Some(server.name.clone()),
        "status" => return Some(status(server.condition())),
        "addr" => return Some(server.address.clone()),
        "cookie" => return server.cookie.clone().filter(|_| backend.cookie.is_some()),
        "check_status" => return last.map(|last| last.outcome.code().to_owned()),
        "check_code" => return last?.outcome.status().map(|status| status.to_string()),
        "check_duration" => last.filter(|last| last.outcome != Outcome::Traffic)?.duration.as_millis() as u64,
        "last_chk" => return server.thresholds.map(|_| server.reason.clone()),
        "check_desc" => return last.map(|last| description(last.outcome.code()).to_owned()),
        "check_rise" => server.thresholds?.0.into(),
        "check_fall" => server.thresholds?.1.into(),
        "check_health" => check_health(server.condition(), last, server.thresholds?),
        "chkfail" => server.thresholds.and(server.row.checks.as_ref())?.history.failures,
        "hanafail" => server.thresholds.and(server.row.checks.as_ref())?.history.marked_down,
        "type" => 2,
        "sid" => number as u64,
        "weight" => server.row.weight.into(),
        "uweight" => server.whole_weight.into(),
        "throttle" => server.throttle?.into(),
        "act" => (!server.is_backup).into(),
        "bck" => server.is_backup.into(),
        "used_conn_cur" => server.row.sessions,
        _ => return None,
    };
    Some(number.to_string())
}

/// What its agent answers. As in HAProxy, where one answer is enough for either.
fn agent(server: &Server, column: &str) -> Option<String> {
    let agent = server.agent?;
    let answer = server.last_answer();
    let number = match column {
        "agent_status" => return Some(answer?.outcome.code().to_owned()),
        "agent_desc" => return Some(description(answer?.outcome.code()).to_owned()),
        "last_agt" => return Some(answer?.words.to_string()),
        "agent_code" if matches!(answer?.outcome, Outcome::Passed(_) | Outcome::SaysDown) => 0,
        "agent_duration" => answer?.duration.as_millis() as u64,
        "agent_rise" | "agent_fall" => 1,
        "agent_health" => (!agent.says_down).into(),
        _ => return None,
    };
    Some(number.to_string())
}

/// HAProxy's word for a server's state.
pub fn status(condition: Condition) -> String {
    match condition {
        Condition::Up => "UP".to_owned(),
        Condition::GoingDown(failures, fall) => format!("UP {}/{fall}", fall.saturating_sub(failures)),
        Condition::GoingUp(successes, rise) => format!("DOWN {successes}/{rise}"),
        Condition::Down | Condition::Starting => "DOWN".to_owned(),
        Condition::DownByAgent => "DOWN (agent)".to_owned(),
        Condition::Maintenance => "MAINT".to_owned(),
        Condition::Drain => "DRAIN".to_owned(),
        Condition::DrainByAgent => "DRAIN (agent)".to_owned(),
        Condition::NotChecked => "no check".to_owned(),
    }
}

/// From 0 to rise + fall - 1; up from rise on.
fn check_health(condition: Condition, last: Option<Check>, (rise, fall): (u32, u32)) -> u64 {
    let health = match condition {
        Condition::GoingUp(successes, _) => successes,
        Condition::Down | Condition::Starting | Condition::Maintenance => 0,
        Condition::Up | Condition::GoingDown(..) | Condition::NotChecked => left(last, rise + fall - 1),
        // Its checks pass, or they would say so.
        Condition::Drain | Condition::DrainByAgent | Condition::DownByAgent => left(last, rise + fall - 1),
    };
    health.into()
}

fn left(last: Option<Check>, highest: u32) -> u32 {
    highest.saturating_sub(last.map_or(0, |last| last.failures))
}

fn description(code: &str) -> &'static str {
    match code {
        "L4OK" => "Layer4 check passed",
        "L4CON" => "Layer4 connection problem",
        "L4TOUT" => "Layer4 timeout",
        "L7OK" => "Layer7 check passed",
        "L7STS" => "Layer7 wrong status",
        "L7RSP" => "Layer7 invalid response",
        "HANA" => "Health analyze",
        "SOCKERR" => "Socket error",
        _ => "Layer7 timeout",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::stats::snapshot::tests::example;

    /// The values of the lines by proxy and server, then by column.
    fn read(text: &str) -> BTreeMap<String, BTreeMap<&str, &str>> {
        let mut lines = text.lines();
        let columns: Vec<_> = lines.next().unwrap().strip_prefix("# ").unwrap().split(',').collect();
        let line = |line: &'static str| {
            let values: BTreeMap<_, _> = columns.iter().copied().zip(line.split(',')).collect();
            (format!("{}/{}", values["pxname"], values["svname"]), values)
        };
        text.to_owned().leak().lines().skip(1).map(line).collect()
    }

    #[test]
    fn every_line_has_every_column() {
        let text = render(&example());
        let columns = COLUMNS.split(',').count();
        for line in text.replace("503, expected", "503 expected").replace("row, the", "row the").lines() {
            assert_eq!(line.matches(',').count(), columns, "{line}");
            assert!(line.ends_with(','), "{line}");
        }
    }

    #[test]
    fn states_are_haproxys_words() {
        let text = render(&example());
        let lines = read(&text);
        let of = |column: &str| {
            let of_server = |name: &&str| lines[&format!("app/{name}")][column].to_owned();
            ["up", "falling", "rising", "down", "upkeep", "drained", "plain"].iter().map(of_server).collect::<Vec<_>>()
        };
        assert_eq!(of("status"), ["UP", "UP 2/3", "DOWN 1/2", "DOWN", "MAINT", "DRAIN", "no check"]);
        assert_eq!(of("type"), ["2"; 7]);
        assert_eq!(of("check_status"), ["L7OK", "L7STS", "L7OK", "L4CON", "L7OK", "L7OK", ""]);
        assert_eq!(of("check_health"), ["4", "3", "1", "0", "0", "4", ""]);
        assert_eq!(lines["web/FRONTEND"]["status"], "OPEN");
        assert_eq!((lines["app/BACKEND"]["status"], lines["app/BACKEND"]["act"]), ("UP", "4"));
        assert_eq!((lines["app/BACKEND"]["type"], lines["web/FRONTEND"]["type"]), ("1", "0"));
    }

    #[test]
    fn agents_traffic_and_slow_start_have_their_columns() {
        // Without the only text with a comma, so that columns are where they seem to be.
        let text = render(&example()).replace("503, expected", "503 expected").replace("row, the", "row the");
        let lines = read(&text);
        let of = |server: &str, columns: &[&str]| {
            let line = &lines[&format!("app/{server}")];
            columns.iter().map(|column| line[column].to_owned()).collect::<Vec<_>>()
        };
        let agent =
            ["status", "agent_status", "agent_code", "agent_duration", "agent_health", "last_agt", "check_health"];
        assert_eq!(of("asleep", &agent), ["DOWN (agent)", "L7STS", "0", "2", "0", "down # night", "4"]);
        assert_eq!(of("leaving", &agent), ["DRAIN (agent)", "L7OK", "0", "2", "1", "drain", "4"]);
        assert_eq!(of("up", &agent), ["UP", "", "", "", "", "", "4"]);
        let observed = ["status", "hanafail", "check_status", "check_desc", "check_duration", "chkfail"];
        assert_eq!(of("failing", &observed), ["DOWN", "1", "HANA", "Health analyze", "", "0"]);
        let weight = ["weight", "uweight", "throttle", "act", "bck"];
        assert_eq!(of("warming", &weight), ["3", "10", "30", "1", "0"]);
        assert_eq!(of("standby", &weight), ["10", "10", "", "0", "1"]);
        assert_eq!(of("BACKEND", &weight), ["33", "40", "", "4", "1"], "who stands by does not count");
    }

    #[test]
    fn a_text_with_commas_is_one_value() {
        let text = render(&example());
        assert!(text.contains(",\"status 503, expected 200-399 (1 of 3 failures)\","), "{text}");
    }
}
