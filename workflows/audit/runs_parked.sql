-- A parked run waits for an operator; until then what it was doing is half done.
with breaches (subject, expected, actual) as materialized (
    select format('run %s (%s %s)', r.id, r.workflow, r.run_key),
           'no run parked',
           'run parked: ' || coalesce(r.failure::text, 'no reason recorded')
      from engine.runs r
     where r.status = 'STUCK')
select subject, expected, actual from breaches order by subject, expected limit 100
