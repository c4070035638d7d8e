-- Fraud screening: the rules, what each checkout came with and got by them, and what staff made of it.
-- Nothing here is the shopper's to read.

-- Every set of rules there has been. A row is never updated: whoever changes a rule writes the next version.
create table fraud_rule_sets (
    version int primary key check (version > 0),
    -- Tells a program that keeps a copy whether it is a copy of this.
    id uuid not null default gen_random_uuid(),
    review_at int not null check (review_at > 0),
    deny_at int not null check (deny_at >= review_at),
    review_deadline_s int not null check (review_deadline_s > 0),
    rules jsonb not null,
    created_by text not null,
    reason text,
    created_at timestamptz not null default now()
);

-- What a shop begins with. No rule alone holds up anybody but those whom staff have put on the block list; what two
-- strangers may well share (a network, a token of a test) is not counted before staff switch it on.
insert into fraud_rule_sets (version, review_at, deny_at, review_deadline_s, created_by, rules)
values (1, 60, 100, 86400, 'system:migration', $rules$[
    {"name": "checkouts-of-an-account", "kind": "VELOCITY", "points": 30, "enabled": true,
     "parameters": {"by": "ACCOUNT", "limit": 100, "windowS": 3600}},
    {"name": "checkouts-to-an-address", "kind": "VELOCITY", "points": 30, "enabled": false,
     "parameters": {"by": "ADDRESS", "limit": 20, "windowS": 3600}},
    {"name": "checkouts-from-a-network", "kind": "VELOCITY", "points": 20, "enabled": false,
     "parameters": {"by": "NETWORK", "limit": 100, "windowS": 3600}},
    {"name": "checkouts-with-a-token", "kind": "VELOCITY", "points": 40, "enabled": false,
     "parameters": {"by": "TOKEN", "limit": 10, "windowS": 3600}},
    {"name": "failed-payments-of-an-account", "kind": "FAILED_ATTEMPTS", "points": 30, "enabled": true,
     "parameters": {"by": "ACCOUNT", "limit": 10, "windowS": 3600}},
    {"name": "much-for-a-new-account", "kind": "AMOUNT_BY_ACCOUNT_AGE", "points": 30, "enabled": true,
     "parameters": {"amount": "500000.00", "currency": "INR", "youngerThanS": 86400}},
    {"name": "billed-abroad", "kind": "COUNTRY_MISMATCH", "points": 20, "enabled": true, "parameters": {}},
    {"name": "blocked", "kind": "BLOCK_LIST", "points": 1000, "enabled": true, "parameters": {"entries": []}},
    {"name": "trusted", "kind": "ALLOW_LIST", "points": 1000, "enabled": true, "parameters": {"entries": []}}
]$rules$);

-- A checkout that was screened: what was known of it, and what it got, once. Denied ones never become an order, and
-- others are screened before they do: order_id is no foreign key. Neither is user_id (who has gone is still counted)
-- nor rules_version (each checkout would lock that one row).
create table order_screenings (
    order_id uuid constraint order_screenings_once primary key,
    -- The order in which they were counted.
    place bigint generated always as identity,
    rules_version int not null,
    points bigint not null check (points >= 0),
    reasons jsonb not null,
    decision text not null check (decision in ('ALLOW', 'REVIEW', 'DENY')),
    review_deadline_s int not null,
    user_id uuid,
    account_since timestamptz,
    email_digest bytea check (length(email_digest) = 32),
    address_digest bytea check (length(address_digest) = 32),
    network text,
    token_digest bytea check (length(token_digest) = 32),
    billing_country text not null,
    shipping_country text not null,
    amount numeric(14, 3) not null,
    currency char(3) not null,
    counts jsonb not null,                      -- what was counted of those before
    screened_at timestamptz not null
);
create index order_screenings_time on order_screenings (screened_at);

-- What is counted by: a row for each rule that is switched on. Nothing is written, or locked, for a key that no rule
-- looks at.
create table screening_keys (
    key bytea not null check (length(key) = 32),
    screened_at timestamptz not null,
    order_id uuid not null,                     -- no foreign key: see order_screenings
    primary key (key, screened_at, order_id)
);
-- For retention, at next to no cost: rows come in the order of their times.
create index screening_keys_time on screening_keys using brin (screened_at);

-- Money that is set aside until somebody has looked, and what they said. OPEN is left once.
create table order_reviews (
    order_id uuid primary key references orders (id) on delete cascade,
    run_id uuid not null,                       -- the checkout that waits for it
    status text not null default 'OPEN' check (status in ('OPEN', 'APPROVED', 'REJECTED', 'EXPIRED', 'WITHDRAWN')),
    opened_at timestamptz not null,
    held_until timestamptz not null,
    decided_by text,
    reason text,
    ended_at timestamptz,
    check ((status = 'OPEN') = (ended_at is null)),
    check ((status in ('APPROVED', 'REJECTED')) = (decided_by is not null and reason is not null))
);
create index order_reviews_queue on order_reviews (held_until, order_id) where status = 'OPEN';

-- What is known of checkouts about to be screened, as the rules ask: null if `known` is not the present rule set.
-- First the locks, in the order given, which is the same for everybody: each statement after them sees what their
-- last holders have committed, so that of any number of checkouts with something in common each sees those before.
-- `counted`, `windows` and `most` say of each key what is counted, in how many seconds before `at`, and how far.
create function screening_facts(
    known uuid, orders uuid[], users uuid[], locks bigint[],
    keys bytea[], counted text[], windows int[], most int[], at timestamptz
) returns jsonb language plpgsql volatile as $$
declare
    lock bigint;
begin
    if known is distinct from (select s.id from fraud_rule_sets s order by s.version desc limit 1) then
        return null;
    end if;
    foreach lock in array locks loop
        perform pg_advisory_xact_lock(lock);
    end loop;
    return jsonb_build_object(
        'screened', (
            select coalesce(jsonb_agg(jsonb_build_object(
                       'orderId', s.order_id, 'decision', s.decision, 'reviewDeadlineS', s.review_deadline_s)), '[]')
              from order_screenings s where s.order_id = any(orders)),
        'accounts', (
            select coalesce(jsonb_agg(jsonb_build_object('userId', u.id, 'since', u.created_at)), '[]')
              from users u where u.id = any(users)),
        'seen', (
            select coalesce(jsonb_agg(case n.counted
                       when 'CHECKOUTS' then (
                           select count(*) from (
                               select from screening_keys k
                                where k.key = n.key and k.screened_at > at - make_interval(secs => n.window_s)
                                limit n.most) c)
                       -- Of the latest thousand: a busy key costs no more than that.
                       else (
                           select count(*) from (
                               select from (
                                   select k.order_id from screening_keys k
                                    where k.key = n.key and k.screened_at > at - make_interval(secs => n.window_s)
                                    order by k.screened_at desc limit 1000) o
                                 join payments p on p.order_id = o.order_id
                                 join payment_attempts a on a.payment_id = p.id and (a.status = 'FAILED') is true
                                limit n.most) f)
                       end order by n.place), '[]')
              from unnest(keys, counted, windows, most) with ordinality as n(key, counted, window_s, most, place)));
end $$;
