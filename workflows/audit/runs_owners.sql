-- A run in hand is in somebody's hand. A minute is several times what the sweep needs to pass a dead
-- worker's runs on.
with breaches (subject, expected, actual) as materialized (
    select format('run %s (%s)', r.id, r.workflow),
           'an owner that lives, within 60 s',
           format('%s since %s, owner %s', r.status, to_char(r.updated_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
               coalesce(r.owner || ', dead', '(none)'))
      from engine.runs r
     where r.status = 'RUNNING' and r.updated_at < (select engine.now()) - interval '60 seconds'
       and not exists (select from engine.workers w where w.id = r.owner))
select subject, expected, actual from breaches order by subject, expected limit 100
