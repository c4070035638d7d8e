-- Nobody is told the same thing twice on one channel; an address is the same in any case.
with breaches (subject, expected, actual) as materialized (
    select format('%s about %s to %s by %s', event, subject_id, lower(recipient), channel), '1 message', format('%s messages', count(*))
      from notifications
     group by subject_id, event, channel, lower(recipient)
    having count(*) > 1)
select subject, expected, actual from breaches order by subject, expected limit 100
