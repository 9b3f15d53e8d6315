//! The file: what is wrong with it, how it is read, and who runs it from then on.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use jiff::Timestamp;
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};
use relevo::lab::node::send;
use relevo::status::BalancerState;

use super::configuration;
use crate::rig::http::get;
use crate::rig::node::{Relevo, relevo};
use crate::rig::place::{free_port, own_loopback};
use crate::rig::server::Server;
use crate::rig::wait_until;
use crate::{connect, server_of};

/// A bad file changes nothing, and the message names line and key; so does one that needs a restart, of which the exit status tells
/// as well, or a port that somebody has.
#[test]
fn a_bad_file_changes_nothing_and_says_why() {
    let _place = own_loopback();
    let (a, b, web) = (Server::named("a"), Server::named("b"), free_port());
    let good = configuration(web, "", &[("a", a.address)]);
    let node = Relevo::start(&good);
    let (file, begun) = (node.directory().join("relevo.toml"), configured(&node));
    let mut connection = connect(web);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap();
    let bad = configuration(web, "", &[("b", b.address)]);
    let rows: [(String, i32, &[&str], &str); 7] = [
        (
            bad.replace("check = false", "wieght = 3\ncheck = 1"),
            1,
            &[
                "backends.app.servers[0].wieght: unknown key",
                "relevo.toml:12:1",
                "did you mean `weight`?",
                "backends.app.servers[0].check",
            ],
            "relevo.toml, line 12: backends.app.servers[0].wieght: unknown key (did you mean `weight`?); and another error",
        ),
        (
            format!("[process]\nthreads = 37\n{bad}"),
            3,
            &["process.threads counts only when the node starts: restart it"],
            "process.threads counts only when the node starts",
        ),
        (
            format!(
                "{bad}\n[vrrp.main]\ninterface = \"eth0\"\nvirtual_router_id = 1\naddresses = [\"192.0.2.1/24\"]\n"
            ),
            3,
            &["[vrrp.main] counts only when the node starts"],
            "[vrrp.main] counts only when the node starts",
        ),
        (
            format!("{bad}\n[frontends.x]\nbind = \"{taken}\"\ndefault_backend = \"app\"\n"),
            1,
            &["frontend \"x\" cannot listen on ", "the port is in use"],
            "the port is in use",
        ),
        ("[backends".to_owned(), 1, &["relevo.toml"], "relevo.toml, line "),
        // Half of it, as an editor may leave it for a moment; and none.
        (bad[..bad.len() - 20].to_owned(), 1, &["relevo.toml"], "relevo.toml, line "),
        (String::new(), 1, &["relevo.toml"], "relevo.toml, line "),
    ];
    for (text, status, words, logged) in rows {
        node.configure(&text);
        let output = node.reload();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{said}");
        assert!(said.starts_with("relevo: the configuration stays as it is:"), "{said}");
        for words in words {
            assert!(said.contains(words), "{words:?} is not in {said}");
        }
        let message = node.wait_for_message(logged);
        assert!(message.contains("ERROR guard: the configuration stays as it is: "), "{message}");
        assert_eq!(server_of(&connection.get("/").unwrap()), "a");
        assert_eq!(server_of(&get(web, "/")), "a");
        let written = Timestamp::try_from(std::fs::metadata(&file).unwrap().modified().unwrap()).unwrap();
        assert!(configured(&node) == begun && begun < written, "{begun} {written}");
    }
    std::fs::remove_file(&file).unwrap();
    let socket = node.directory().join("control.sock").display().to_string();
    let output = crate::rig::node::relevo(&["reload", "--socket", &socket]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot read the configuration"), "{output:?}");
    // And then it is as if nothing had happened.
    node.reload_with(&bad);
    assert_eq!(server_of(&connection.get("/").unwrap()), "b");
    assert!(configured(&node) > begun);
}

/// What `relevo status` says of when the configuration was read.
fn configured(node: &Relevo) -> Timestamp {
    node.status().expect("it runs").node.configured.parse().unwrap()
}

/// As people do it who have no command at hand.
#[test]
fn sighup_does_the_same() {
    let _place = own_loopback();
    let (a, b, web) = (Server::named("a"), Server::named("b"), free_port());
    let node = Relevo::start(&configuration(web, "", &[("a", a.address)]));
    node.configure("[backends");
    node.signal(Signal::SIGHUP);
    node.wait_for_message("the configuration stays as it is: ");
    assert_eq!(server_of(&get(web, "/")), "a");
    node.configure(&configuration(web, "", &[("b", b.address)]));
    node.signal(Signal::SIGHUP);
    node.wait_for_message("the configuration was reloaded: server app/b came; server app/a went");
    assert_eq!(server_of(&get(web, "/")), "b");
}

/// What was reloaded is what runs, whoever dies: the balancer, and the keeper.
#[test]
fn the_next_processes_run_what_was_reloaded() {
    let _place = own_loopback();
    let (a, b) = (Server::named("a"), Server::named("b"));
    let (web, other) = (free_port(), free_port());
    let node = Relevo::start(&configuration(web, "", &[("a", a.address)]));
    let reloaded = configuration(web, "", &[("b", b.address)])
        + &format!("[frontends.other]\nbind = \"{other}\"\ndefault_backend = \"app\"\n");
    node.reload_with(&reloaded);
    let since = configured(&node);
    node.configure("not what runs");
    for kill in [Relevo::balancer, Relevo::keeper] {
        let (victim, before) = (kill(&node), node.balancer());
        send(victim, Signal::SIGKILL).unwrap();
        node.wait_for("another balancer serves", |status| {
            status.node.balancer.state == BalancerState::Serving && status.node.balancer.pid != before.as_raw() as u32
        });
        assert_eq!((server_of(&get(web, "/")), server_of(&get(other, "/"))), ("b", "b"));
        assert_eq!(configured(&node), since);
    }
    node.reload_with(&configuration(web, "", &[("a", a.address)]));
    assert_eq!(server_of(&get(web, "/")), "a");
}

/// A file that is being edited takes no node out, not even if the keeper dies just then: the next one runs what the last one ran.
#[test]
fn a_keeper_that_dies_during_a_reload_is_followed_by_one_that_runs_as_before() {
    let _place = own_loopback();
    let (a, b, web) = (Server::named("a"), Server::named("b"), free_port());
    let (good, better) = (configuration(web, "", &[("a", a.address)]), configuration(web, "", &[("b", b.address)]));
    let node = Relevo::start(&good);
    let count = |words: &str| node.messages().lines().filter(|line| line.contains(words)).count();
    for (round, (text, is_whole)) in [(&better[..better.len() / 2], false), (&better[..], true)].into_iter().enumerate()
    {
        let (keeper, balancer) = (node.keeper(), node.balancer());
        // It can neither follow the file nor decline to.
        send(keeper, Signal::SIGSTOP).unwrap();
        node.configure(text);
        node.signal(Signal::SIGHUP);
        if !is_whole {
            node.wait_for_message("the configuration stays as it is: ");
        }
        send(keeper, Signal::SIGKILL).unwrap();
        node.wait_for("another balancer serves", |status| {
            let now = &status.node.balancer;
            now.state == BalancerState::Serving && now.pid != balancer.as_raw().cast_unsigned()
        });
        // Read before the keeper died or after: one sentence tells what became of it.
        let outcomes = || (count("the configuration stays as it is"), count("the configuration was reloaded"));
        wait_until("it is said what became of it", || outcomes().0 + outcomes().1 > round, || node.messages());
        let runs = if outcomes().1 > 0 { "b" } else { "a" };
        assert_eq!(server_of(&get(web, "/")), runs, "{}", node.messages());
        assert_eq!(outcomes().0 + outcomes().1, round + 1, "{}", node.messages());
    }
    node.reload_with(&better);
    assert_eq!(server_of(&get(web, "/")), "b");
}

/// Whoever asked a keeper that dies is told neither that it was done nor that it was not; the log says it.
#[test]
fn who_asked_a_keeper_that_dies_finds_the_answer_in_the_log() {
    let _place = own_loopback();
    let (a, b, web) = (Server::named("a"), Server::named("b"), free_port());
    let node = Relevo::start(&configuration(web, "", &[("a", a.address)]));
    node.configure(&configuration(web, "", &[("b", b.address)]));
    let (keeper, balancer) = (node.keeper(), node.balancer());
    // The guard, which is to read the file.
    node.signal(Signal::SIGSTOP);
    let mut asking = UnixStream::connect(node.directory().join("control.sock")).unwrap();
    asking.write_all(b"reload\n").unwrap();
    // Whoever is answered came later than that.
    for _ in 0..2 {
        assert!(node.status().is_some());
    }
    send(keeper, Signal::SIGKILL).unwrap();
    let mut answer = String::new();
    asking.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "");
    node.signal(Signal::SIGCONT);
    node.wait_for_message("the configuration stays as it is: the keeper died before it followed another");
    node.wait_for("another balancer serves", |status| {
        let now = &status.node.balancer;
        now.state == BalancerState::Serving && now.pid != balancer.as_raw().cast_unsigned()
    });
    assert_eq!(server_of(&get(web, "/")), "a");
}

