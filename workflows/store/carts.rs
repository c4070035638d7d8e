//! `carts`, `cart_items`, `cart_coupons`.

pub mod idle;
mod line;
pub mod merging;
mod open;

use std::collections::{HashMap, hash_map::Entry};

use chrono::{DateTime, Utc};
use domain::{
    cart::CartStatus,
    ids::{CartId, UserId},
    money::Currency,
};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use uuid::Uuid;

pub use line::{CartLine, PriceChange, Shortage};
pub use open::{
    CartChange, OpenCart, Stamp, create, expire, find_open, find_variant, is_known_session, lock_open, next_id, save,
};

/// Whose cart. A user has one open cart, and so has a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// Logged in.
    User(UserId),
    /// Known by a secret, of which only the hash is kept.
    Guest {
        /// SHA-256 of the secret.
        session_hash: Vec<u8>,
    },
}

impl Owner {
    /// As the columns `user_id` and `session_hash`.
    pub fn columns(&self) -> (Option<Uuid>, Option<&[u8]>) {
        match self {
            Owner::User(user_id) => (Some(Uuid::from(*user_id)), None),
            Owner::Guest { session_hash } => (None, Some(session_hash)),
        }
    }

    /// The user, if it is one.
    pub fn user_id(&self) -> Option<UserId> {
        match self {
            Owner::User(user_id) => Some(*user_id),
            Owner::Guest { .. } => None,
        }
    }

    /// Whether a cart is theirs.
    pub fn owns(&self, cart: &StoredCart) -> bool {
        match self {
            Owner::User(user_id) => cart.user_id == Some(*user_id),
            Owner::Guest { session_hash } => cart.user_id.is_none() && cart.session_hash.as_ref() == Some(session_hash),
        }
    }
}

/// A cart with its lines at today's prices and stock.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StoredCart {
    /// Its id.
    pub id: CartId,
    /// Owner, unless it is a guest's.
    pub user_id: Option<UserId>,
    /// Hash of the guest's secret token. It stays in Postgres: copies of a cart are kept without.
    #[serde(skip)]
    pub session_hash: Option<Vec<u8>>,
    /// Where it stands.
    pub status: CartStatus,
    /// Its one currency.
    pub currency: String,
    /// Raised by every write: the ETag.
    pub version: i64,
    /// Raised by every undone checkout.
    pub generation: i32,
    /// The run that holds it, or that converted it.
    pub checkout_run_id: Option<Uuid>,
    /// In variant order.
    pub lines: Vec<CartLine>,
}

impl StoredCart {
    /// The first currency in the cart that is not `currency`: its own, or that of a line.
    pub fn other_currency(&self, currency: Currency) -> Option<&str> {
        let lines = self.lines.iter().map(|line| line.currency.as_str());
        std::iter::once(self.currency.as_str()).chain(lines).find(|found| *found != currency.as_str())
    }
}

/// A row of a cart and a line of it, if it has any.
struct Row {
    id: Uuid,
    user_id: Option<Uuid>,
    session_hash: Option<Vec<u8>>,
    status: String,
    currency: String,
    version: i64,
    generation: i32,
    checkout_run_id: Option<Uuid>,
    variant_id: Option<Uuid>,
    quantity: Option<i32>,
    price_when_added: Option<Decimal>,
    sku: Option<String>,
    price: Option<Decimal>,
    tax_rate: Option<Decimal>,
    variant_name: Option<String>,
    attributes: Option<serde_json::Value>,
    product_id: Option<Uuid>,
    product_name: Option<String>,
    category_id: Option<Uuid>,
    image_url: Option<String>,
    line_currency: Option<String>,
    is_active: Option<bool>,
    available: i32,
}

/// The rows of the carts that a condition picks.
macro_rules! rows_where {
    ($condition:literal, $carts:expr) => {
        sqlx::query_as!(
            Row,
            r#"
            select c.id, c.user_id, c.session_hash, c.status, c.currency as "currency!", c.version, c.generation, c.checkout_run_id,
                   i.variant_id as "variant_id?", i.quantity as "quantity?", i.price as "price_when_added?",
                   v.sku as "sku?", v.price as "price?", v.tax_rate as "tax_rate?", v.variant_name, v.attributes,
                   p.id as "product_id?", p.product_name as "product_name?", p.category_id, p.image_url, p.currency as "line_currency?",
                   (v.is_active and p.is_active) as is_active, coalesce(s.available_quantity, 0) as "available!"
              from carts c
              left join cart_items i on i.cart_id = c.id
              left join product_variants v on v.id = i.variant_id
              left join products p on p.id = v.product_id
              left join inventory s on s.variant_id = v.id
             where "# + $condition + " order by c.id, i.variant_id",
            $carts
        )
    };
}

