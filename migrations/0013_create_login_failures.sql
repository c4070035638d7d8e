-- Failed logins lately, per account asked for, whether it exists or not: who guesses must wait longer and
-- longer, at whichever API process they ask. An hour without a failure forgets them.
create table login_failures (
    account_hash bytea primary key check (length(account_hash) = 32),  -- SHA-256 of the e-mail address
    failures int not null check (failures > 0),
    last_failed_at timestamptz not null
) with (fillfactor = 70);
create index login_failures_old on login_failures (last_failed_at);
