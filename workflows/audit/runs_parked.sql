-- A parked run waits for an operator; until then what it was doing is half done.
select format('run %s (%s %s)', r.id, r.workflow, r.run_key),
       'no run parked',
       'run parked: ' || coalesce(r.failure::text, 'no reason recorded')
  from engine.runs r
 where r.status = 'STUCK'
 order by 1 limit 100
