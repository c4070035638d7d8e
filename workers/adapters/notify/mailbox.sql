-- Development only: where e-mails go when there is no mail server.

create schema if not exists dev;

create table if not exists dev.mailbox (
    id          uuid primary key,
    -- The same e-mail sent twice is one e-mail, as it would be in a real inbox.
    message_id  text not null unique,
    recipient   text not null,
    subject     text not null,
    body        text not null,
    event       text not null,
    order_id    uuid,
    -- The whole RFC 5322 message, as SMTP would have carried it.
    raw         text not null,
    sent_at     timestamptz not null default now()
);
create index if not exists mailbox_by_recipient on dev.mailbox (lower(recipient), sent_at desc);
