-- A reservation's movements tell its own story: held once, then settled exactly once, and given
-- back no more than it took. A movement that belongs to no reservation must have settled itself.
with story as (
    select r.id, r.status, r.quantity_reserved as q, r.quantity_returned as back,
           count(*) filter (where m.kind = 'HOLD') as holds,
           count(*) filter (where m.kind = 'COMMIT') as commits,
           count(*) filter (where m.kind = 'RELEASE') as releases,
           count(*) filter (where m.kind = 'EXPIRE') as expiries,
           coalesce(sum(m.available_delta) filter (where m.kind = 'RETURN'), 0) as returned,
           coalesce(sum(m.available_delta), 0) as available,
           coalesce(sum(m.reserved_delta), 0) as reserved,
           coalesce(bool_and(m.variant_id = r.variant_id), true) as one_variant
      from inventory_reservations r
      left join inventory_movements m on m.reservation_id = r.id
     group by r.id),
told as (
    select s.*,
           (status in ('CONFIRMED', 'RETURNED'))::int as must_commit,
           (status = 'RELEASED')::int as must_release,
           (status = 'EXPIRED')::int as must_expire,
           case when status = 'ACTIVE' then -q when status in ('RELEASED', 'EXPIRED') then 0 else back - q end as must_available,
           case when status = 'ACTIVE' then q else 0 end as must_reserved
      from story s),
breaches (subject, expected, actual) as materialized (
    select 'reservation ' || id,
            format('%s: HOLD 1, COMMIT %s, RELEASE %s, EXPIRE %s, returned %s, Σ available %s, Σ reserved %s, one variant',
                status, must_commit, must_release, must_expire, back, must_available, must_reserved),
            format('HOLD %s, COMMIT %s, RELEASE %s, EXPIRE %s, returned %s, Σ available %s, Σ reserved %s%s',
                holds, commits, releases, expiries, returned, available, reserved,
                case when one_variant then '' else ', several variants' end)
       from told
      where holds <> 1 or commits <> must_commit or releases <> must_release or expiries <> must_expire
         or returned <> back or available <> must_available or reserved <> must_reserved or not one_variant
    union all
    -- Rows purged together with their cart leave their movements behind: a hold must not be among them.
    select 'reservation ' || coalesce(m.reservation_id::text, '(none) of variant ' || m.variant_id),
            'a reservation, or nothing left reserved',
            format('no such reservation, Σ reserved %s', sum(m.reserved_delta))
       from inventory_movements m
      where m.kind not in ('RESTOCK', 'ADJUST')
        and not exists (select from inventory_reservations r where r.id = m.reservation_id)
      group by m.reservation_id, m.variant_id
     having sum(m.reserved_delta) <> 0 or m.reservation_id is null)
select subject, expected, actual from breaches order by subject, expected limit 100