/// Reads a cart with its lines.
pub async fn load(conn: &mut PgConnection, cart_id: CartId) -> Result<Option<StoredCart>, sqlx::Error> {
    // Not as a set of one: for an array Postgres plans anew each time.
    let rows = rows_where!("c.id = $1", Uuid::from(cart_id)).fetch_all(conn).await?;
    Ok(gather(rows)?.remove(&cart_id))
}

/// Reads carts with their lines, those that there are. One statement.
pub async fn load_many(
    conn: &mut PgConnection,
    cart_ids: &[CartId],
) -> Result<HashMap<CartId, StoredCart>, sqlx::Error> {
    if cart_ids.is_empty() {
        return Ok(HashMap::new());
    }
    let ids: Vec<Uuid> = cart_ids.iter().copied().map(Uuid::from).collect();
    gather(rows_where!("c.id = any($1)", &ids).fetch_all(conn).await?)
}

fn gather(rows: Vec<Row>) -> Result<HashMap<CartId, StoredCart>, sqlx::Error> {
    let mut carts = HashMap::new();
    for row in rows {
        let cart = match carts.entry(CartId::from(row.id)) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(StoredCart {
                id: row.id.into(),
                user_id: row.user_id.map(UserId::from),
                session_hash: row.session_hash,
                status: row.status.parse().map_err(|_| sqlx::Error::Decode("an unknown cart status".into()))?,
                currency: row.currency,
                version: row.version,
                generation: row.generation,
                checkout_run_id: row.checkout_run_id,
                lines: Vec::new(),
            }),
        };
        let (Some(variant_id), Some(product_id)) = (row.variant_id, row.product_id) else { continue };
        let product_name = row.product_name.unwrap_or_default();
        cart.lines.push(CartLine {
            variant_id: variant_id.into(),
            product_id: product_id.into(),
            category_id: row.category_id,
            quantity: u32::try_from(row.quantity.unwrap_or_default()).unwrap_or_default(),
            price: row.price.unwrap_or_default(),
            price_when_added: row.price_when_added.unwrap_or_default(),
            currency: row.line_currency.unwrap_or_default(),
            tax_rate: row.tax_rate.unwrap_or_default(),
            sku: row.sku.unwrap_or_default(),
            name: full_name(product_name, row.variant_name),
            attributes: row.attributes,
            image_url: row.image_url,
            is_active: row.is_active.unwrap_or_default(),
            available: u32::try_from(row.available).unwrap_or_default(),
        });
    }
    Ok(carts)
}

/// A locked cart: how to reach its owner, and the engine's time.
#[derive(Debug, Clone)]
pub struct Locked {
    /// The owner's e-mail address, if it is an active user's cart.
    pub email: Option<String>,
    /// Their phone number.
    pub phone_number: Option<String>,
    /// Its time is over, though no sweep has noticed.
    pub is_stale: bool,
    /// Now, on the engine's clock.
    pub now: DateTime<Utc>,
}

/// What to do about a row that somebody else has locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lock {
    /// Wait for it.
    Wait,
    /// Do without it.
    Skip,
}

/// A locked cart of so many.
struct LockedRow {
    id: Uuid,
    email: Option<String>,
    phone_number: Option<String>,
    is_stale: bool,
    now: DateTime<Utc>,
}

macro_rules! lock_carts {
    ($how:literal, $carts:expr) => {
        sqlx::query_as!(
            LockedRow,
            r#"select c.id, u.email as "email?", u.phone_number, engine.now() as "now!",
                      coalesce(c.expires_at <= engine.now() and c.status <> 'CHECKOUT', false) as "is_stale!"
                 from carts c left join users u on u.id = c.user_id and u.is_active
                where c.id = any($1) order by c.id for update of c"#
                + $how,
            $carts
        )
    };
}

/// Locks the rows of carts, in the order of their ids, until the transaction ends. Reading their lines takes
/// another statement: this one's snapshot may be older than what a lock's last holder wrote.
pub async fn lock(
    conn: &mut PgConnection,
    cart_ids: &[CartId],
    lock: Lock,
) -> Result<HashMap<CartId, Locked>, sqlx::Error> {
    if cart_ids.is_empty() {
        return Ok(HashMap::new());
    }
    let ids: Vec<Uuid> = cart_ids.iter().copied().map(Uuid::from).collect();
    let rows = match lock {
        Lock::Wait => lock_carts!("", &ids).fetch_all(conn).await?,
        Lock::Skip => lock_carts!(" skip locked", &ids).fetch_all(conn).await?,
    };
    let locked = rows.into_iter().map(|LockedRow { id, email, phone_number, is_stale, now }| {
        (CartId::from(id), Locked { email, phone_number, is_stale, now })
    });
    Ok(locked.collect())
}