/// Whoever asks at the same time as others is answered as well, for a file that was read after that.
#[test]
fn those_who_ask_at_once_are_all_answered() {
    let _place = own_loopback();
    let (a, b, web) = (Server::named("a"), Server::named("b"), free_port());
    let node = Relevo::start(&configuration(web, "", &[("a", a.address)]));
    node.configure(&configuration(web, "", &[("b", b.address)]));
    let outputs: Vec<_> = std::thread::scope(|scope| {
        node.signal(Signal::SIGHUP);
        let asking: Vec<_> = (0..8).map(|_| scope.spawn(|| node.reload())).collect();
        asking.into_iter().map(|asking| asking.join().unwrap()).collect()
    });
    assert_eq!(server_of(&get(web, "/")), "b");
    for output in &outputs {
        assert!(output.status.success(), "{output:?}\n{}", node.messages());
    }
    let reloaded = || node.messages().matches("the configuration was reloaded: ").count();
    wait_until("all are in the log", || reloaded() > outputs.len(), || node.messages());
    let changes = node.messages().matches("was reloaded: server app/b came; server app/a went").count();
    assert_eq!(changes, 1, "{}", node.messages());
}

/// A balancer that does not follow is ended, and the next one runs what was followed before; one that is about to be started
/// begins with what is reloaded meanwhile.
#[test]
fn a_reload_that_finds_no_balancer_is_for_the_next_one_and_one_that_loses_it_for_none() {
    let _place = own_loopback();
    let (a, b, web) = (Server::named("a"), Server::named("b"), free_port());
    let node = Relevo::start(&configuration(web, "", &[("a", a.address)]));
    let wait_for_another = |before: Pid| {
        node.wait_for("another balancer serves", |status| {
            let now = &status.node.balancer;
            now.state == BalancerState::Serving && now.pid != before.as_raw().cast_unsigned()
        });
    };
    let hanging = node.balancer();
    send(hanging, Signal::SIGSTOP).unwrap();
    node.configure(&configuration(web, "", &[("b", b.address)]));
    let output = node.reload();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("stays as it is: the balancer was lost meanwhile"), "{said}\n{}", node.messages());
    wait_for_another(hanging);
    assert_eq!(server_of(&get(web, "/")), "a");

    // Each end makes the pause before the next start longer: 0, 250, 500, 1000 ms.
    for _ in 0..3 {
        let killed = node.balancer();
        send(killed, Signal::SIGKILL).unwrap();
        node.wait_for("it is gone", |status| status.node.balancer.pid != killed.as_raw().cast_unsigned());
        node.wait_for("the next one runs", |status| status.node.balancer.pid != 0);
    }
    let killed = node.balancer();
    send(killed, Signal::SIGKILL).unwrap();
    node.wait_for("none runs", |status| status.node.balancer.pid != killed.as_raw().cast_unsigned());
    let output = node.reload();
    assert!(output.status.success(), "{output:?}\n{}", node.messages());
    wait_for_another(killed);
    assert_eq!(server_of(&get(web, "/")), "b");
}

