-- The sandbox gateway's own books. Nothing of the shop's is read but its development clock, and
-- nothing of the shop's may read these tables: a real gateway would be in another building.

create schema if not exists sandbox;

-- The gateway's time is the shop's development clock, so that advancing it makes due captures due.
-- plpgsql plans a statement only when it is reached: the gateway also runs where no such clock is.
create or replace function sandbox.now() returns timestamptz language plpgsql stable as $$
begin
    if to_regclass('engine.clock') is null then
        return pg_catalog.now();
    end if;
    return pg_catalog.now() + coalesce((select skew from engine.clock limit 1), interval '0');
end $$;

create table if not exists sandbox.payments (
    -- Derived from the caller's idempotency key: the same key can never charge twice.
    payment_id        text primary key,
    -- Digest of the request, to refuse the same key with another body.
    fingerprint       text not null,
    order_id          text not null,
    attempt           integer not null,
    amount            numeric not null check (amount > 0),
    currency          text not null,
    method            text not null,
    return_url        text,
    status            text not null
        check (status in
            ('PENDING', 'REQUIRES_ACTION', 'APPROVED', 'AUTHORIZED', 'CAPTURED', 'FAILED', 'CLOSED')),
    failure           text,
    captured_amount   numeric not null default 0,
    refunded_amount   numeric not null default 0,
    -- What the token decided, kept so that a restart carries on with it.
    capture_amount    numeric not null,
    -- Where it gets to by itself once the shopper, or time, lets it.
    goes_to           text not null check (goes_to in ('APPROVED', 'AUTHORIZED', 'CAPTURED')),
    capture_at        timestamptz,
    -- Seconds a due capture still waits for a close to come first.
    patience_s        double precision not null,
    captures_closed   boolean not null,
    authorized_last   boolean not null,
    webhook_copies    integer not null,
    refund_failures   integer not null,
    -- How refunds begin and end: SUCCEEDED at once, or PENDING and then one of the others.
    refunds_pend      boolean not null,
    refunds_fail      integer not null,
    is_disputed       boolean not null,
    created_at        timestamptz not null default sandbox.now(),
    constraint captured_means_money check ((status = 'CAPTURED') = (captured_amount > 0)),
    constraint failed_has_a_reason check ((status = 'FAILED') = (failure is not null)),
    constraint refunds_within_capture check (refunded_amount between 0 and captured_amount)
);
create index if not exists payments_by_order on sandbox.payments (order_id);
create index if not exists payments_by_time on sandbox.payments (created_at, payment_id);
create index if not exists payments_due on sandbox.payments (capture_at) where capture_at is not null;

create table if not exists sandbox.refunds (
    refund_id   text primary key,
    payment_id  text not null references sandbox.payments,
    -- The caller's own id of it.
    reference   text not null,
    amount      numeric not null check (amount > 0),
    status      text not null check (status in ('PENDING', 'SUCCEEDED', 'FAILED')),
    -- What a pending one ends as, and when.
    ends_as     text not null check (ends_as in ('SUCCEEDED', 'FAILED')),
    ends_at     timestamptz not null,
    created_at  timestamptz not null default sandbox.now()
);
create index if not exists refunds_by_payment on sandbox.refunds (payment_id);
create index if not exists refunds_pending on sandbox.refunds (ends_at) where status = 'PENDING';

-- The shopper's bank wants the money of a payment back.
create table if not exists sandbox.disputes (
    payment_id  text primary key references sandbox.payments,
    status      text not null check (status in ('OPENED', 'WON', 'LOST')),
    created_at  timestamptz not null default sandbox.now()
);

-- Keys of calls that were told to come again.
create table if not exists sandbox.refused_keys (
    idempotency_key  text primary key,
    created_at       timestamptz not null default sandbox.now()
);

-- A close under a known key is answered as it was the first time.
create table if not exists sandbox.closes (
    idempotency_key  text primary key,
    order_id         text not null,
    answer           jsonb
);

