//! What is known of a checkout when it is screened.
//!
//! Payment tokens, e-mail and postal addresses are kept as digests: they are compared, and never read. Of a client's
//! address its network is kept.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{address::Address, ids::UserId, money::Currency};

/// By what checkouts are told to be the same person's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum By {
    /// The account; a guest has none.
    Account,
    /// The e-mail address, without case and `+tag`.
    Email,
    /// Where the parcel goes.
    Address,
    /// Where the request came from.
    Network,
    /// What is paid with.
    Token,
}

impl By {
    /// Everything.
    pub const ALL: [Self; 5] = [Self::Account, Self::Email, Self::Address, Self::Network, Self::Token];

    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Account => "ACCOUNT",
            Self::Email => "EMAIL",
            Self::Address => "ADDRESS",
            Self::Network => "NETWORK",
            Self::Token => "TOKEN",
        }
    }
}

/// Why a text is none of the facts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FactsError {
    /// Not 64 hexadecimal digits.
    #[error("must be a SHA-256 digest: 64 hexadecimal digits")]
    Digest,
    /// Neither an address nor a network as we keep them.
    #[error("must be an IP address, or a network with /24 (IPv4) or /48 (IPv6)")]
    Network,
    /// No account's id.
    #[error("must be an account's id")]
    Account,
}

/// SHA-256 of something that is compared and never read; in hexadecimal wherever it is shown.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

impl Digest {
    /// The kind and the lengths keep what is not the same apart: a token is never the digest of an e-mail address.
    fn of(kind: &str, parts: &[&str]) -> Self {
        let mut hash = Sha256::new();
        for part in [kind].iter().chain(parts) {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        Digest(hash.finalize().into())
    }

    /// Of an e-mail address without case and `+tag`, as a limit of coupons knows customers.
    pub fn of_email(email: &str) -> Self {
        let email = email.trim().to_lowercase();
        let (user, host) = email.rsplit_once('@').unwrap_or((&email, ""));
        Digest::of("email", &[user.split('+').next().unwrap_or(user), host])
    }

    /// Of the place a parcel goes to, whoever receives it, however it is spelt out.
    pub fn of_address(address: &Address) -> Self {
        let Address { address_line1, address_line2, city, state, postal_code, country, .. } = address;
        let second = address_line2.as_deref().unwrap_or_default();
        let parts = [address_line1, second, city, state, postal_code, country].map(plain);
        Digest::of("address", &parts.each_ref().map(String::as_str))
    }

    /// Of a gateway's payment token.
    pub fn of_token(token: &str) -> Self {
        Digest::of("token", &[token])
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// A number that stands for it in a lock: two of them are as good as never the same, and then only wait.
    pub fn lock_key(&self) -> i64 {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        i64::from_be_bytes([a, b, c, d, e, f, g, h])
    }
}

/// Letters and digits only, in lower case.
fn plain(text: &str) -> String {
    text.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = FactsError;

    fn from_str(text: &str) -> Result<Self, FactsError> {
        let mut bytes = [0; 32];
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(FactsError::Digest);
        }
        for (index, byte) in bytes.iter_mut().enumerate() {
            let pair = text.get(2 * index..2 * index + 2).ok_or(FactsError::Digest)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| FactsError::Digest)?;
        }
        Ok(Digest(bytes))
    }
}

impl TryFrom<String> for Digest {
    type Error = FactsError;

    fn try_from(text: String) -> Result<Self, FactsError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl TryFrom<Vec<u8>> for Digest {
    type Error = FactsError;

    fn try_from(bytes: Vec<u8>) -> Result<Self, FactsError> {
        bytes.try_into().map(Digest).map_err(|_| FactsError::Digest)
    }
}

/// Where a request came from: the /24 of an IPv4 address, the /48 of an IPv6 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network(IpAddr);

impl Network {
    /// The network an address is in. An IPv4 address written as one of IPv6 is an IPv4 address.
    pub fn of(address: IpAddr) -> Self {
        Network(match address.to_canonical() {
            IpAddr::V4(address) => IpAddr::V4(Ipv4Addr::from_bits(address.to_bits() & (u32::MAX << 8))),
            IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 80))),
        })
    }

    fn prefix(self) -> u8 {
        match self.0 {
            IpAddr::V4(_) => 24,
            IpAddr::V6(_) => 48,
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.0, self.prefix())
    }
}

impl FromStr for Network {
    type Err = FactsError;

    fn from_str(text: &str) -> Result<Self, FactsError> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix.parse::<u8>().map_err(|_| FactsError::Network)?)),
            None => (text, None),
        };
        let network = Network::of(address.parse().map_err(|_| FactsError::Network)?);
        match prefix {
            Some(prefix) if prefix != network.prefix() => Err(FactsError::Network),
            Some(_) | None => Ok(network),
        }
    }
}

impl TryFrom<String> for Network {
    type Error = FactsError;

    fn try_from(text: String) -> Result<Self, FactsError> {
        text.parse()
    }
}

impl From<Network> for String {
    fn from(network: Network) -> Self {
        network.to_string()
    }
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Counted {
    /// Checkouts screened before.
    Checkouts,
    /// Failed payments of checkouts screened before.
    FailedAttempts,
}

impl Counted {
    /// The name in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Checkouts => "CHECKOUTS",
            Self::FailedAttempts => "FAILED_ATTEMPTS",
        }
    }
}

/// Something counted of all checkouts that have this in common and are younger than the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counter {
    /// What.
    pub counted: Counted,
    /// Of whom.
    pub by: By,
    /// In how many seconds before.
    pub window_s: u32,
}

/// How far a counter got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Count {
    /// Which.
    #[serde(flatten)]
    pub counter: Counter,
    /// Not counted any further.
    pub most: u32,
    /// How many came before.
    pub seen: u32,
}

impl Count {
    /// Whether it tells if so many came before.
    pub(super) fn tells(&self, counter: &Counter, limit: u32) -> bool {
        self.counter == *counter && (self.most >= limit || self.seen < self.most)
    }
}

/// What is known of a checkout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Facts {
    /// The account; none for a guest.
    pub user_id: Option<UserId>,
    /// Since when there is that account.
    pub account_since: Option<DateTime<Utc>>,
    /// See [`Digest::of_email`].
    pub email: Option<Digest>,
    /// See [`Digest::of_address`].
    pub address: Option<Digest>,
    /// None where the request's origin is unknown.
    pub network: Option<Network>,
    /// See [`Digest::of_token`]; none for cash.
    pub token: Option<Digest>,
    /// Who pays is there.
    pub billing_country: String,
    /// The parcel goes there.
    pub shipping_country: String,
    /// What it comes to.
    pub amount: Decimal,
    /// Of the amount.
    pub currency: Currency,
    /// When it was screened.
    pub at: DateTime<Utc>,
    /// What was counted of those before.
    pub counts: Vec<Count>,
}

impl Facts {
    /// What it is counted under.
    pub fn key(&self, by: By) -> Option<Digest> {
        match by {
            By::Account => self.user_id.map(|user_id| Digest::of("account", &[&user_id.to_string()])),
            By::Email => self.email,
            By::Address => self.address,
            By::Network => self.network.map(|network| Digest::of("network", &[&network.to_string()])),
            By::Token => self.token,
        }
    }

    /// Whether so many were counted.
    pub(super) fn has_seen(&self, counter: &Counter, limit: u32) -> bool {
        self.counts.iter().any(|count| count.tells(counter, limit) && count.seen >= limit)
    }
}
