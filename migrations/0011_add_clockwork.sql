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

-- How far each pass of the reconciliation has come with each gateway.
create table reconciliation_cursors (
    gateway text not null,
    pass text not null check (pass in ('OPEN', 'SETTLED', 'DAY_OLD', 'REFUNDS')),
    after_payment bigint not null default 0,
    after_refund uuid not null default '00000000-0000-0000-0000-000000000000',
    primary key (gateway, pass)
);
