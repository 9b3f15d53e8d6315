//! Pages of one's own in the place of the balancer's.

use std::net::SocketAddr;

use relevo::lab::directory::Directory;

use crate::configuration;
use crate::rig::http::{Connection, get};
use crate::rig::node::{Relevo, relevo};
use crate::rig::place::{free_port, own_loopback};
use crate::rig::server::Server;

/// A frontend `web` with a rule that denies `/secret`, a route from `/api` to a backend without a server that listens, and such
/// a default backend; `errors` are lines of the file, the frontend and the backend of `/api`.
fn text(errors: [&str; 3]) -> (SocketAddr, String) {
    let (web, nowhere) = (free_port(), Server::nowhere());
    let [file, frontend, backend] = errors;
    let backends = [("app", ""), ("api", backend)].map(|(name, errors)| {
        format!(
            "[backends.{name}]\nretries = 0\n{errors}\n\
             servers = [{{ name = \"a\", address = \"{nowhere}\", check = false }}]\n"
        )
    });
    let text = format!(
        "{file}\n[frontends.web]\nbind = \"{web}\"\ndefault_backend = \"app\"\n{frontend}\n\
         timeouts = {{ http_request = \"300ms\" }}\n\
         rules = [{{ when = {{ path = \"/secret\" }}, deny = 403 }}]\n\
         routes = [{{ path_prefix = \"/api\", backend = \"api\" }}]\n{}",
        backends.concat()
    );
    (web, text)
}

fn write(directory: &Directory, name: &str, content: &str) -> String {
    let path = directory.path().join(name);
    std::fs::write(&path, content).unwrap();
    path.display().to_string()
}

/// The backend's page comes before the frontend's, and that before the file's; other statuses have the balancer's own.
#[test]
fn files_take_the_place_of_pages() {
    let _place = own_loopback();
    let directory = Directory::new().unwrap();
    let page = write(&directory, "sorry.html", "<p>sorry</p>");
    let json = write(&directory, "sorry.json", "{\"sorry\":true}");
    let whole = "HTTP/1.0 404 Nothing\nX-Own: yes\nConnection: close\nContent-Type: text/plain\n\nnothing for you";
    let whole = write(&directory, "denied.http", whole);
    let slow = write(&directory, "slow.txt", "too slow");
    let (web, text) = text([
        &format!("[errors]\n503 = \"{page}\"\n408 = \"{slow}\""),
        &format!("errors = {{ 403 = \"{whole}\" }}"),
        &format!("errors = {{ 503 = \"{json}\" }}"),
    ]);
    let node = Relevo::start(&text);

    let mut client = Connection::open(web).unwrap();
    let answer = client.get("/").unwrap();
    assert_eq!((answer.status(), answer.text().as_str()), (503, "<p>sorry</p>"));
    assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"));
    let answer = client.get("/api/x").unwrap();
    assert_eq!((answer.status(), answer.text().as_str()), (503, "{\"sorry\":true}"));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    // The connection stays, whatever the file says.
    let answer = client.get("/secret").unwrap();
    assert_eq!((answer.status(), answer.text().as_str()), (404, "nothing for you"));
    assert_eq!((answer.header("x-own"), answer.header("content-type")), (Some("yes"), Some("text/plain")));
    assert_eq!(client.get("/").unwrap().status(), 503);
    assert!(node.wait_for_message("/secret").contains(" 404 "), "the log has what the client got");

    let mut slow = Connection::open(web).unwrap();
    slow.send("GET / HTTP/1.1\r\nHo").unwrap();
    let answer = slow.receive().unwrap();
    assert_eq!((answer.status(), answer.text().as_str()), (408, "too slow"));

    let mut bad = Connection::open(web).unwrap();
    bad.send("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n").unwrap();
    assert!(bad.receive().unwrap().text().contains("<h1>400 Bad Request</h1>"));
}

/// What a server answers is its own.
#[test]
fn the_errors_of_servers_stay() {
    let _place = own_loopback();
    let directory = Directory::new().unwrap();
    let page = write(&directory, "sorry.html", "<p>sorry</p>");
    let server = Server::answering(|_| crate::rig::http::response("503 Busy", "", "busy"));
    let (web, text) = configuration(&format!("errors = {{ 503 = \"{page}\" }}"), "", &[server.address]);
    let _node = Relevo::start(&text);
    assert_eq!(get(web, "/").text(), "busy");
}

/// `relevo check` says of each file why it does not serve, and where it is written.
#[test]
fn a_file_that_does_not_serve_is_an_error_of_the_configuration() {
    let directory = Directory::new().unwrap();
    let missing = directory.path().join("missing.html").display().to_string();
    let long = write(&directory, "long.html", &"x".repeat(65_537));
    let broken = write(&directory, "broken.http", "<html>");
    let picture = write(&directory, "picture.png", "x");
    let (_, text) = text([
        &format!("[errors]\n503 = \"{missing}\"\n502 = \"{long}\"\n200 = \"{long}\""),
        &format!("errors = {{ 403 = \"{broken}\" }}"),
        &format!("errors = {{ 503 = \"{picture}\", 504 = \"/\" }}"),
    ]);
    let file = write(&directory, "relevo.toml", &text);
    let output = relevo(&["check", "-c", &file]);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{errors}");
    for words in [
        "errors.503",
        "No such file or directory",
        "errors.502",
        "more than 65536 bytes",
        "expected a status from 400 to 599",
        "frontends.web.errors.403",
        "HTTP response",
        "backends.api.errors.503",
        ".json or .xml",
        "no regular file",
        "6 errors",
    ] {
        assert!(errors.contains(words), "{words:?} is not in\n{errors}");
    }
}
