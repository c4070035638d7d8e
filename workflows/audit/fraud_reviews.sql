-- A review is OPEN while its order is PENDING, and the order's own checkout waits for it. (That such a checkout lives is
-- among what its run holds.) It ends once: at some time, by some of the staff who say why, and in time; or when its time
-- is over. What was doubtful is sold if somebody has approved of it, and what was denied never becomes an order.
with breaches (subject, expected, actual) as materialized (
    select 'order ' || r.order_id, 'PENDING, its checkout ' || r.run_id,
           format('review OPEN, order %s, its checkout %s', o.order_status, o.checkout_run_id)
      from order_reviews r join orders o on o.id = r.order_id
     where r.status = 'OPEN'
       and (o.checkout_run_id <> r.run_id
            or o.order_status <> 'PENDING'
               -- What cannot be taken back holds up nothing else: its checkout is not over.
               and not (o.order_status = 'CANCELLED' and exists (select from engine.runs e where e.id = r.run_id)))
    union all
    select 'order ' || r.order_id,
           case when r.status = 'OPEN' then 'a review that goes on'
                when r.status in ('APPROVED', 'REJECTED') then 'a review that ended before ' || r.held_until || ' by somebody, who says why'
                when r.status = 'EXPIRED' then 'a review that ended at ' || r.held_until || ' or later, by nobody'
                else 'a review that ended, by nobody' end,
           format('%s at %s by %s', r.status, coalesce(r.ended_at::text, 'no time'), coalesce(r.decided_by, 'nobody'))
      from order_reviews r
     where (case when r.status = 'OPEN' then r.ended_at is null
                 when r.status in ('APPROVED', 'REJECTED') then r.ended_at < r.held_until
                 when r.status = 'EXPIRED' then r.ended_at >= r.held_until
                 else r.ended_at is not null end) is not true
        or (r.status in ('APPROVED', 'REJECTED')) <> (r.decided_by is not null and r.reason is not null)
    union all
    -- The staff's queue shows each with its score: without one, it would be shown to nobody.
    select 'order ' || r.order_id, 'screened as REVIEW', coalesce('screened as ' || s.decision, 'never screened')
      from order_reviews r left join order_screenings s on s.order_id = r.order_id
     where s.decision is distinct from 'REVIEW'
    union all
    select 'order ' || o.id, case s.decision when 'DENY' then 'no order' else 'a review that is APPROVED' end,
           format('screened as %s, order %s, %s', s.decision, o.order_status, coalesce('review ' || r.status, 'no review'))
      from order_screenings s
      join orders o on o.id = s.order_id
      left join order_reviews r on r.order_id = o.id
     where s.decision = 'DENY'
        or s.decision = 'REVIEW' and o.confirmed_at is not null and r.status is distinct from 'APPROVED')
select subject, expected, actual from breaches order by subject, expected limit 100
