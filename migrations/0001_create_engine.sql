-- The durable engine: runs, their journal, their signals, the workers that carry them.
-- It knows nothing of carts. apalis' tables (schema apalis) are set up before this file runs.

create schema engine;

-- The oldest schema version whose programs can work on this schema: written by `migrate`, so that
-- programs of the release before may start, and start again, while a release rolls out.
create table engine.compatibility (
    only_row boolean primary key default true check (only_row),
    oldest_version bigint not null
);

-- The clock that timers, holds, carts and schedules see. In production the skew stays zero; in
-- development it can be moved, so that a ten-minute hold can be watched expiring.
create table engine.clock (
    only_row boolean primary key default true check (only_row),
    skew interval not null default interval '0'
);
insert into engine.clock default values;

-- plpgsql keeps its plan between calls; a SQL function with a sub-select would be planned anew.
create function engine.now() returns timestamptz language plpgsql stable as $$
begin
    return now() + (select skew from engine.clock);
end $$;

-- One heartbeat row per process incarnation, none per run. Beats are in real time: moving the
-- development clock must not kill anybody.
create table engine.workers (
    id uuid primary key,
    name text not null,
    queues text[] not null,
    started_at timestamptz not null default now(),
    beat_at timestamptz not null default now()
) with (fillfactor = 50);

-- The first run of a business key wins for ever (until retention): starting twice returns it.
create table engine.run_keys (
    workflow text not null,
    run_key text collate "C" not null,  -- bytewise, so that all keys of an order are one range
    run_id uuid not null,
    expires_at timestamptz,             -- set when a run's own row goes before its key's time is over
    primary key (workflow, run_key)
);
create index run_keys_run on engine.run_keys (run_id);
create index run_keys_expiry on engine.run_keys (expires_at) where expires_at is not null;

-- Live runs only. A step changes nothing that is indexed here, so its update stays HOT; wake_at is
-- the one indexed moment: when the sweep must issue a ticket unless something else did before.
create table engine.runs (
    id uuid primary key,
    workflow text not null,             -- family, e.g. checkout
    version int not null,               -- 1 in checkout/v1
    run_key text collate "C" not null,
    queue text not null,
    parent_id uuid,
    status text not null default 'PENDING' check (status in
        ('PENDING', 'RUNNING', 'WAITING', 'RETRYING', 'COMPENSATING', 'STUCK')),
    input jsonb not null,
    epoch int not null default 0,       -- claims so far
    claim_token uuid,                   -- drawn by the latest claim; every commit of the run names it
    owner uuid,                         -- the incarnation that claimed it last
    wake_at timestamptz not null,
    waiting_for text,                   -- signal name, 'sleep', or null
    attempt int not null default 0,     -- failed attempts of the step in hand
    crashes int not null default 0,     -- owners that died holding it since it last got on
    forward_only boolean not null default false,
    cancel_requested text,              -- who and why
    failure jsonb,                      -- why it unwinds, or why it is parked
    created_at timestamptz not null,
    updated_at timestamptz not null,
    check (status <> 'WAITING' or waiting_for is not null),
    check (status not in ('COMPENSATING') or failure is not null)
) with (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500,
    vacuum_truncate = off);             -- it would lock out everybody until its cut is on disk, again and again
create index runs_wake_at on engine.runs (queue, wake_at);

-- The fence: only who drew a run's token writes to it. Random, because a counter repeats itself after a
-- failover or a restore that forgot a claim. All that is fenced asks here.
create function engine.holds(claim_token uuid, token uuid) returns boolean language sql immutable as $$
    select claim_token = token
$$;

-- Append-only: what each step answered, each failed attempt, each intent to call the outside.
-- Keyed by run id, which is time-ordered (uuid v7): a day of it is a partition, and goes whole.
create table engine.journal (
    run_id uuid not null,
    seq int not null,
    kind text not null check (kind in
        ('TX', 'INTENT', 'CALL', 'WAIT', 'SIGNAL', 'START', 'VALUE', 'NO_RETURN', 'UNDO', 'ATTEMPT', 'FAILED', 'RESUMED')),
    name text not null,
    output jsonb,
    error jsonb,
    epoch int not null,
    recorded_at timestamptz not null,
    primary key (run_id, seq)
) partition by range (run_id);

-- A signal may arrive before the wait for it; it is consumed once, known by its key.
create table engine.signals (
    id bigint generated always as identity primary key,
    run_id uuid not null,
    name text not null,
    signal_key text not null,
    payload jsonb not null,
    sent_at timestamptz not null,
    consumed_at timestamptz,
    unique (run_id, name, signal_key)
) with (vacuum_truncate = off);

