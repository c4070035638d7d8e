-- What happens by the clock: what schedules show of themselves, and where those that read on left off.

-- A scheduler writes down what it knows, so that others can show it without knowing the table of
-- schedules themselves. A run asked for by hand is a request that the next look of any scheduler meets.
alter table engine.schedules
    add column starts text not null default '',     -- the workflow, e.g. retention/v1
    add column next_tick timestamptz,               -- the first after last_tick; null until one has looked
    add column run_requested_at timestamptz;

-- RESUMED: a parked run was let go on, by whom and why. Every row that was there satisfies the new rule.
alter table engine.journal drop constraint journal_kind_check;
alter table engine.journal add constraint journal_kind_check check (kind in
    ('TX', 'INTENT', 'CALL', 'WAIT', 'SIGNAL', 'START', 'VALUE', 'NO_RETURN', 'UNDO', 'ATTEMPT', 'FAILED', 'RESUMED'))
    not valid;

-- A key outlives its run: set when the run's own row is deleted.
alter table engine.run_keys add column expires_at timestamptz;
create index run_keys_expiry on engine.run_keys (expires_at) where expires_at is not null;

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
