//! Who is asking: a user, a service, a guest, or nobody yet.

use std::{
    convert::Infallible,
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
};

use axum::{
    extract::{ConnectInfo, FromRequestParts, OptionalFromRequestParts},
    http::{Extensions, HeaderMap, header, request::Parts},
};
use chrono::{DateTime, Utc};
use domain::{fraud::Network, ids::UserId};
use secrecy::{ExposeSecret, SecretString};
use uuid::Uuid;
use workflows::store::users::{self, Role};

use crate::{
    error::ApiError,
    state::AppState,
    tokens::{AuthKeys, token_hash},
};

/// A guest's session, as given in `X-Cart-Session`.
#[derive(Debug, Clone)]
pub struct CartSession {
    /// The secret itself, to be given back to the guest.
    pub token: SecretString,
    /// What the database knows of it.
    pub hash: [u8; 32],
}

/// What another service's key may be good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Holding and releasing stock.
    Inventory,
    /// Reading the feed of events.
    EventsRead,
}

impl Scope {
    /// Every scope there is.
    pub const ALL: [Scope; 2] = [Scope::Inventory, Scope::EventsRead];

    /// As stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Scope::Inventory => "inventory",
            Scope::EventsRead => "events:read",
        }
    }
}

/// Who is asking. A bearer token wins over an API key, and either over a cart session.
#[derive(Debug, Clone)]
pub enum Caller {
    /// Logged in.
    User {
        /// Whose token it is.
        user_id: UserId,
        /// What he may do: by the database, but for a customer who only reads.
        role: Role,
    },
    /// Another service of the shop.
    Service {
        /// Of the API key.
        id: Uuid,
        /// What the key is for: names of [`Scope`]s.
        scopes: Vec<String>,
    },
    /// Not logged in, with a cart.
    Guest(CartSession),
    /// Not logged in, without one.
    Anonymous,
}

impl Caller {
    /// The logged-in user.
    ///
    /// # Errors
    /// 401 `login-required` for everybody else.
    pub fn require_user(&self) -> Result<UserId, ApiError> {
        match self {
            Caller::User { user_id, .. } => Ok(*user_id),
            Caller::Service { .. } | Caller::Guest(_) | Caller::Anonymous => Err(ApiError::login_required()),
        }
    }

    /// A user with the role STAFF or ADMIN.
    ///
    /// # Errors
    /// 401 `login-required`, or 403 `forbidden` for a known caller of another kind.
    pub fn require_staff(&self) -> Result<UserId, ApiError> {
        self.require_role(|role| match role {
            Role::Staff | Role::Admin => true,
            Role::Customer => false,
        })
    }

    /// A user with the role ADMIN.
    ///
    /// # Errors
    /// As [`Caller::require_staff`].
    pub fn require_admin(&self) -> Result<UserId, ApiError> {
        self.require_role(|role| match role {
            Role::Admin => true,
            Role::Staff | Role::Customer => false,
        })
    }

    /// A service whose key has this scope.
    ///
    /// # Errors
    /// As [`Caller::require_staff`].
    pub fn require_scope(&self, scope: Scope) -> Result<Uuid, ApiError> {
        match self {
            Caller::Service { id, scopes } if scopes.iter().any(|given| given == scope.as_str()) => Ok(*id),
            Caller::Service { .. } | Caller::User { .. } => Err(ApiError::forbidden()),
            Caller::Guest(_) | Caller::Anonymous => Err(ApiError::login_required()),
        }
    }

    fn require_role(&self, allows: impl FnOnce(Role) -> bool) -> Result<UserId, ApiError> {
        match self {
            Caller::User { user_id, role } if allows(*role) => Ok(*user_id),
            Caller::User { .. } | Caller::Service { .. } => Err(ApiError::forbidden()),
            Caller::Guest(_) | Caller::Anonymous => Err(ApiError::login_required()),
        }
    }

    /// Whether this is a user with the role STAFF or ADMIN.
    pub fn is_staff(&self) -> bool {
        self.require_staff().is_ok()
    }

    /// The name under which answers are kept for a retry, and actions are attributed: `user:<id>`,
    /// `session:<hash in hex>` or `service:<id>`.
    ///
    /// # Errors
    /// 401 `login-required` for an anonymous caller: a name shared by everybody would hand one
    /// stranger's answer to the next.
    pub fn key(&self) -> Result<String, ApiError> {
        match self {
            Caller::User { user_id, .. } => Ok(format!("user:{user_id}")),
            Caller::Service { id, .. } => Ok(format!("service:{id}")),
            Caller::Guest(session) => Ok(session.hash.iter().fold("session:".to_owned(), |mut key, byte| {
                // Writing into a String cannot fail.
                let _ = write!(key, "{byte:02x}");
                key
            })),
            Caller::Anonymous => Err(ApiError::login_required()),
        }
    }
}

impl FromRequestParts<AppState> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        if parts.headers.contains_key(header::AUTHORIZATION) {
            let refused =
                || ApiError::unauthorized("login-required", "The access token is not valid, or not any more.");
            let (user_id, role) = bearer_user(&parts.headers, &state.auth, Utc::now()).ok_or_else(refused)?;
            if role == Role::Customer && parts.method.is_safe() {
                // What one customer may see is his own: for its few minutes the token alone is good for that.
                return Ok(Caller::User { user_id, role });
            }
            // Whoever was switched off, forgotten or given another role since counts as what he is now.
            let mut conn = state.pool.acquire().await?;
            let user = users::find_user(&mut conn, user_id).await?.ok_or_else(refused)?;
            return Ok(Caller::User { user_id, role: user.role });
        }
        if let Some(value) = parts.headers.get("x-api-key") {
            let mut conn = state.pool.acquire().await?;
            let key_hash = token_hash(value.to_str().unwrap_or_default());
            return match users::keys::find(&mut conn, &key_hash).await? {
                Some(key) => {
                    if let Some(buckets) = &state.buckets {
                        buckets.know(key_hash, key.id);
                    }
                    Ok(Caller::Service { id: key.id, scopes: key.scopes })
                }
                None => Err(ApiError::unauthorized("login-required", "The API key is not valid.")),
            };
        }
        Ok(cart_session(&parts.headers).map_or(Caller::Anonymous, Caller::Guest))
    }
}