-- Runs move here in the transaction that finishes them. Partitioned as the journal is.
create table engine.finished_runs (
    id uuid primary key,
    workflow text not null,
    version int not null,
    run_key text collate "C" not null,
    queue text not null,
    parent_id uuid,
    status text not null check (status in ('COMPLETED', 'FAILED', 'CANCELLED')),
    input jsonb not null,
    output jsonb,
    failure jsonb,
    epoch int not null,
    crashes int not null,
    created_at timestamptz not null,
    finished_at timestamptz not null
) partition by range (id);
-- For operators: the few that did not end well, and the newest of a rare workflow.
create index finished_runs_unwell on engine.finished_runs (status, id) where status <> 'COMPLETED';
create index finished_runs_workflow on engine.finished_runs (workflow, id);
-- What may outlive its day: see engine.detach_day.
create index finished_runs_slow on engine.finished_runs (id) where finished_at - created_at > interval '24 hours';

-- What no day takes: ids of a day that was not made in time, and what outlived its day.
create table engine.journal_rest partition of engine.journal default;
create table engine.finished_runs_rest partition of engine.finished_runs default;

-- The least id (uuid v7) that can be drawn at a moment. Ids are drawn in real time.
create function engine.first_id(moment timestamptz) returns uuid language sql immutable as $$
    select (lpad(to_hex((extract(epoch from moment) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid
$$;

-- The functions below belong to whoever migrates: a worker needs no right to create or drop tables.
-- None waits for a lock for long, because whoever comes after it would wait with it; a caller that
-- hears `false` comes again.

-- Makes the partitions of one UTC day. False when they are there, when somebody is in the way, or when
-- rows of that day have come already: those stay with the rest, and so does their day. False, too, while
-- the rest is large: attaching reads all of it under a lock, to see that nothing there is of that day.
create function engine.make_day(day date) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '200ms' as $$
declare
    large constant bigint := 512 * 1024 * 1024;
    low constant uuid := engine.first_id(day::timestamp at time zone 'UTC');
    high constant uuid := engine.first_id((day + 1)::timestamp at time zone 'UTC');
    parent text;
    part text;
begin
    if to_regclass(format('engine.journal_%s', to_char(day, 'YYYYMMDD'))) is not null then
        return false;
    end if;
    if exists (select from engine.journal_rest j where j.run_id >= low and j.run_id < high)
       or exists (select from engine.finished_runs_rest f where f.id >= low and f.id < high) then
        return false;
    end if;
    if pg_table_size('engine.journal_rest') + pg_table_size('engine.finished_runs_rest') > large then
        raise warning 'no partition is made for %: too much is kept with the rest', day;
        return false;
    end if;
    foreach parent in array array['journal', 'finished_runs'] loop
        part := format('%s_%s', parent, to_char(day, 'YYYYMMDD'));
        -- Attaching lets others read and write the table meanwhile, creating in place does not.
        execute format('create table engine.%I (like engine.%I including all)', part, parent);
        execute format('alter table engine.%I attach partition engine.%I for values from (%L) to (%L)', parent, part,
            low, high);
    end loop;
    return true;
exception
    when lock_not_available or check_violation or duplicate_table then return false;
end $$;

-- Makes today's partitions and those of `ahead` days to come; says how many days it made.
create function engine.make_days(ahead int) returns bigint language sql volatile as $$
    select count(*) filter (where engine.make_day((now() at time zone 'UTC')::date + n)) from generate_series(0, ahead) as n
$$;

-- Takes a day out of both tables. Runs that still live, or ended at `kept_since` or later, stay: they go
-- to the rest with their journals. Such a run took more than a day, because the day ended a day before
-- `kept_since`. DETACHED; or IN_USE when somebody is in the way; or TOO_MANY when more would have to be
-- moved than can be in a moment: then the day stays whole until fewer of them are left.
create function engine.detach_day(day date, kept_since timestamptz) returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '200ms' as $$
declare
    most_runs constant int := 2000;
    most_entries constant int := 50000;
    suffix constant text := to_char(day, 'YYYYMMDD');
    low constant uuid := engine.first_id(day::timestamp at time zone 'UTC');
    high constant uuid := engine.first_id((day + 1)::timestamp at time zone 'UTC');
    live uuid[];
    late uuid[];
    entries bigint;
begin
    if (day + 2)::timestamp at time zone 'UTC' > kept_since then
        raise exception 'the day % is too young to go', day;
    end if;
    if not exists (select from pg_inherits where inhrelid = to_regclass('engine.journal_' || suffix)) then
        return 'DETACHED';
    end if;
    -- Twice: first without a lock, so that a day of which too many are left holds up nobody. From the
    -- detaching on nobody writes to either table, so what is read then is all there is.
    for is_detached in 0 .. 1 loop
        if is_detached = 1 then
            execute format('alter table engine.journal detach partition engine.journal_%s', suffix);
            execute format('alter table engine.finished_runs detach partition engine.finished_runs_%s', suffix);
        end if;
        live := array(select id from engine.runs where id >= low and id < high limit most_runs + 1);
        execute format('select array(select id from engine.finished_runs_%s
                         where finished_at - created_at > interval ''24 hours'' and finished_at >= $1 limit $2)', suffix)
           into late using kept_since, most_runs + 1;
        if cardinality(live) + cardinality(late) > most_runs then
            raise no_data_found;
        end if;
        execute format('select count(*) from (select from unnest($1) as r(id) cross join lateral (
                         select from engine.journal_%s j where j.run_id = r.id limit $2) e limit $2) n', suffix)
           into entries using live || late, most_entries + 1;
        if entries > most_entries then
            raise no_data_found;
        end if;
    end loop;
    -- By index, whatever the planner believes of the day's size: one of the arrays' ids at a time.
    for i in 1 .. cardinality(live || late) loop
        execute format('insert into engine.journal select * from engine.journal_%s where run_id = $1', suffix)
          using (live || late)[i];
    end loop;
    for i in 1 .. cardinality(late) loop
        execute format('insert into engine.finished_runs select * from engine.finished_runs_%s where id = $1', suffix)
          using late[i];
    end loop;
    return 'DETACHED';
exception
    -- The handler takes back what was detached.
    when no_data_found then return 'TOO_MANY';
    when lock_not_available or deadlock_detected then return 'IN_USE';
end $$;

-- Drops the days that were taken out; says how many tables. Nobody reads them, so nobody is held up.
create function engine.drop_detached() returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '200ms' as $$
declare
    part regclass;
    dropped bigint := 0;
begin
    for part in
        select c.oid::regclass from pg_class c
         where c.relnamespace = 'engine'::regnamespace and c.relkind = 'r' and not c.relispartition
           and c.relname ~ '^(journal|finished_runs)_[0-9]{8}$'
    loop
        execute format('drop table %s', part);
        dropped := dropped + 1;
    end loop;
    return dropped;
end $$;

select engine.make_days(7);

-- When each schedule last fired; the tick itself is the key of the run it started.
create table engine.schedules (
    name text primary key,
    cron text not null,
    last_tick timestamptz not null,
    paused_at timestamptz
);

-- apalis is the delivery queue. A ticket's id is its run's id, so a run has at most one.

-- Its per-row NOTIFY takes a cluster-wide lock at commit and halves single-row enqueue; we poll.
drop trigger notify_workers on apalis.jobs;

-- Duplicates of indexes that stay (unique_job_id = jobs_pkey, lidx = idx_apalis_jobs_lock_by, …).
-- The primary key's twin is referenced by nothing; the foreign key to workers would cost a lookup
-- a fetch and keep dead workers' rows for ever.
alter table apalis.jobs drop constraint fk_worker_lock_by;
drop index apalis.unique_job_id;
drop index apalis.lidx;
drop index apalis.idx_apalis_jobs_lock_by;
drop index apalis.lsidx;
drop index apalis.wtidx;
create index jobs_in_flight on apalis.jobs (lock_by) where status in ('Queued', 'Running');

-- With `limit $n` behind a parameter the planner guesses and scans the whole table at each fetch;
-- an array of ids keeps it on the two indexes it needs.
create or replace function apalis.get_jobs(worker_id text, v_job_type text, v_job_count integer default 5)
returns setof apalis.jobs language sql volatile as $$
    update apalis.jobs j
       set status = 'Queued', lock_by = worker_id, lock_at = now()
     where j.id = any(array(
        select id from apalis.jobs
         where (status = 'Pending' or (status = 'Failed' and attempts < max_attempts))
           and run_at <= now() and job_type = v_job_type
         order by priority desc, run_at
         limit v_job_count
         for update skip locked))
    returning j.*;
$$;

-- The queue's rows live for milliseconds.
alter table apalis.jobs set (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.01,
    autovacuum_vacuum_threshold = 500, autovacuum_analyze_scale_factor = 0.2, vacuum_truncate = off);
