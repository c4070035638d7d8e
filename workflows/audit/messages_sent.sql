-- A message that counts as sent was handed to its channel at least once.
with breaches (subject, expected, actual) as materialized (
    select 'message ' || id, 'SENT with 1 send or more', format('SENT with %s', sends)
      from notifications
     where status = 'SENT' and sends < 1)
select subject, expected, actual from breaches order by subject, expected limit 100
