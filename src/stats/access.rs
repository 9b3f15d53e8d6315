//! Who may see the statistics: HTTP's Basic authentication (RFC 7617), compared in constant time.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha_crypt::{PasswordVerifier, ShaCrypt};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use crate::config::model::{Password, User};

/// The longest name and password that are looked at: hashing takes time by their length.
const LONGEST: usize = 512;

/// May whoever sends this `Authorization` header see it? Where there are no users, everybody may.
///
/// This can take milliseconds where a password is given as a hash: call it where nothing waits.
pub fn is_allowed(users: &[User], authorization: Option<&[u8]>) -> bool {
    if users.is_empty() {
        return true;
    }
    let Some((name, password)) = authorization.and_then(credentials) else { return false };
    // Whether the name exists is not to be seen from the time: the password is compared with everybody's.
    let is_user = |user: &User| is_equal(user.name.as_bytes(), &name) & matches(&user.password, &password);
    users.iter().fold(Choice::from(0), |is_one, user| is_one | is_user(user)).into()
}

/// RFC 7617 §2: `Basic`, then name and password with a colon between them, in Base64.
fn credentials(authorization: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let (scheme, rest) = authorization.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") || rest.len() > 2 * LONGEST {
        return None;
    }
    let decoded = STANDARD.decode(rest.trim_ascii()).ok()?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    let password = decoded.get(colon + 1..)?.to_vec();
    Some((decoded.get(..colon)?.to_vec(), password))
}

fn matches(password: &Password, given: &[u8]) -> Choice {
    match password {
        Password::Plain(plain) => is_equal(plain.as_bytes(), given),
        Password::ShaCrypt(hash) => {
            Choice::from(u8::from(ShaCrypt::SHA512.verify_password(given, hash.as_str()).is_ok()))
        }
    }
}

/// Digests have one length, so the time tells nothing of the texts'.
fn is_equal(one: &[u8], other: &[u8]) -> Choice {
    Sha256::digest(one).as_slice().ct_eq(Sha256::digest(other).as_slice())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(text: &str) -> Vec<u8> {
        format!("Basic {}", STANDARD.encode(text)).into_bytes()
    }

    #[test]
    fn only_the_right_name_and_password_are_let_in() {
        let user = |name: &str, password| User { name: name.to_owned(), password };
        let users = [
            user("admin", Password::Plain("secret:with colon".to_owned())),
            user("reader", Password::Plain(String::new())),
        ];
        for (text, expected) in [
            ("admin:secret:with colon", true),
            ("admin:secret", false),
            ("admin:", false),
            ("Admin:secret:with colon", false),
            ("nobody:secret:with colon", false),
            ("reader:", true),
            ("reader", false),
            ("", false),
        ] {
            assert_eq!(is_allowed(&users, Some(&header(text))), expected, "{text}");
        }
        assert!(!is_allowed(&users, None));
        assert!(!is_allowed(&users, Some(b"Bearer YWRtaW46c2VjcmV0")));
        assert!(!is_allowed(&users, Some(b"Basic \xff\xff")));
        assert!(is_allowed(&[], None));
    }

    #[test]
    fn the_time_does_not_tell_whether_a_name_exists() {
        let user = |name: &str, password| User { name: name.to_owned(), password };
        let slow = "$6$rounds=20000$saltsalt$TVLlQcbpFVof5W3Yz4DTP6gRstiNuHwwTt6GLc1E5n0U0aDehy0S5knV8wiOQSpT0Y77vwPZN.Pq.H91p5hVO1";
        let users =
            [user("plain", Password::Plain("secret".to_owned())), user("hashed", Password::ShaCrypt(slow.to_owned()))];
        let [hashed, plain, unknown] = ["hashed:wrong", "plain:wrong", "nobody:wrong"].map(|text| {
            let attempt = |_| {
                let begin = std::time::Instant::now();
                assert!(!is_allowed(&users, Some(&header(text))));
                begin.elapsed()
            };
            (0..3).map(attempt).min().unwrap()
        });
        assert!(plain > hashed / 3 && unknown > hashed / 3, "{hashed:?}, {plain:?}, {unknown:?}");
    }

    #[test]
    fn a_hash_of_crypt_is_as_good_as_the_password() {
        // openssl passwd -6 and -5, and crypt(3) with rounds that are not the default.
        for hash in [
            "$6$saltsalt$TVLlQcbpFVof5W3Yz4DTP6gRstiNuHwwTt6GLc1E5n0U0aDehy0S5knV8wiOQSpT0Y77vwPZN.Pq.H91p5hVO1",
            "$5$saltsalt$0IyaXrmV7.sGNS6tirgqHLqX/G.FBvgkYA.lpPdS5sA",
            "$6$rounds=1000$saltsalt$LAV5VE5Y7w1d73x1mFNspYWUpazfmwv2SoepNXNKJ/otop/Zok96Hr8Q13LEv0DRY/x8v0/crpIjl8NJSAqXV/",
        ] {
            let users = [User { name: "admin".to_owned(), password: Password::ShaCrypt(hash.to_owned()) }];
            assert!(is_allowed(&users, Some(&header("admin:secret"))), "{hash}");
            assert!(!is_allowed(&users, Some(&header("admin:Secret"))), "{hash}");
            assert!(!is_allowed(&users, Some(&header(&format!("admin:{hash}")))), "{hash}");
        }
    }
}
