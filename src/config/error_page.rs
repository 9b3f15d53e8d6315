//! A file that is answered in the place of a page of ours: a whole message as HAProxy's `errorfile` has it (`.http`), or a
//! body, whose type its extension says.

use std::io;
use std::path::Path;

use super::model::ErrorPage;
use super::text;

/// Longest file. All of them go to every balancer, which holds them in memory.
pub(super) const LONGEST: u64 = 64 * 1024;

/// Extensions and what they stand for.
const TYPES: [(&str, &str); 6] = [
    ("html", "text/html; charset=utf-8"),
    ("htm", "text/html; charset=utf-8"),
    ("txt", "text/plain; charset=utf-8"),
    ("json", "application/json"),
    ("xml", "application/xml"),
    ("xhtml", "application/xhtml+xml"),
];

/// How a message is framed, and what becomes of its connection, is not for a file to say.
const OURS: [&str; 8] =
    ["connection", "content-length", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"];

/// What is in such a file.
pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    text::of_regular_file(path, LONGEST)
}

/// The answer that a file of this name holds; `status` is that of the page in whose place it is.
///
/// # Errors
/// What is wrong with it, in words.
pub(super) fn parse(path: &Path, bytes: Vec<u8>, status: u16) -> Result<ErrorPage, String> {
    if bytes.len() as u64 > LONGEST {
        return Err(format!("it has more than {LONGEST} bytes"));
    }
    let text = String::from_utf8(bytes).map_err(|_| "it is no text in UTF-8".to_owned())?;
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    if extension == "http" {
        return message(&text);
    }
    let known = TYPES.iter().find(|(known, _)| *known == extension);
    let Some((_, content_type)) = known else {
        return Err("its name ends neither with .http (a whole message) nor with .html, .txt, .json or .xml".to_owned());
    };
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let headers = vec![header("content-type", content_type), header("cache-control", "no-cache")];
    Ok(ErrorPage { status, headers, body: text })
}

fn message(text: &str) -> Result<ErrorPage, String> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let head = match response.parse(text.as_bytes()) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Err("its head has no empty line at its end".to_owned()),
        Err(error) => return Err(format!("it does not begin as an HTTP response: {error}")),
    };
    let Some(status @ (200..=203 | 206..=303 | 305..=599)) = response.code else {
        return Err("its status is not one of an answer with a body".to_owned());
    };
    let mut kept = Vec::new();
    for header in response.headers.iter() {
        let name = header.name.to_ascii_lowercase();
        let value = std::str::from_utf8(header.value).map_err(|_| format!("its header {name} is no text in UTF-8"))?;
        if !OURS.contains(&name.as_str()) {
            kept.push((name, value.to_owned()));
        }
    }
    Ok(ErrorPage { status, headers: kept, body: text.get(head..).unwrap_or_default().to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(name: &str, text: &str) -> Result<ErrorPage, String> {
        parse(Path::new(name), text.as_bytes().to_vec(), 503)
    }

    #[test]
    fn a_whole_message_keeps_what_is_not_about_its_connection() {
        let text =
            "HTTP/1.0 429 Slow Down\r\nRetry-After: 5\r\nConnection: close\r\ncontent-length: 99\r\n\r\n<p>no</p>";
        for text in [text.to_owned(), text.replace("\r\n", "\n")] {
            let page = parsed("/a/503.http", &text).unwrap();
            assert_eq!((page.status, page.body.as_str()), (429, "<p>no</p>"));
            assert_eq!(page.headers, [("retry-after".to_owned(), "5".to_owned())]);
        }
    }

    #[test]
    fn a_body_has_the_type_of_its_name() {
        let page = parsed("/a/503.json", "{}").unwrap();
        assert_eq!((page.status, page.body.as_str()), (503, "{}"));
        assert_eq!(page.headers[0], ("content-type".to_owned(), "application/json".to_owned()));
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        let long = "a".repeat(LONGEST as usize + 1);
        for (name, text, words) in [
            ("/a/503", "a", "neither"),
            ("/a/503.png", "a", "neither"),
            ("/a/503.html", &long, "65536"),
            ("/a/503.http", "<html>", "HTTP response"),
            ("/a/503.http", "HTTP/1.1 503 No\r\nA: b\r\n", "empty line"),
            ("/a/503.http", "HTTP/1.1 204 No Content\r\n\r\n", "status"),
            ("/a/503.http", "HTTP/1.1 100 Continue\r\n\r\n", "status"),
        ] {
            let error = parsed(name, text).unwrap_err();
            assert!(error.contains(words), "{name}: {error}");
        }
        assert!(parse(Path::new("/a/503.txt"), vec![0xff], 503).unwrap_err().contains("UTF-8"));
    }
}
