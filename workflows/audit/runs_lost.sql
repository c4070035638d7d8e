-- Every run that was accepted in the last day still lives or has ended; none has vanished. Run ids
-- are uuid v7: their first 48 bits are the millisecond they were drawn at, in real time. A key that is
-- about to expire is what the retention has left of a run that had ended.
with breaches (subject, expected, actual) as materialized (
    select format('run %s (%s %s)', k.run_id, k.workflow, k.run_key), 'live or finished', 'neither'
      from engine.run_keys k
     where k.run_id >= (lpad(to_hex((extract(epoch from now() - interval '1 day') * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid
       and k.expires_at is null
       and not exists (select from engine.runs r where r.id = k.run_id)
       and not exists (select from engine.finished_runs f where f.id = k.run_id))
select subject, expected, actual from breaches order by subject, expected limit 100
