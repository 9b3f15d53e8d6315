//! The page as a person sees it: in Chromium, from both nodes of a pair whose servers are in every state.

use std::net::SocketAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nix::sys::signal::Signal;
use relevo::lab::pair::servers_up;
use serde_json::{Value, json};

use crate::rig::chromium::Chromium;
use crate::rig::http::response;
use crate::rig::lab::{Lab, lab};
use crate::rig::node::server;
use crate::rig::server::Server;
use crate::rig::wait_until;
use crate::{ADMIN, ask};

/// Through a frontend's path, and from the statistics' own listener.
const PAGES: [&str; 2] = ["http://admin:secret@127.0.0.1:8080/stats", "http://admin:secret@127.0.0.1:8404/"];
const WIDE: (u32, u32) = (1400, 1100);
const NARROW: (u32, u32) = (500, 4500);

/// Every server's row, and the hue of its colour: that of HAProxy's page.
const ROWS: [(&str, &str, std::ops::Range<f64>); 7] = [
    ("web1", "up", 100.0..160.0),
    ("web2", "down", -15.0..15.0),
    ("web3", "maintenance", 20.0..40.0),
    ("web4", "drain", 200.0..225.0),
    ("fading", "up, going down", 45.0..60.0),
    ("waking", "down, going up", 25.0..42.0),
    ("trusted", "not checked", 200.0..225.0),
];

const TABLES: &str = r#"
[stats]
listen = "127.0.0.1:8404"
users = { admin = "secret" }

[frontends.shop]
bind = "127.0.0.1:8080"
default_backend = "shop"
stats = { path = "/stats", users = { admin = "secret" } }

[backends.shop]
cookie = { name = "A&B", mode = "insert" }
health = { interval = "500ms", fall = 1000, rise = 1000 }
servers = [
    { name = "fading", address = "10.77.0.22:8080" },
    { name = "waking", address = "127.0.0.1:9000" },
    { name = "trusted", address = "10.77.0.21:8080", check = false },
]
"#;

/// What the page's own elements are and where, for expressions.
const LOOK: &str = r#"
    const row = name => [...document.querySelectorAll('tr.row')]
        .find(row => row.querySelector('th').firstChild.textContent.trim() === name);
    const rgb = colour => {
        const parts = colour.match(/[\d.]+/g).map(Number);
        return colour.startsWith('color(') ? parts.map((part, at) => at < 3 ? part * 255 : part) : parts;
    };
    const ground = element => {
        for (; element; element = element.parentElement) {
            const [r, g, b, alpha = 1] = rgb(getComputedStyle(element).backgroundColor);
            if (alpha > 0) return [r, g, b];
        }
        return [255, 255, 255];
    };
"#;

#[test]
fn the_page_in_a_browser() {
    let Some(mut lab) = lab(|options| {
        options.servers = 4;
        options.tables = TABLES.to_owned();
    }) else {
        return;
    };
    wait_for_the_pair(&lab);
    lab.pair.servers[1].stop();
    let active = &lab.pair.nodes[0];
    for (order, name) in [("maintenance", "app/web3"), ("drain", "app/web4")] {
        let output = server(&active.control_socket(), &[order, name]);
        assert!(output.status.success(), "{output:?}");
    }
    active.host.namespace.run(look).unwrap();

    lab.pair.nodes[1].signal_all(Signal::SIGKILL).unwrap();
    let mut page = String::new();
    let page_of_the_other = || {
        page = lab.pair.nodes[0]
            .host
            .namespace
            .run(|| ask(([127, 0, 0, 1], 8404).into(), "/", Some(ADMIN)).text())
            .unwrap();
        page.contains("<article class=\"node down\">") && page.contains("not connected: ")
    };
    wait_until("the page says that the peer is lost", page_of_the_other, String::new);
}

/// Until the first node is active, the other could take over, and all servers but one have been found up.
fn wait_for_the_pair(lab: &Lab) {
    let is_ready = || {
        let status = lab.pair.status()[0].clone();
        lab.pair.active() == Some(0)
            && status.is_some_and(|it| it.peers[0].status.can_take_over && servers_up(&it.node) == 4 + 2)
    };
    wait_until("the pair is ready", is_ready, || lab.pair.messages());
}

/// From within the active node.
fn look() {
    let waking: SocketAddr = "127.0.0.1:9000".parse().unwrap();
    let _waking = Server::answering_at(waking, |_| response("200 OK", "", "awake"));
    let mut chromium = Chromium::without_scripts();

    for page in PAGES {
        let refused = chromium.open(&page.replace("secret", "wrong"), WIDE, "light");
        assert_eq!(refused, Err("net::ERR_INVALID_AUTH_CREDENTIALS".to_owned()));

        chromium.open(&format!("{page}?refresh=1"), WIDE, "light").unwrap();
        it_comes_again(&mut chromium);
        for (name, state, _) in ROWS {
            let words = format!("row('{name}')?.querySelector('.pill').innerText.startsWith('{state}')");
            chromium.wait_for(&look_for(&words));
        }
        for scheme in ["light", "dark"] {
            for window in [WIDE, NARROW] {
                chromium.open(page, window, scheme).unwrap();
                keep_picture(&mut chromium, &format!("{scheme}-{}-{}", window.0, page.ends_with("stats")));
                nothing_overflows(&mut chromium);
                all_text_is_readable(&mut chromium);
                the_pair_is_on_top(&mut chromium);
                rows_have_their_colours(&mut chromium);
            }
        }
    }
}