/// A pipe, a device without an end, a file that no configuration is as long as: refused at once, and the next reload works.
#[test]
fn what_cannot_be_read_at_once_is_refused_and_ends_no_reload_after_it() {
    let _place = own_loopback();
    let (a, b, web) = (Server::named("a"), Server::named("b"), free_port());
    let good = configuration(web, "", &[("a", a.address)]);
    let node = Relevo::start(&good);
    let (file, page) = (node.directory().join("relevo.toml"), node.directory().join("503.html"));
    let with_page = format!("{good}\n[backends.app.errors]\n503 = \"{}\"\n", page.display());
    mkfifo(&page, Mode::from_bits_truncate(0o600)).unwrap();
    type Row<'a> = (&'static str, &'a dyn Fn(), &'static str);
    let rows: [Row<'_>; 5] = [
        ("a pipe", &|| mkfifo(&file, Mode::from_bits_truncate(0o600)).unwrap(), "it is no regular file"),
        ("a device", &|| std::os::unix::fs::symlink("/dev/zero", &file).unwrap(), "it is no regular file"),
        ("a directory", &|| std::fs::create_dir(&file).unwrap(), "it is no regular file"),
        (
            "300 MB",
            &|| std::fs::File::create(&file).unwrap().set_len(300 << 20).unwrap(),
            "it has more than 8388608 bytes",
        ),
        ("a page in a pipe", &|| node.configure(&with_page), "it is no regular file"),
    ];
    for (what, make, reason) in rows {
        if file.is_dir() {
            std::fs::remove_dir(&file).unwrap()
        } else {
            std::fs::remove_file(&file).unwrap()
        }
        make();
        let begin = std::time::Instant::now();
        let output = node.reload();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && said.contains(reason), "{what}: {said}");
        assert!(begin.elapsed() < std::time::Duration::from_secs(2), "{what}: {:?}", begin.elapsed());
        assert!(node.status().is_some(), "{what}");
    }
    node.configure(&configuration(web, "", &[("b", b.address)]));
    assert!(node.reload().status.success());
    wait_until("the right file counts", || server_of(&get(web, "/")) == "b", || node.messages());
}

