//! One measurement: load from wrk, and what it cost the proxy.

use std::process::Command;
use std::time::Duration;

use nix::unistd::Pid;

use crate::peers::Result;
use crate::proxies::Proxy;
use crate::rows::Row;

/// What was seen.
pub(crate) struct Seen {
    /// Of CPU time per request.
    pub(crate) cpu_us: f64,
    /// 99 of 100 requests were answered by then.
    pub(crate) p99_ms: f64,
}

/// Asks a proxy for so long.
pub(crate) fn load(proxy: &Proxy, row: &Row, seconds: u64) -> Result<Seen> {
    let before = cpu_time(proxy.pid())?;
    let mut wrk = Command::new("wrk");
    wrk.args(["--latency", "-t1", "-c64", &format!("-d{seconds}s"), &format!("http://{}{}", proxy.address, row.path)]);
    if row.closes {
        wrk.args(["-H", "Connection: close"]);
    }
    let output = wrk.output().map_err(|error| format!("wrk cannot be run ({error}): install Debian's package wrk"))?;
    let after = cpu_time(proxy.pid())?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() || text.contains("Socket errors") || text.contains("Non-2xx") {
        return Err(format!("requests failed, of {} for {:?}:\n{text}", row.name, proxy.name).into());
    }
    let line = |words: &str| text.lines().find(|line| line.contains(words)).map(str::trim);
    let requests = line(" requests in ").and_then(|line| line.split(' ').next()).and_then(|count| count.parse().ok());
    let p99 = line("99%").and_then(|line| line.split_whitespace().nth(1)).and_then(milliseconds);
    let (Some(requests), Some(p99_ms)) = (requests, p99) else {
        return Err(format!("wrk did not say how many requests it made, or how long they took:\n{text}").into());
    };
    let requests: f64 = requests;
    let spent = after.checked_sub(before).ok_or("a thread of the proxy has ended, and its time is not known")?;
    Ok(Seen { cpu_us: spent.as_secs_f64() * 1e6 / requests, p99_ms })
}

/// `1.25ms`, `830.00us`, `1.02s`
fn milliseconds(text: &str) -> Option<f64> {
    let (factor, number) = [("us", 1e-3), ("ms", 1.0), ("s", 1e3)]
        .into_iter()
        .find_map(|(unit, factor)| text.strip_suffix(unit).map(|number| (factor, number)))?;
    Some(number.parse::<f64>().ok()? * factor)
}

/// User and system time of a process and all its descendants.
fn cpu_time(process: Pid) -> Result<Duration> {
    let mut nanoseconds = 0;
    let mut pids = vec![process.as_raw()];
    while let Some(pid) = pids.pop() {
        for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
            let thread = thread?.path();
            // What /proc/PID/stat has of it is rounded to ticks of 10 ms.
            let schedule = std::fs::read_to_string(thread.join("schedstat"))?;
            nanoseconds += schedule.split(' ').next().unwrap_or_default().parse::<u64>()?;
            let children = std::fs::read_to_string(thread.join("children"))?;
            pids.extend(children.split_whitespace().filter_map(|child| child.parse::<i32>().ok()));
        }
    }
    Ok(Duration::from_nanos(nanoseconds))
}
