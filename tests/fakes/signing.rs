//! HMAC-SHA256, of which two of the providers make their webhook signatures.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// The code of a message under a key of any length.
pub(crate) fn hmac(key: &str, message: &[u8]) -> Vec<u8> {
    match Hmac::<Sha256>::new_from_slice(key.as_bytes()) {
        Ok(mut mac) => {
            mac.update(message);
            mac.finalize().into_bytes().to_vec()
        }
        // HMAC takes keys of every length.
        Err(_) => Vec::new(),
    }
}

/// The same in lower-case hexadecimal digits.
pub(crate) fn hex(key: &str, message: &[u8]) -> String {
    hex::encode(hmac(key, message))
}

/// The vectors that the providers' own SDKs have judged.
#[cfg(test)]
pub(crate) fn vectors() -> serde_json::Value {
    serde_json::from_str(include_str!("documents/webhooks/vectors.json")).expect("vectors")
}
