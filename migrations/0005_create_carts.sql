-- One open cart per owner: a user, or a guest known by a secret token of which only a hash is kept.

create table carts (
    id uuid primary key,
    user_id uuid references users (id) on delete cascade,
    session_hash bytea,
    status text not null default 'ACTIVE' check (status in
        ('ACTIVE', 'CHECKOUT', 'ABANDONED', 'CONVERTED', 'EXPIRED')),
    currency char(3) not null default 'INR',
    version bigint not null default 1,          -- every write raises it: the ETag
    generation int not null default 1,          -- every undone checkout raises it: the next may start
    checkout_run_id uuid,                       -- the run that holds the cart, or that converted it
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    last_activity_at timestamptz not null default now(),
    expires_at timestamptz,                     -- a guest's: 24 hours after the last activity
    is_kept boolean not null default false,     -- expired, and something came of it: retention need not look again
    check (user_id is not null or session_hash is not null),
    check (status <> 'CHECKOUT' or checkout_run_id is not null)
);
create unique index carts_one_open_per_user on carts (user_id)
    where status in ('ACTIVE', 'CHECKOUT', 'ABANDONED');
create unique index carts_one_open_per_session on carts (session_hash)
    where user_id is null and status in ('ACTIVE', 'CHECKOUT', 'ABANDONED');
create index carts_user on carts (user_id);
create index carts_session on carts (session_hash);
create index carts_status_activity on carts (status, last_activity_at);
create index carts_expired on carts (last_activity_at) where status = 'EXPIRED' and not is_kept;

create table cart_items (
    id bigint generated always as identity primary key,
    cart_id uuid not null references carts (id) on delete cascade,
    variant_id uuid not null references product_variants (id) on delete cascade,
    quantity int not null default 1 check (quantity between 1 and 999),
    price numeric(12, 3) not null,              -- when added: for "price changed" notices only
    added_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    constraint cart_items_once unique (cart_id, variant_id)
);
create index cart_items_variant on cart_items (variant_id);

create table cart_coupons (
    id bigint generated always as identity primary key,
    cart_id uuid not null references carts (id) on delete cascade,
    coupon_id uuid not null references coupons (id) on delete cascade,
    applied_at timestamptz not null default now(),
    discount_calculated numeric(20, 3) not null default 0, -- a cart may be worth more than an order
    constraint cart_coupons_once unique (cart_id, coupon_id)
);
create index cart_coupons_coupon on cart_coupons (coupon_id);
