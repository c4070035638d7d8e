-- What becomes of goods that come back: what the staff said, and what each line was worth. A line that is
-- returned in parts gives back its total to the last paisa, so each part remembers its share.
alter table returns
    add column note text,                       -- of whoever decided, for the customer
    add column refund_amount numeric(14, 3);    -- set once the goods are here
alter table returns
    add constraint returns_refund_check check (refund_amount >= 0),
    add constraint returns_worth_check check ((status = 'REFUNDED') <= (refund_amount is not null));
alter table return_items
    add column refund_amount numeric(14, 3) check (refund_amount >= 0);
