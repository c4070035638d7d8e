-- held_count + current_usage_count never passes usage_limit: a coupon limited to 1,000 uses is sold
-- exactly 1,000 times, under any concurrency.

create table coupons (
    id uuid primary key,
    code text not null check (length(code) between 1 and 50),
    kind text not null check (kind in ('PERCENT', 'FIXED', 'FREE_SHIPPING', 'BUY_X_GET_Y')),
    currency char(3) not null default 'INR',    -- of its amounts; in another it does not apply
    value numeric(12, 3) not null default 0 check (value >= 0),
    min_order_value numeric(12, 3),
    max_discount numeric(12, 3),
    starts_at timestamptz,
    ends_at timestamptz,
    usage_limit int check (usage_limit >= 0),
    per_user_limit int check (per_user_limit >= 0),
    current_usage_count int not null default 0,
    held_count int not null default 0,
    stackable boolean not null default false,
    auto_apply boolean not null default false,
    scope text not null default 'ALL' check (scope in ('ALL', 'PRODUCTS', 'CATEGORIES')),
    scope_ids uuid[] not null default '{}',
    buy_quantity int check (buy_quantity > 0),
    get_quantity int check (get_quantity > 0),
    is_active boolean not null default true,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    check (kind <> 'PERCENT' or value <= 100),
    check (kind <> 'BUY_X_GET_Y' or (buy_quantity is not null and get_quantity is not null)),
    constraint coupons_usage_check check
        (current_usage_count >= 0 and held_count >= 0
         and (usage_limit is null or current_usage_count + held_count <= usage_limit))
) with (fillfactor = 50);
-- Codes are case-insensitive.
create unique index coupons_code_key on coupons (upper(code));
create index coupons_automatic on coupons (id) where auto_apply and is_active;

-- Whom a limit per customer binds, beside their account: an e-mail address without case and without the tag
-- that many providers ignore. It outlives the account, so only its digest is kept.
create function coupon_redeemer(email text) returns bytea language sql immutable strict parallel safe as
$$ select sha256(convert_to(regexp_replace(lower(btrim(email)), '\+[^@]*@', '@'), 'UTF8')) $$;
