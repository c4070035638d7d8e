-- The durable engine: runs, their journal, their signals, the workers that carry them.
-- It knows nothing of carts. apalis' tables (schema apalis) are set up before this file runs.

create schema engine;

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
    run_key text not null,
    run_id uuid not null,
    primary key (workflow, run_key)
);

-- Live runs only. A step changes nothing that is indexed here, so its update stays HOT; wake_at is
-- the one indexed moment: when the sweep must issue a ticket unless something else did before.
create table engine.runs (
    id uuid primary key,
    workflow text not null,             -- family, e.g. checkout
    version int not null,               -- 1 in checkout/v1
    run_key text not null,
    queue text not null,
    parent_id uuid,
    status text not null default 'PENDING' check (status in
        ('PENDING', 'RUNNING', 'WAITING', 'RETRYING', 'COMPENSATING', 'STUCK')),
    input jsonb not null,
    epoch int not null default 0,       -- raised by each claim; every commit of the run names it
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
) with (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500);
create index runs_wake_at on engine.runs (wake_at);

-- Append-only: what each step answered, each failed attempt, each intent to call the outside.
-- Keyed by run id, which is time-ordered (uuid v7): partitions by range of id can be dropped whole.
create table engine.journal (
    run_id uuid not null,
    seq int not null,
    kind text not null check (kind in
        ('TX', 'INTENT', 'CALL', 'WAIT', 'SIGNAL', 'START', 'VALUE', 'NO_RETURN', 'UNDO', 'ATTEMPT', 'FAILED')),
    name text not null,
    output jsonb,
    error jsonb,
    epoch int not null,
    recorded_at timestamptz not null,
    primary key (run_id, seq)
);

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
);

-- Runs move here in the transaction that finishes them.
create table engine.finished_runs (
    id uuid primary key,
    workflow text not null,
    version int not null,
    run_key text not null,
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
);

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
    autovacuum_vacuum_threshold = 500, autovacuum_analyze_scale_factor = 0.2);
