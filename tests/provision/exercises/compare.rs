//! Does a command print what the text says? Numbers of a clock may differ, and which web server comes first. Pure.

/// Are these the same, line by line, perhaps with the other web server's turn?
pub(super) fn same(text: &str, printed: &str) -> bool {
    same_lines(text, printed) || same_lines(&with_the_other_server(text), printed)
}

/// Both web servers are alike, and which one a client meets depends on the requests before.
fn with_the_other_server(text: &str) -> String {
    let swap =
        |text: &str, one, other| text.split(one).map(|part| part.replace(other, one)).collect::<Vec<_>>().join(other);
    swap(&swap(text, "backend1", "backend2"), "A~", "B~")
}

fn same_lines(text: &str, printed: &str) -> bool {
    let (text, printed): (Vec<&str>, Vec<&str>) = (text.lines().collect(), printed.lines().collect());
    text.len() == printed.len() && text.iter().zip(printed).all(|(text, printed)| same_line(text, printed))
}

fn same_line(text: &str, printed: &str) -> bool {
    match (outage(text), outage(printed)) {
        (Some(told), Some(seen)) => seen <= 2.0 * told + 20.0,
        _ => without_times(text) == without_times(printed),
    }
}

/// The milliseconds that `vagrant/outage` reports.
fn outage(line: &str) -> Option<f64> {
    line.strip_prefix("outage: ")?.split_once(" ms;")?.0.parse().ok()
}

/// The words of a line, with a word for each point and length of time.
fn without_times(line: &str) -> Vec<String> {
    const UNITS: [&str; 6] = ["ms", "s", "min", "h", "d", "minutes"];
    let mut words: Vec<String> = Vec::new();
    let mut rest = line.split_whitespace().peekable();
    while let Some(word) = rest.next() {
        let next = rest.peek().map(|next| next.trim_end_matches(|letter: char| !letter.is_alphanumeric()));
        if word.parse::<f64>().is_ok() && next.is_some_and(|unit| UNITS.contains(&unit)) {
            let end = rest.next().map(|unit| unit.trim_start_matches(char::is_alphanumeric)).unwrap_or_default();
            // "1 min 3 s" is one length.
            if words.last().is_some_and(|last| last == "LENGTH") {
                words.pop();
            }
            words.push(format!("LENGTH{end}"));
        } else if let Some(point) = point_of_time(word) {
            words.push(word.replace(point, "TIME"));
        } else {
            words.push(word.to_owned());
        }
    }
    words
}

/// 2026-11-20T11:38:19.611Z, whatever is around it.
fn point_of_time(word: &str) -> Option<&str> {
    let begin = word.find(|letter: char| letter.is_ascii_digit())?;
    let end = word.find('Z')? + 1;
    let point = word.get(begin..end)?;
    (point.contains('T') && point.matches('-').count() == 2 && point.matches(':').count() == 2).then_some(point)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_may_differ_and_nothing_else() {
        let text = "main: active for 5 s (since 2026-11-20T11:38:19.611Z): alone\n";
        assert!(same(text, "main: active for 2 min 11 s (since 2027-01-02T01:02:03Z): alone\n"));
        assert!(!same(text, "main: active for 5 s (since 2026-11-20T11:38:19.611Z): chosen\n"));
        assert!(!same(text, "main: backup for 5 s (since 2026-11-20T11:38:19.611Z): alone\n"));
        assert!(!same("3 backend1\n", "4 backend1\n"));
        assert!(!same("up 5 s\n", "up 5 s\nand more\n"));
        assert!(same("app/backend1  10.77.0.21:80   0\n", "app/backend1 10.77.0.21:80 0\n"));
    }

    #[test]
    fn either_web_server_may_come_first() {
        assert!(same("backend1\nbackend2\nbackend1\n", "backend2\nbackend1\nbackend2\n"));
        assert!(!same("backend1\nbackend2\n", "backend2\nbackend2\n"));
        assert!(same("PHPSESSID B~\n", "PHPSESSID A~\n"));
    }

    #[test]
    fn an_outage_may_be_somewhat_longer() {
        let text = "outage: 2.1 ms; of 700 requests 1 failed and 0 took over 50 ms\n";
        assert!(same(text, "outage: 24.0 ms; of 812 requests 3 failed and 1 took over 50 ms\n"));
        assert!(!same(text, "outage: 24.5 ms; of 812 requests 3 failed and 1 took over 50 ms\n"));
        assert!(!same(text, "no outage\n"));
    }
}
