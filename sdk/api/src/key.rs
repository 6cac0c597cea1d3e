//! Keys: the names under which plugins are found.

use crate::error::{Error, ErrorKind, Result};

/// Longest key accepted.
pub const MAX_KEY_LEN: usize = 64;

/// Whether `key` may name a plugin: 1 to 64 characters of `a-z`, `0-9`, `_`, `-`, `.`, starting with a letter.
///
/// A `const fn`, so that a wrong key in a plugin's source is a compile error.
pub const fn is_valid(key: &str) -> bool {
    let bytes = key.as_bytes();
    if bytes.is_empty() || bytes.len() > MAX_KEY_LEN || !bytes[0].is_ascii_lowercase() {
        return false;
    }
    let mut i = 0;
    while i < bytes.len() {
        let b = bytes[i];
        if !(b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-' || b == b'.') {
            return false;
        }
        i += 1;
    }
    true
}

/// Checks a key that comes from a file or a person.
///
/// # Errors
/// [`ErrorKind::InvalidRequest`] naming the key and the rule.
pub fn check(what: &str, key: &str) -> Result<()> {
    if is_valid(key) {
        return Ok(());
    }
    Err(Error::new(ErrorKind::InvalidRequest, format!("`{key}` cannot be the key of a {what}"))
        .hint(format!("a key has 1 to {MAX_KEY_LEN} characters of a-z 0-9 _ - . and starts with a letter")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_lower_case_and_start_with_a_letter() {
        for good in ["euler", "dpmpp_2m", "stable-diffusion", "sd1.5"] {
            assert!(is_valid(good), "{good}");
        }
        for bad in ["", "Euler", "2m", "a b", "../x", "é"] {
            assert!(!is_valid(bad), "{bad}");
        }
        assert!(!is_valid(&"a".repeat(65)));
    }
}
