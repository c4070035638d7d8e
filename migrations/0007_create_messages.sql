-- What the shop tells others, written in the transaction that makes it true.

-- CloudEvents, at least once, in order per subject. xid lets a reader stop below the oldest
-- transaction still open, so that an event that commits late is never skipped.
create table outbox_events (
    id bigint generated always as identity primary key,
    event_id uuid not null,
    event_type text not null,
    subject text not null,              -- the order, cart or variant it is about
    data jsonb not null,
    occurred_at timestamptz not null,
    xid xid8 not null default pg_current_xact_id(),
    published_at timestamptz
);
create index outbox_events_unpublished on outbox_events (id) where published_at is null;
create index outbox_events_subject on outbox_events (subject, id);

-- One row per (event, channel, recipient): SENDING before the send, SENT after. A worker that dies in
-- between leaves it IN_DOUBT; it is sent once more under the same Message-ID.
create table notifications (
    id uuid primary key,
    event text not null,                -- e.g. order.confirmed
    subject_id uuid not null,           -- the order or cart it is about
    channel text not null check (channel in ('EMAIL', 'SMS', 'PUSH')),
    recipient text not null,
    message_id text not null unique,
    status text not null check (status in ('SENDING', 'SENT', 'IN_DOUBT', 'SKIPPED', 'FAILED')),
    detail text,
    sends int not null default 0,       -- times it was or may have been handed to the channel; 2 at most
    created_at timestamptz not null,
    sent_at timestamptz,
    check ((status = 'SENT') <= (sent_at is not null)),
    constraint notifications_once unique (subject_id, event, channel, recipient)
) with (fillfactor = 70);

create table notification_preferences (
    user_id uuid not null references users (id) on delete cascade,
    channel text not null check (channel in ('EMAIL', 'SMS', 'PUSH')),
    opted_out_at timestamptz not null default now(),
    primary key (user_id, channel)
);

-- Every webhook is kept as it came; a duplicate is recognised here.
create table webhook_inbox (
    id bigint generated always as identity primary key,
    gateway text not null,
    event_id text not null,
    event_type text not null,
    order_id uuid,
    body jsonb not null,
    received_at timestamptz not null default now(),
    event jsonb,                        -- what was understood of it; null when nothing was
    outcome text not null check (outcome in
        ('SIGNALLED', 'STARTED_REFUND', 'COMPARED', 'BOOKED', 'IGNORED', 'REFUSED', 'UNMATCHED', 'UNREADABLE')),
    attempts int not null default 0,    -- times it was handed on
    try_at timestamptz,                 -- when one that found no order is tried again; in the engine's time
    constraint webhook_inbox_once unique (gateway, event_id)
);
create index webhook_inbox_received on webhook_inbox (received_at);
create index webhook_inbox_unplaced on webhook_inbox (outcome, try_at) where outcome in ('UNMATCHED', 'UNREADABLE');