/// The open cart of each of these owners: ACTIVE, CHECKOUT or ABANDONED, and its time not over.
pub async fn open_of(conn: &mut PgConnection, owners: &[Owner]) -> Result<Vec<Option<CartId>>, sqlx::Error> {
    if owners.is_empty() {
        return Ok(Vec::new());
    }
    let (users, sessions): (Vec<Option<Uuid>>, Vec<Option<&[u8]>>) = owners.iter().map(Owner::columns).unzip();
    let ids = sqlx::query_scalar!(
        r#"
        select c.id as "id?"
          from unnest($1::uuid[], $2::bytea[]) with ordinality as o(user_id, session_hash, position)
          left join lateral (
               select id, expires_at, status from carts where user_id = o.user_id and status in ('ACTIVE', 'CHECKOUT', 'ABANDONED')
                union all
               select id, expires_at, status from carts
                where session_hash = o.session_hash and user_id is null and status in ('ACTIVE', 'CHECKOUT', 'ABANDONED')) c
            on c.expires_at is null or c.expires_at > engine.now() or c.status = 'CHECKOUT'
         order by o.position
        "#,
        &users as &[Option<Uuid>],
        &sessions as &[Option<&[u8]>],
    )
    .fetch_all(conn)
    .await?;
    Ok(ids.into_iter().map(|id| id.map(CartId::from)).collect())
}

/// Gives each of these locked carts to a run. Its end moves as far as its last activity does.
pub async fn hold_for_checkout(conn: &mut PgConnection, carts: &[(CartId, Uuid)]) -> Result<(), sqlx::Error> {
    if carts.is_empty() {
        return Ok(());
    }
    let (ids, runs): (Vec<Uuid>, Vec<Uuid>) =
        carts.iter().map(|&(cart_id, run_id)| (Uuid::from(cart_id), run_id)).unzip();
    sqlx::query!(
        "update carts c set status = 'CHECKOUT', checkout_run_id = o.run_id, version = c.version + 1,
                            updated_at = engine.now(), last_activity_at = engine.now(),
                            expires_at = c.expires_at + (engine.now() - c.last_activity_at)
           from unnest($1::uuid[], $2::uuid[]) as o(cart_id, run_id)
          where c.id = o.cart_id",
        &ids,
        &runs
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Each of these carts has become the order of its run.
pub async fn convert(conn: &mut PgConnection, carts: &[(CartId, Uuid)], now: DateTime<Utc>) -> Result<(), sqlx::Error> {
    if carts.is_empty() {
        return Ok(());
    }
    let (ids, runs): (Vec<Uuid>, Vec<Uuid>) =
        carts.iter().map(|&(cart_id, run_id)| (Uuid::from(cart_id), run_id)).unzip();
    sqlx::query!(
        "update carts c set status = 'CONVERTED', version = c.version + 1, updated_at = $3
           from unnest($1::uuid[], $2::uuid[]) as o(cart_id, run_id)
          where c.id = o.cart_id and (c.status = 'CHECKOUT') is true and c.checkout_run_id = o.run_id",
        &ids,
        &runs,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Each of these carts is the shopper's again, for as long as if they had just touched it.
pub async fn unlock(conn: &mut PgConnection, carts: &[(CartId, Uuid)], now: DateTime<Utc>) -> Result<(), sqlx::Error> {
    let (ids, runs): (Vec<Uuid>, Vec<Uuid>) =
        carts.iter().map(|&(cart_id, run_id)| (Uuid::from(cart_id), run_id)).unzip();
    sqlx::query!(
        "update carts c set status = 'ACTIVE', generation = c.generation + 1, version = c.version + 1,
                            checkout_run_id = null, updated_at = $3, last_activity_at = $3,
                            expires_at = c.expires_at + ($3 - c.last_activity_at)
           from unnest($1::uuid[], $2::uuid[]) as o(cart_id, run_id)
          where c.id = o.cart_id and (c.status = 'CHECKOUT') is true and c.checkout_run_id = o.run_id",
        &ids,
        &runs,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// What a variant is called on a line.
fn full_name(product_name: String, variant_name: Option<String>) -> String {
    match variant_name {
        Some(variant_name) => format!("{product_name}, {variant_name}"),
        None => product_name,
    }
}
