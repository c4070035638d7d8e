//! Ids as the providers make them: a prefix and so many letters and digits.

use rand::RngExt as _;

const MIXED: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const CAPITAL: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";

/// A prefix and `length` letters of either case and digits.
pub(crate) fn mixed(prefix: &str, length: usize) -> String {
    drawn(prefix, MIXED, length)
}

/// `length` capital letters and digits.
pub(crate) fn capital(length: usize) -> String {
    drawn("", CAPITAL, length)
}

fn drawn(prefix: &str, alphabet: &[u8], length: usize) -> String {
    let mut random = rand::rng();
    let letters = (0..length).filter_map(|_| alphabet.get(random.random_range(0..alphabet.len())).copied());
    prefix.chars().chain(letters.map(char::from)).collect()
}
