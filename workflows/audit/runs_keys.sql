-- A live run can be found by its business key, so that starting it again answers it and starts nothing.
with breaches (subject, expected, actual) as materialized (
    select format('run %s (%s %s)', r.id, r.workflow, r.run_key), 'its key, naming it',
           coalesce('a key that names run ' || k.run_id, 'no key')
      from engine.runs r left join engine.run_keys k on k.workflow = r.workflow and k.run_key = r.run_key
     where k.run_id is distinct from r.id or k.expires_at is not null)
select subject, expected, actual from breaches order by subject, expected limit 100