/// A comment, too.
#[test]
fn the_line_that_is_no_text_is_named() {
    let _place = own_loopback();
    let (a, web) = (Server::named("a"), free_port());
    let good = configuration(web, "", &[("a", a.address)]);
    let node = Relevo::start(&good);
    let text = [b"# one\n# caf\xe9\n", good.as_bytes()].concat();
    std::fs::write(node.directory().join("relevo.toml"), text).unwrap();
    let said = String::from_utf8_lossy(&node.reload().stderr).into_owned();
    assert!(said.contains("relevo.toml: line 2 is no text in UTF-8"), "{said}");
}

/// A refused file stays where it is, and would end the node at its next start; one that was edited would change it.
#[test]
fn a_file_that_is_not_what_runs_is_shown() {
    let _place = own_loopback();
    let (a, b, web) = (Server::named("a"), Server::named("b"), free_port());
    let good = configuration(web, "", &[("a", a.address)]);
    let node = Relevo::start(&good);
    let socket = format!("--socket={}", node.directory().join("control.sock").display());
    let text = || String::from_utf8(relevo(&["status", &socket]).stdout).unwrap();
    let says = |words: &'static str| {
        move |pair: &relevo::status::PairStatus| {
            pair.node.file_differs.as_ref().is_some_and(|sentence| sentence.contains(words))
        }
    };
    assert!(!text().contains("is not what runs"), "{}", text());

    node.configure(&good.replace("check = false", "wieght = 3"));
    assert_eq!(node.reload().status.code(), Some(1));
    node.wait_for("the refused file is shown", says("and cannot: "));
    assert!(text().contains("file: ") && text().contains("backends.app.servers[0].wieght: unknown key"), "{}", text());
    // Whoever comes after a keeper that died knows it, too.

    send(node.keeper(), Signal::SIGKILL).unwrap();
    wait_until(
        "another keeper shows it",
        || node.status().is_some_and(|pair| says("and cannot: ")(&pair)),
        || node.messages(),
    );

    node.configure(&configuration(web, "", &[("b", b.address)]));
    node.wait_for("the edited file is shown", says("server app/b came"));
    node.configure(&format!("[process]\nthreads = 3\n{good}"));
    node.wait_for("a start is needed", says("process.threads counts only when the node starts"));
    std::fs::remove_file(node.directory().join("relevo.toml")).unwrap();
    node.wait_for("none is there", says("cannot read the configuration"));
    node.configure(&configuration(web, "", &[("b", b.address)]));
    assert!(node.reload().status.success());
    node.wait_for("it runs", |pair| pair.node.file_differs.is_none());
}
