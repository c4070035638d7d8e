-- What went back without us is on the books once, and is not paid back again.
alter table refunds
    -- Who had the money go back: the shop; somebody on the gateway's own site; the shopper's bank, which took it.
    add column origin text not null default 'SHOP' check (origin in ('SHOP', 'GATEWAY', 'BANK'));

alter table payment_disputes
    -- How much of what the bank has taken is among the payment's refunds.
    add column booked_amount numeric(14, 3) not null default 0 check (booked_amount >= 0);
