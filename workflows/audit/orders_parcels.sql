-- No piece is in two parcels, unless one of them came back; a parcel is packed only for an order that is
-- being fulfilled, and once one has left its order is on its way, unless it came back or was lost: only then a
-- shipped order was cancelled; an order with parcels has arrived when they have, but for what was called off,
-- and what was lost is; and an order shows where they are.
with parcels as (
    select s.order_id, count(*) as parcels,
           bool_or(s.status not in ('PENDING', 'READY', 'RETURNED')) as has_left,
           bool_or(s.status in ('SHIPPED', 'IN_TRANSIT', 'DELIVERED')) as is_out,
           bool_and(s.status = 'DELIVERED') filter (where s.status not in ('RETURNED', 'LOST')) as has_arrived,
           case when bool_or(s.status = 'DELIVERED') then 'DELIVERED'
                when bool_or(s.status = 'IN_TRANSIT') then 'IN_TRANSIT'
                when bool_or(s.status = 'SHIPPED') then 'SHIPPED'
                when bool_or(s.status = 'READY') then 'READY'
                when bool_or(s.status = 'PENDING') then 'PENDING'
                when bool_or(s.status = 'RETURNED') then 'RETURNED'
                else 'LOST' end as farthest
      from shipments s group by s.order_id),
packed as (
    select p.order_item_id, s.order_id,
           sum(p.quantity) filter (where s.status not in ('RETURNED', 'LOST')) as quantity,
           sum(p.quantity) filter (where s.status = 'LOST') as lost,
           sum(p.quantity) filter (where s.delivered_at is not null) as delivered
      from shipment_items p join shipments s on s.id = p.shipment_id group by p.order_item_id, s.order_id),
waiting as (
    select i.order_id, bool_or(i.quantity - i.called_off > coalesce(p.quantity, 0)) as any,
           bool_or(i.quantity - i.called_off > coalesce(p.delivered, 0)) as is_undelivered
      from order_items i left join packed p on p.order_item_id = i.id group by i.order_id),
told as (
    select o.id, o.order_status, o.shipment_status, p.has_left, p.is_out, w.is_undelivered, p.has_arrived and not w.any as has_arrived,
           case when p.farthest = 'DELIVERED' and not (p.has_arrived and not w.any) then 'IN_TRANSIT' else p.farthest end as shown
      from parcels p join orders o on o.id = p.order_id join waiting w on w.order_id = o.id),
breaches (subject, expected, actual) as materialized (
    select 'order line ' || p.order_item_id,
            format('a line of order %s, at most %s in parcels', p.order_id, coalesce(i.quantity - i.called_off, 0)),
            format('a line of order %s, %s in parcels', i.order_id, coalesce(p.quantity, 0))
       from packed p left join order_items i on i.id = p.order_item_id
      where i.order_id is distinct from p.order_id or p.quantity > i.quantity - i.called_off
    union all
    select 'order line ' || p.order_item_id, format('%s or more written off', p.lost), format('%s written off', i.written_off)
       from packed p join order_items i on i.id = p.order_item_id
      where i.written_off < p.lost
    union all
    select 'order ' || id, 'being fulfilled', format('%s, with parcels', order_status)
       from told where order_status in ('PENDING', 'CONFIRMED')
    union all
    select 'order ' || id, 'SHIPPED or further', format('%s, and a parcel has left', order_status)
       from told where has_left and order_status in ('PENDING', 'CONFIRMED', 'PROCESSING') or is_out and order_status = 'CANCELLED'
    union all
    select 'order ' || h.order_id, 'a parcel that came back, or was lost', 'SHIPPED → CANCELLED, and none did'
       from order_state_history h
      where h.from_status = 'SHIPPED' and h.to_status = 'CANCELLED'
        and not exists (select from shipments s where s.order_id = h.order_id and s.status in ('RETURNED', 'LOST'))
    union all
    select 'order ' || id, 'every piece delivered', format('%s, and a piece never arrived', order_status)
       from told where is_undelivered and order_status in ('DELIVERED', 'REFUNDED')
    union all
    select 'order ' || id, 'DELIVERED or further', format('%s, and every parcel has arrived', order_status)
       from told where has_arrived and order_status = 'SHIPPED'
    union all
    select 'order ' || id, 'shipment ' || shown, 'shipment ' || shipment_status
       from told where shown <> shipment_status)
select subject, expected, actual from breaches order by subject, expected limit 100
