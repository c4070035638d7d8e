-- What happens by the clock: what schedules show of themselves, and where those that read on left off.

-- A scheduler writes down what it knows, so that others can show it without knowing the table of
-- schedules themselves. A run asked for by hand is a request that the next look of any scheduler meets.
alter table engine.schedules
    add column starts text not null default '',     -- the workflow, e.g. retention/v1
    add column next_tick timestamptz,               -- the first after last_tick; null until one has looked
    add column run_requested_at timestamptz;

-- How far a reader of the outbox has come: past every event of an older transaction, so that one that
-- commits late is not skipped.
create table outbox_readers (
    name text primary key,
    after_xid xid8 not null,
    after_id bigint not null
);
insert into outbox_readers (name, after_xid, after_id) values ('low_stock_alerts', '0', 0);
create index outbox_events_low_stock on outbox_events (xid, id) where event_type = 'inventory.low_stock';

-- What is still to be compared with each gateway. Written by the payment's, or the refund's, own transaction:
-- there is no number behind which one that commits late could be missed. Whoever compares takes it in hand by
-- moving its time on, so that a row that cannot be compared is in nobody's way.
create table payment_checks (
    id uuid primary key,                -- the order's for its payment, the refund's own
    order_id uuid not null,             -- an order is never deleted, so it is no foreign key
    gateway text not null,
    pass text not null check (pass in ('OPEN', 'SETTLED', 'DAY_OLD', 'REFUND')),
    made_at timestamptz not null,
    -- From when the patience of its pass counts: when it was made, later when it is in hand or was set aside;
    -- null when it was tried too often, and is a person's.
    counts_from timestamptz,
    attempts int not null default 0,
    problem text                        -- why it was set aside
) with (fillfactor = 70);
create index payment_checks_due on payment_checks (gateway, pass, counts_from, id);
create index payment_checks_aside on payment_checks (attempts) where problem is not null;

-- By trigger, so that no way of making a payment can forget it.
create function check_new_payment() returns trigger language plpgsql as $$
begin
    insert into payment_checks (id, order_id, gateway, pass, made_at, counts_from)
    values (new.order_id, new.order_id, new.payment_gateway, 'OPEN', new.created_at, new.created_at)
    on conflict (id) do nothing;
    return null;
end $$;
create trigger payments_check after insert on payments
    for each row when (new.payment_gateway is not null) execute function check_new_payment();

create function check_new_refund() returns trigger language plpgsql as $$
begin
    insert into payment_checks (id, order_id, gateway, pass, made_at, counts_from)
    select new.id, p.order_id, p.payment_gateway, 'REFUND', new.created_at, new.created_at
      from payments p where p.id = new.payment_id and p.payment_gateway is not null
    on conflict (id) do nothing;
    return null;
end $$;
create trigger refunds_check after insert on refunds
    for each row when (new.gateway_payment_id is not null) execute function check_new_refund();

-- How far each gateway's own list of payments has been looked through, in its time; `until_at` is the end of
-- the stretch in hand, `page` what names its next page.
create table gateway_listings (
    gateway text not null,
    pass text not null check (pass in ('LISTED', 'LISTED_DAY_OLD')),
    from_at timestamptz not null,
    until_at timestamptz not null,
    page text,
    primary key (gateway, pass),
    check (from_at <= until_at)
);