-- Written in the transaction that makes them true, sent afterwards. Times are the real clock's:
-- a network does not follow a development clock.
create table if not exists sandbox.webhooks (
    event_id      text not null,
    copy          integer not null,
    kind          text not null,
    payment_id    text not null,
    order_id      text not null,
    amount        numeric not null,
    currency      text not null,
    failure       text,
    refund_id     text,
    reference     text,
    dispute_id    text,
    attempts      integer not null default 0,
    -- Null once delivered or given up. While one is being sent this is the lease's end.
    send_at       timestamptz default clock_timestamp(),
    delivered_at  timestamptz,
    created_at    timestamptz not null default clock_timestamp(),
    primary key (event_id, copy)
);
create index if not exists webhooks_due on sandbox.webhooks (send_at) where send_at is not null;

-- The one place that says which change is announced, and how often. Copies one and two leave
-- together, a third a second later: receivers meet both kinds of duplicate.
create or replace function sandbox.announce_payment() returns trigger language plpgsql as $$
begin
    insert into sandbox.webhooks
        (event_id, copy, kind, payment_id, order_id, amount, currency, failure, send_at)
    select 'evt_' || new.payment_id || '_' || lower(new.status), copy,
           'payment.' || lower(new.status), new.payment_id, new.order_id,
           case new.status when 'CAPTURED' then new.captured_amount else new.amount end,
           new.currency, new.failure, clock_timestamp() + make_interval(secs => (copy - 1) / 2)
    from generate_series(1, new.webhook_copies) as copy
    on conflict do nothing;

    if new.status = 'CAPTURED' and new.authorized_last then
        insert into sandbox.webhooks
            (event_id, copy, kind, payment_id, order_id, amount, currency, send_at)
        values ('evt_' || new.payment_id || '_authorized', 1, 'payment.authorized', new.payment_id,
                new.order_id, new.amount, new.currency, clock_timestamp() + interval '300 ms')
        on conflict do nothing;
    end if;
    return null;
end $$;

create or replace trigger payment_made after insert on sandbox.payments
    for each row when (new.status in ('APPROVED', 'AUTHORIZED', 'CAPTURED', 'FAILED'))
    execute function sandbox.announce_payment();
create or replace trigger payment_decided after update of status on sandbox.payments
    for each row when (new.status in ('APPROVED', 'AUTHORIZED', 'CAPTURED', 'FAILED', 'CLOSED')
                       and old.status <> new.status)
    execute function sandbox.announce_payment();

create or replace function sandbox.dispute_payment() returns trigger language plpgsql as $$
begin
    insert into sandbox.disputes (payment_id, status) values (new.payment_id, 'OPENED') on conflict do nothing;
    return null;
end $$;

create or replace trigger payment_disputed after insert or update of status on sandbox.payments
    for each row when (new.status = 'CAPTURED' and new.is_disputed)
    execute function sandbox.dispute_payment();

create or replace function sandbox.announce_dispute() returns trigger language plpgsql as $$
begin
    insert into sandbox.webhooks (event_id, copy, kind, payment_id, order_id, amount, currency, failure, dispute_id, send_at)
    select 'evt_dispute_' || p.payment_id || '_' || lower(new.status), copy, 'dispute.' || lower(new.status),
           p.payment_id, p.order_id, p.captured_amount, p.currency, 'fraudulent', 'sbxd_' || p.payment_id,
           clock_timestamp() + make_interval(secs => (copy - 1) / 2)
    from sandbox.payments p cross join generate_series(1, p.webhook_copies) as copy
    where p.payment_id = new.payment_id
    on conflict do nothing;
    return null;
end $$;

create or replace trigger dispute_moved after insert or update of status on sandbox.disputes
    for each row execute function sandbox.announce_dispute();

create or replace function sandbox.announce_refund() returns trigger language plpgsql as $$
begin
    insert into sandbox.webhooks
        (event_id, copy, kind, payment_id, order_id, amount, currency, failure, refund_id, reference, send_at)
    select 'evt_' || new.refund_id || '_' || lower(new.status), copy, 'refund.' || lower(new.status), p.payment_id,
           p.order_id, new.amount, p.currency, case new.status when 'FAILED' then 'account_closed' end, new.refund_id,
           new.reference, clock_timestamp() + make_interval(secs => (copy - 1) / 2)
    from sandbox.payments p cross join generate_series(1, p.webhook_copies) as copy
    where p.payment_id = new.payment_id
    on conflict do nothing;
    return null;
end $$;

create or replace trigger refund_moved after insert or update of status on sandbox.refunds
    for each row execute function sandbox.announce_refund();
