-- A refund may be a part of a payment, may be of cash, and may be of a payment nobody asked for.
alter table refunds
    -- What it is for besides the order, e.g. a return.
    add column reference text,
    -- A person pays it back, and this row is the record of it: always cash, which has no gateway; else
    -- what the gateway refused to send.
    add column by_hand boolean not null default false,
    -- Of a payment that was captured besides the one that pays for the order: payments.captured_amount
    -- and payments.refund_amount know nothing of it.
    add column is_extra boolean not null default false,
    -- Why the gateway refused it, the last time it did.
    add column failure text,
    alter column gateway_payment_id drop not null,
    add constraint refunds_by_hand_check check (by_hand or gateway_payment_id is not null),
    add constraint refunds_failure_check check ((status = 'FAILED') <= (failure is not null));
-- What a gateway says of a refund names its id.
create index refunds_gateway on refunds (gateway_refund_id);

-- What shoppers' banks want back. The order stays as it is.
create table payment_disputes (
    gateway text not null,
    gateway_dispute_id text not null,
    order_id uuid not null references orders (id) on delete restrict,
    gateway_payment_id text not null,
    amount numeric(14, 3),
    currency char(3),
    reason text,
    status text not null check (status in ('OPENED', 'WON', 'LOST')),
    created_at timestamptz not null,
    updated_at timestamptz not null,
    primary key (gateway, gateway_dispute_id)
);
create index payment_disputes_order on payment_disputes (order_id);
create index payment_disputes_open on payment_disputes (created_at) where status = 'OPENED';

create unique index refunds_once_in_cash on refunds (run_id) where gateway_payment_id is null;
-- What is under way and what waits for a person, without reading all that has ever gone back.
create index refunds_open on refunds (id) where status <> 'SUCCEEDED';
