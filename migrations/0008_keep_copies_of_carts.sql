-- What lets a copy of a cart be trusted, how long a user's cart lives, and one default address.

-- Raised by whatever can change the price or the name of something in a cart without touching the cart.
-- A copy of a cart remembers the number it was read under, and counts while the number stays the same.
-- A row and not a sequence: the new number must be seen exactly when the change is seen. Made of the
-- clock, so that a database restored from a backup never counts through the same numbers again.
create table catalogue_version (
    only_row boolean primary key default true check (only_row),
    version bigint not null default extract(epoch from clock_timestamp()) * 1000000,
    raised_by xid8                              -- the transaction that raised it last
) with (fillfactor = 10);
insert into catalogue_version default values;

-- Once a transaction, however many rows it changes.
create function raise_catalogue_version() returns trigger language plpgsql as $$
begin
    update catalogue_version
       set version = greatest(version + 1, (extract(epoch from clock_timestamp()) * 1000000)::bigint),
           raised_by = pg_current_xact_id()
     where raised_by is distinct from pg_current_xact_id();
    return null;
end $$;

-- Deferred to the commit: the one row that all these transactions share is then the last they lock, and
-- is held for no longer than the commit takes. New products and variants are in no cart yet.
create constraint trigger products_changed after update on products
    deferrable initially deferred for each row
    when (old is distinct from new) execute function raise_catalogue_version();
create constraint trigger products_deleted after delete on products
    deferrable initially deferred for each row execute function raise_catalogue_version();
create constraint trigger product_variants_changed after update on product_variants
    deferrable initially deferred for each row
    when (old is distinct from new) execute function raise_catalogue_version();
create constraint trigger product_variants_deleted after delete on product_variants
    deferrable initially deferred for each row execute function raise_catalogue_version();
create constraint trigger coupons_created_or_deleted after insert or delete on coupons
    deferrable initially deferred for each row execute function raise_catalogue_version();
-- Each checkout with a coupon counts it up; a price depends on the count only when it reaches the limit,
-- or leaves it.
create constraint trigger coupons_changed after update on coupons
    deferrable initially deferred for each row
    when (to_jsonb(old) - '{current_usage_count,held_count,updated_at}'::text[]
              is distinct from to_jsonb(new) - '{current_usage_count,held_count,updated_at}'::text[]
          or (old.current_usage_count + old.held_count >= old.usage_limit)
              is distinct from (new.current_usage_count + new.held_count >= new.usage_limit))
    execute function raise_catalogue_version();

-- Every cart ends so long after its last activity: a guest's after a day, a user's after a month, as
-- configured.
comment on column carts.expires_at is 'last_activity_at and what its kind of owner is given';
update carts set expires_at = last_activity_at + interval '30 days'
 where user_id is not null and status in ('ACTIVE', 'CHECKOUT', 'ABANDONED');
create index carts_expiry on carts (expires_at) where status in ('ACTIVE', 'ABANDONED');

-- At most one default address a user; the latest, where there were more.
update addresses a set is_default = false
 where is_default
   and exists (select from addresses b where b.user_id = a.user_id and b.is_default and b.id > a.id);
drop index addresses_default;
create unique index addresses_one_default on addresses (user_id) where is_default;