fn it_comes_again(chromium: &mut Chromium) {
    let now = "performance.timeOrigin";
    let before = chromium.evaluate(now);
    chromium.wait_for(&format!("{now} > {before}"));
}

/// Neither the page in its window, nor a text in its cell.
fn nothing_overflows(chromium: &mut Chromium) {
    let fits = "document.documentElement.scrollWidth <= innerWidth";
    assert_eq!(chromium.evaluate(fits), true, "the page is wider than its window");
    let wide = "[...document.querySelectorAll('main *')].filter(it => !it.closest('thead') && \
                (it.scrollWidth > it.clientWidth + 1 && it.clientWidth || it.getBoundingClientRect().right > innerWidth))\
                .map(it => it.outerHTML)";
    assert_eq!(chromium.evaluate(wide), json!([]));
}

/// WCAG 2's contrast of 4.5 to 1, at all texts.
fn all_text_is_readable(chromium: &mut Chromium) {
    let poor = r#"
        const light = colour => colour.slice(0, 3).map(part => part / 255)
            .map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
            .reduce((sum, part, at) => sum + part * [0.2126, 0.7152, 0.0722][at], 0);
        const contrast = element => {
            const both = [light(rgb(getComputedStyle(element).color)), light(ground(element))];
            return (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05);
        };
        const texts = [...document.querySelectorAll('body *')]
            .filter(it => [...it.childNodes].some(node => node.nodeType === 3 && node.data.trim()));
        [texts.length > 100, texts.filter(it => contrast(it) < 4.5).map(it => [it.outerHTML, contrast(it)])]
    "#;
    assert_eq!(chromium.evaluate(&look_for(poor)), json!([true, []]));
}

fn the_pair_is_on_top(chromium: &mut Chromium) {
    let nodes = chromium.evaluate("[...document.querySelectorAll('.node')].map(node => node.innerText)");
    let [own, peer] = &nodes.as_array().unwrap()[..] else { panic!("{nodes}") };
    let all = |text: &Value, words: [&str; 3]| words.iter().all(|word| text.as_str().unwrap().contains(word));
    assert!(all(own, ["lb1 this node", "active", "10.77.0.10/24"]), "{own}");
    assert!(all(peer, ["lb2 peer", "backup", "could take over"]), "{peer}");
    let is_above = "document.querySelector('.pair').getBoundingClientRect().bottom <= \
                    document.querySelector('table').getBoundingClientRect().top";
    assert_eq!(chromium.evaluate(is_above), true);
    assert_eq!(chromium.evaluate("document.querySelector('table').innerText.includes('the cookie A&B')"), true);
}

/// In the picture, not in what the page's style asks for.
fn rows_have_their_colours(chromium: &mut Chromium) {
    let picture = chromium.picture();
    let names = serde_json::to_string(&ROWS.map(|(name, ..)| name)).unwrap();
    let pixels = format!(
        r#"(async () => {{
            {LOOK}
            const bitmap = new Image();
            bitmap.src = 'data:image/png;base64,{picture}';
            await bitmap.decode();
            const canvas = document.createElement('canvas');
            [canvas.width, canvas.height] = [bitmap.width, bitmap.height];
            const context = canvas.getContext('2d');
            context.drawImage(bitmap, 0, 0);
            // Beside the name, where no text is.
            return {names}.map(row).map(row => row.getBoundingClientRect())
                .map(box => [...context.getImageData(box.right - 3, box.top + 12, 1, 1).data]);
        }})()"#
    );
    let pixels = chromium.evaluate(&pixels);
    for ((name, state, hues), pixel) in ROWS.iter().zip(pixels.as_array().unwrap()) {
        let [red, green, blue] = [0, 1, 2].map(|part| pixel[part].as_f64().unwrap());
        let hue = hue(red, green, blue);
        assert!(hues.contains(&hue), "the row of {name}, {state}, has the hue {hue}: {pixel}");
    }
}

/// In degrees: red is 0, green 120, blue 240 or -120; here from -60 to 300.
fn hue(red: f64, green: f64, blue: f64) -> f64 {
    let most = red.max(green).max(blue);
    let range = most - red.min(green).min(blue);
    60.0 * match most {
        _ if range == 0.0 => f64::NAN,
        _ if most == red => (green - blue) / range,
        _ if most == green => 2.0 + (blue - red) / range,
        _ => 4.0 + (red - green) / range,
    }
}

/// An expression with what it needs to find elements.
fn look_for(expression: &str) -> String {
    format!("{{ {LOOK} {expression} }}")
}

/// For whoever wants to look as well: in the directory `RELEVO_PICTURES`.
fn keep_picture(chromium: &mut Chromium, name: &str) {
    if let Some(directory) = std::env::var_os("RELEVO_PICTURES") {
        let picture = STANDARD.decode(chromium.picture()).unwrap();
        std::fs::write(std::path::Path::new(&directory).join(format!("{name}.png")), picture).unwrap();
    }
}
