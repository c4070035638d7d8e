-- A message that counts as sent was handed to its channel at least once.
select 'message ' || id, 'SENT with 1 send or more', format('SENT with %s', sends)
  from notifications
 where status = 'SENT' and sends < 1
 order by 1 limit 100
