-- A refund may be a part of a payment, may be of cash, and may be of a payment nobody asked for.
alter table refunds
    -- What it is for besides the order, e.g. a return.
    add column reference text,
    -- Cash has no gateway: a person pays it back, and this row is the record of it.
    add column by_hand boolean not null default false,
    -- Of a payment that was captured besides the one that pays for the order: payments.captured_amount
    -- and payments.refund_amount know nothing of it.
    add column is_extra boolean not null default false,
    alter column gateway_payment_id drop not null,
    add constraint refunds_by_hand_check check (by_hand = (gateway_payment_id is null));
create unique index refunds_once_by_hand on refunds (run_id) where by_hand;
