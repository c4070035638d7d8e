-- What went back without us is on the books once, and is not paid back again; what comes back to us is owed again.
alter table refunds
    -- Who had the money go back: the shop; somebody on the gateway's own site; the shopper's bank, which took it.
    add column origin text not null default 'SHOP' check (origin in ('SHOP', 'GATEWAY', 'BANK')),
    -- Somebody has been promised it: if it never arrives, it is sent otherwise.
    add column is_owed boolean not null default true;

alter table payments
    -- Refunds that were on the books as gone back, and then had not, or came back.
    add column refunds_undone int not null default 0 check (refunds_undone >= 0);

alter table payment_disputes
    -- When the gateway says that it came to stand where it stands.
    add column said_at timestamptz;
