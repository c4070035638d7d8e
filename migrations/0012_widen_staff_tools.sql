-- What the shop's staff and its other services ask for: the event feed, a variant's ledger, stock held
-- without an order.

-- The feed reads in the order of (xid, id), below the oldest transaction still open.
create index outbox_events_position on outbox_events (xid, id);

-- A variant's ledger, newest first, without sorting all of it.
create index inventory_movements_ledger on inventory_movements (variant_id, id);
drop index inventory_movements_variant;

-- Another service's hold: its lines are held, and released, together.
create table service_reservations (
    id uuid primary key,
    api_key_id uuid not null references api_keys (id) on delete restrict,
    created_at timestamptz not null,
    expires_at timestamptz not null
);
create index service_reservations_key on service_reservations (api_key_id);

alter table inventory_reservations
    add column service_reservation_id uuid references service_reservations (id) on delete restrict,
    add constraint inventory_reservations_holder_check check (order_id is null or service_reservation_id is null);
create index inventory_reservations_service on inventory_reservations (service_reservation_id)
    where service_reservation_id is not null;

-- Staff look for people by the beginning of their address.
create index users_email_prefix on users (email text_pattern_ops);
