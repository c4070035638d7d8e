-- Who may do what. Passwords and refresh tokens are stored as hashes only.

create table users (
    id uuid primary key,
    email text not null check (email = lower(email) and length(email) <= 255),
    password_hash text not null,
    first_name text check (length(first_name) <= 100),
    last_name text check (length(last_name) <= 100),
    phone_number text check (length(phone_number) <= 20),
    role text not null default 'CUSTOMER' check (role in ('CUSTOMER', 'STAFF', 'ADMIN')),
    is_active boolean not null default true,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    last_login_at timestamptz,
    -- Deleting a user anonymises the row: orders keep pointing at it.
    anonymised_at timestamptz,
    constraint users_email_key unique (email)
);
create index users_phone on users (phone_number);

-- One row per issued refresh token. Using a token twice revokes its whole family: somebody stole it.
create table refresh_tokens (
    id uuid primary key,
    user_id uuid not null references users (id) on delete cascade,
    family_id uuid not null,
    token_hash bytea not null unique,
    issued_at timestamptz not null default now(),
    expires_at timestamptz not null,
    used_at timestamptz,
    revoked_at timestamptz
);
create index refresh_tokens_user on refresh_tokens (user_id);
create index refresh_tokens_family on refresh_tokens (family_id);
create index refresh_tokens_expiry on refresh_tokens (expires_at);

-- Other services of the shop come with a key instead of a user.
create table api_keys (
    id uuid primary key,
    name text not null unique,
    key_hash bytea not null unique,
    scopes text[] not null,
    created_at timestamptz not null default now(),
    revoked_at timestamptz
);

create table addresses (
    id uuid primary key,
    user_id uuid not null references users (id) on delete cascade,
    recipient_name text not null check (length(recipient_name) <= 100),
    address_line1 text not null check (length(address_line1) <= 255),
    address_line2 text check (length(address_line2) <= 255),
    city text not null check (length(city) <= 100),
    state text not null check (length(state) <= 100),
    postal_code text not null check (length(postal_code) <= 20),
    country text not null check (length(country) <= 100),
    phone_number text not null check (length(phone_number) <= 20),
    is_default boolean not null default false,
    address_type text not null default 'BOTH' check (address_type in ('SHIPPING', 'BILLING', 'BOTH')),
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);
create index addresses_user on addresses (user_id);
create index addresses_default on addresses (user_id, is_default);

-- Answers already given, so that a client's retry gets the same one. The row is written in the
-- transaction it answers for: no answer without its effect, no effect without its answer.
create table idempotency_keys (
    caller text not null,               -- user:…, session:…, key:…
    idempotency_key text not null check (length(idempotency_key) between 1 and 255),
    request_hash bytea not null,        -- of method, path and body
    status int not null,
    body jsonb not null,
    created_at timestamptz not null default now(),
    primary key (caller, idempotency_key)
);
create index idempotency_keys_created on idempotency_keys (created_at);

-- What staff and operators did, by whom and why.
create table audit_log (
    id bigint generated always as identity primary key,
    actor text not null,
    action text not null,
    subject text not null,
    reason text,
    details jsonb,
    at timestamptz not null default now()
);
create index audit_log_subject on audit_log (subject, at);
