//! `categories` and `brands`: what products are filed under.

use sqlx::PgConnection;
use uuid::Uuid;

/// A category, perhaps within another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Category {
    /// Which.
    pub id: Uuid,
    /// Unique.
    pub name: String,
    /// The one it is in.
    pub parent_id: Option<Uuid>,
}

/// Who makes things.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Brand {
    /// Which.
    pub id: Uuid,
    /// Unique.
    pub name: String,
}

/// Categories in order of their ids, after the given one.
///
/// # Errors
/// The database's own.
pub async fn list_categories(
    conn: &mut PgConnection,
    after: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Category>, sqlx::Error> {
    sqlx::query_as!(
        Category,
        "select id, name, parent_id from categories where ($1::uuid is null or id > $1) order by id limit $2",
        after,
        limit
    )
    .fetch_all(conn)
    .await
}

/// Writes a new category. A taken name violates `categories_name_key`, an unknown parent
/// `categories_parent_id_fkey`.
///
/// # Errors
/// The database's own.
pub async fn insert_category(
    conn: &mut PgConnection,
    name: &str,
    parent_id: Option<Uuid>,
) -> Result<Category, sqlx::Error> {
    let id = Uuid::now_v7();
    sqlx::query!("insert into categories (id, name, parent_id) values ($1, $2, $3)", id, name, parent_id)
        .execute(conn)
        .await?;
    Ok(Category { id, name: name.to_owned(), parent_id })
}

/// A category. Until the transaction ends nobody else moves any: two moves at once, each harmless, could
/// put two categories into each other.
///
/// # Errors
/// The database's own.
pub async fn lock_category(conn: &mut PgConnection, id: Uuid) -> Result<Option<Category>, sqlx::Error> {
    sqlx::query!("select pg_advisory_xact_lock(hashtextextended('categories', 0))").fetch_one(&mut *conn).await?;
    sqlx::query_as!(Category, "select id, name, parent_id from categories where id = $1", id).fetch_optional(conn).await
}

/// Whether `id` is `ancestor`, or somewhere within it.
///
/// # Errors
/// The database's own.
pub async fn is_within(conn: &mut PgConnection, id: Uuid, ancestor: Uuid) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(
        r#"with recursive up (id, parent_id) as (
               select id, parent_id from categories where id = $1
               union
               select c.id, c.parent_id from categories c join up on c.id = up.parent_id)
           select exists (select from up where id = $2) as "is_within!""#,
        id,
        ancestor
    )
    .fetch_one(conn)
    .await
}

/// Writes the name and the parent of a category. Errors as for a new one.
///
/// # Errors
/// The database's own.
pub async fn save_category(conn: &mut PgConnection, category: &Category) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update categories set name = $2, parent_id = $3 where id = $1",
        category.id,
        category.name,
        category.parent_id
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Brands in order of their ids, after the given one.
///
/// # Errors
/// The database's own.
pub async fn list_brands(conn: &mut PgConnection, after: Option<Uuid>, limit: i64) -> Result<Vec<Brand>, sqlx::Error> {
    sqlx::query_as!(
        Brand,
        "select id, name from brands where ($1::uuid is null or id > $1) order by id limit $2",
        after,
        limit
    )
    .fetch_all(conn)
    .await
}

/// Writes a new brand; a taken name violates `brands_name_key`.
///
/// # Errors
/// The database's own.
pub async fn insert_brand(conn: &mut PgConnection, name: &str) -> Result<Brand, sqlx::Error> {
    let id = Uuid::now_v7();
    sqlx::query!("insert into brands (id, name) values ($1, $2)", id, name).execute(conn).await?;
    Ok(Brand { id, name: name.to_owned() })
}