/// The session beside a bearer token, as the merge of two carts needs it.
impl OptionalFromRequestParts<AppState> for CartSession {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Option<Self>, ApiError> {
        Ok(cart_session(&parts.headers))
    }
}

/// A token that cannot be one of ours is no session. Whether it is one is only asked where a cart may be made:
/// elsewhere nothing is found under a made-up one.
fn cart_session(headers: &HeaderMap) -> Option<CartSession> {
    let token = headers.get("x-cart-session")?.to_str().ok()?;
    (16..=128).contains(&token.len()).then(|| CartSession { token: token.into(), hash: token_hash(token) })
}

/// Whose valid bearer token the request carries.
pub(crate) fn bearer_user(headers: &HeaderMap, keys: &AuthKeys, now: DateTime<Utc>) -> Option<(UserId, Role)> {
    let token = bearer(headers.get(header::AUTHORIZATION)?.to_str().ok()?)?;
    keys.verify(token, now)
}

/// The token of `Bearer <token>`; the scheme's case does not matter (RFC 9110 §11.1).
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

impl CartSession {
    /// A new session, of which nothing is written down: its signature says that it is ours.
    pub fn issue(keys: &AuthKeys) -> Self {
        let token = SecretString::from(keys.issue_session(&mut rand::rng()));
        CartSession { hash: token_hash(token.expose_secret()), token }
    }
}

/// The network that a request came from, as far as rules against fraud look at it.
pub(crate) struct ClientNetwork(pub(crate) Option<Network>);

impl FromRequestParts<AppState> for ClientNetwork {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Infallible> {
        Ok(ClientNetwork(client_address(&parts.headers, &parts.extensions, state).map(Network::of)))
    }
}

/// Where a request came from, if that is known.
pub(crate) fn client_address(headers: &HeaderMap, extensions: &Extensions, state: &AppState) -> Option<IpAddr> {
    let peer = extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| peer.ip());
    forwarded_for(headers, state.config.trusted_proxies).or(peer)
}

/// Who asked the outermost proxy that is ours. Anything further left was written by whoever asked.
pub(crate) fn forwarded_for(headers: &HeaderMap, proxies: usize) -> Option<IpAddr> {
    let lines = headers.get_all("x-forwarded-for").iter().filter_map(|line| line.to_str().ok());
    let addresses: Vec<&str> = lines.flat_map(|line| line.split(',')).map(str::trim).collect();
    let index = addresses.len().checked_sub(proxies.max(1)).filter(|_| proxies > 0)?;
    addresses[index].parse().ok()
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue, StatusCode};

    use super::*;

    #[test]
    fn only_what_our_own_proxies_wrote_is_believed() {
        let mut headers = HeaderMap::new();
        let name = HeaderName::from_static("x-forwarded-for");
        headers.append(&name, HeaderValue::from_static("6.6.6.6, 192.0.2.7"));
        headers.append(&name, HeaderValue::from_static("198.51.100.1"));
        let says = |proxies| forwarded_for(&headers, proxies).map(|address| address.to_string());
        assert_eq!(says(0), None);
        assert_eq!(says(1).as_deref(), Some("198.51.100.1"));
        assert_eq!(says(2).as_deref(), Some("192.0.2.7"));
        assert_eq!(says(4), None);
    }

    fn session() -> CartSession {
        CartSession::issue(&AuthKeys::new(&"0123456789abcdef0123456789abcdef".into()).expect("a secret"))
    }

    fn user(role: Role) -> Caller {
        Caller::User { user_id: UserId::generate(), role }
    }

    #[test]
    fn staff_routes_open_to_staff_and_admins_only() {
        assert!(user(Role::Staff).require_staff().is_ok());
        assert!(user(Role::Admin).require_staff().is_ok());
        let refused = |caller: Caller| caller.require_staff().expect_err("refused").status();
        assert_eq!(refused(user(Role::Customer)), StatusCode::FORBIDDEN);
        assert_eq!(refused(Caller::Anonymous), StatusCode::UNAUTHORIZED);
        assert_eq!(refused(Caller::Guest(session())), StatusCode::UNAUTHORIZED);
    }

    #[test]
    fn a_scope_is_needed_by_name() {
        let service = Caller::Service { id: Uuid::now_v7(), scopes: vec!["inventory".to_owned()] };
        assert!(service.require_scope(Scope::Inventory).is_ok());
        assert_eq!(service.require_scope(Scope::EventsRead).expect_err("refused").status(), StatusCode::FORBIDDEN);
    }

    #[test]
    fn a_guest_is_known_by_the_hash_of_his_session_only() {
        let session = session();
        let (token, key) = (session.token.clone(), Caller::Guest(session).key().expect("a key"));
        assert!(key.starts_with("session:") && key.len() == 8 + 64);
        assert!(!key.contains(token.expose_secret()));
    }

    #[test]
    fn the_bearer_scheme_is_case_insensitive() {
        assert_eq!(bearer("bearer abc"), Some("abc"));
        assert_eq!(bearer("Basic abc"), None);
        assert_eq!(bearer("abc"), None);
    }
}
