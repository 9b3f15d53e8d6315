//! The one way to write a path that means the same as others (RFC 3986 §6.2.2), so that no rule and no route is passed by in
//! disguise.

/// What needs no percent-encoding is without (`%61` is `a`), hexadecimal digits are capitals, segments that lead nowhere
/// (`.`, `..` and empty ones) are gone. `%2F` stays: it is a character of a segment, not its end. `None`: a percent sign
/// without two digits, or `%00`, with which servers do as they like.
pub(super) fn normal_path(path: &str) -> Option<Vec<u8>> {
    if !path.starts_with('/') {
        return Some(path.as_bytes().to_vec()); // the star of OPTIONS
    }
    let path = without_needless_encoding(path.as_bytes())?;
    let mut segments: Vec<&[u8]> = Vec::new();
    let mut names_directory = false;
    for segment in path.split(|byte| *byte == b'/') {
        names_directory = true;
        match segment {
            b"" | b"." => {}
            b".." => drop(segments.pop()),
            segment => {
                segments.push(segment);
                names_directory = false;
            }
        }
    }
    let mut normal = Vec::with_capacity(path.len());
    for segment in segments {
        normal.push(b'/');
        normal.extend_from_slice(segment);
    }
    if names_directory {
        normal.push(b'/');
    }
    Some(normal)
}

fn without_needless_encoding(path: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::with_capacity(path.len());
    let mut rest = path.iter();
    while let Some(byte) = rest.next() {
        if *byte != b'%' {
            plain.push(*byte);
            continue;
        }
        let (high, low) = (*rest.next()?, *rest.next()?);
        match digit(high)? << 4 | digit(low)? {
            0 => return None,
            byte if is_unreserved(byte) => plain.push(byte),
            _ => plain.extend([b'%', high.to_ascii_uppercase(), low.to_ascii_uppercase()]),
        }
    }
    Some(plain)
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// RFC 3986 §2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_means_the_same_is_written_the_same() {
        for (path, normal) in [
            ("/", "/"),
            ("*", "*"),
            ("/a/b", "/a/b"),
            ("/a/b/", "/a/b/"),
            ("/%61dmin/%7Euser", "/admin/~user"),
            ("//a///b//", "/a/b/"),
            ("/./a/./b/.", "/a/b/"),
            ("/x/../a/b/..", "/a/"),
            ("/x/%2e%2E/a", "/a"),
            ("/..//../a", "/a"),
            ("/..", "/"),
            ("/...", "/..."),
            ("/.a/..b", "/.a/..b"),
            // What is encoded for a reason stays, and is decoded once.
            ("/a%2fb%c3%a9", "/a%2Fb%C3%A9"),
            ("/%2561", "/%2561"),
            ("/a%20b;c=d", "/a%20b;c=d"),
        ] {
            assert_eq!(normal_path(path).as_deref(), Some(normal.as_bytes()), "{path}");
        }
        for path in ["/%", "/%6", "/%6g", "/%%361", "/a%00.png"] {
            assert_eq!(normal_path(path), None, "{path}");
        }
    }

    proptest! {
        #[test]
        fn what_is_normal_stays(path in "/([a./]|%[0-9a-f]{2}){0,20}") {
            if let Some(normal) = normal_path(&path) {
                let text = std::str::from_utf8(&normal).unwrap();
                prop_assert!(text.starts_with('/') && !text.contains("//"));
                prop_assert!(text.split('/').all(|segment| segment != "." && segment != ".."));
                prop_assert_eq!(normal_path(text), Some(normal.clone()));
            }
        }
    }
}
