//! Sessions of a real PHP: Debian's apache2 with mod_php behind a frontend, images on a third server.

use crate::rig::apache::Apache;
use crate::rig::curl::curl;
use crate::rig::http::{exchange, get};
use crate::rig::node::Relevo;
use crate::rig::place::{free_port, own_loopback};

/// Counts the requests of its session, in a file of that server's; with the session's name, as PHP and as the request has it.
const PAGE: &str = r#"<?php
session_start();
$_SESSION["requests"] = ($_SESSION["requests"] ?? 0) + 1;
echo "NAME ", $_SESSION["requests"], " ", session_id(), " ", $_SERVER["HTTP_COOKIE"] ?? "-";
"#;

const IMAGE: &[u8] = b"\x89PNG\r\n\x1a\n and so on";

/// A session stays where it began by PHP's own cookie, which goes out with the server before it and comes to PHP without.
/// Images come from a third server; when that is gone they fail, and nothing else does.
#[test]
fn a_php_session_stays_at_its_server_and_images_come_from_another() {
    let _place = own_loopback();
    let page = |server: &str| PAGE.replace("NAME", server);
    let servers = ["backend1", "backend2"].map(|name| Apache::start(&[("index.php", page(name).as_bytes())]));
    let images = Apache::start(&[("logo.png", IMAGE)]);
    let web = free_port();
    let node = Relevo::start(&format!(
        "[frontends.web]\nbind = \"{web}\"\ndefault_backend = \"app\"\n\
         [[frontends.web.routes]]\npath_suffix = [\".gif\", \".png\"]\nbackend = \"images\"\n\
         [backends.app]\ncookie = {{ name = \"PHPSESSID\", mode = \"prefix\" }}\n\
         [[backends.app.servers]]\nname = \"backend1\"\naddress = \"{}\"\ncookie = \"A\"\ncheck = false\n\
         [[backends.app.servers]]\nname = \"backend2\"\naddress = \"{}\"\ncookie = \"B\"\ncheck = false\n\
         [backends.images]\nretries = 0\nservers = [{{ name = \"backend3\", address = \"{}\", check = false }}]\n",
        servers[0].address, servers[1].address, images.address,
    ));

    let url = format!("http://{web}/index.php");
    let jars = ["one", "two"].map(|name| node.directory().join(name).display().to_string());
    let ask = |jar: &str| curl(&["--fail", "-b", jar, "-c", jar, &url]);
    let mut seen = Vec::new();
    for jar in &jars {
        let first = ask(jar);
        let [server, "1", session, "-"] = words(&first)[..] else { panic!("{first}") };
        assert!(!session.contains('~'), "{first}");
        for request in 2..=10 {
            assert_eq!(ask(jar), format!("{server} {request} {session} PHPSESSID={session}"));
        }
        let letter = if server == "backend1" { "A" } else { "B" };
        let kept = std::fs::read_to_string(jar).unwrap();
        assert!(kept.contains(&format!("PHPSESSID\t{letter}~{session}")), "{kept}");
        seen.push(server.to_owned());
    }
    seen.sort_unstable();
    assert_eq!(seen, ["backend1", "backend2"], "new sessions take turns");

    let image = get(web, "/logo.png");
    assert_eq!((image.status(), image.body.as_slice()), (200, IMAGE));
    drop(images);
    assert_eq!(get(web, "/logo.png").status(), 503);
    for jar in &jars {
        assert_eq!(words(&ask(jar))[1], "11", "the session went on");
    }
    let without = exchange(web, "GET /index.php HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(without.status(), 200);
}

fn words(line: &str) -> Vec<&str> {
    line.split(' ').collect()
}
