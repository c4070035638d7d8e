-- A refund may be a part of a payment, may be of cash, and may be of a payment nobody asked for.
create sequence refund_places;
alter table refunds
    -- Where it stands in the line of its payment's refunds: drawn under the order's lock when it is
    -- claimed, and again when it is to be sent again.
    add column place bigint not null default nextval('refund_places'),
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
create unique index refunds_once_in_cash on refunds (run_id) where gateway_payment_id is null;
-- What is under way and what waits for a person, without reading all that has ever gone back.
create index refunds_open on refunds (id) where status <> 'SUCCEEDED';
