-- Orders outlive the people, products and addresses they mention: names, prices and addresses are
-- snapshots, and no deletion cascades into an order.

create sequence order_number_seq;

create table orders (
    id uuid primary key,
    order_number text not null constraint orders_number_key unique check (length(order_number) <= 20),
    user_id uuid references users (id) on delete restrict,
    cart_id uuid references carts (id) on delete set null,
    checkout_run_id uuid not null,              -- while PENDING the order belongs to this run
    cancellation_run_id uuid,                   -- promised to its customer: nothing leaves from then on
    contact_email text not null,
    contact_phone text,
    order_status text not null default 'PENDING' check (order_status in
        ('PENDING', 'CONFIRMED', 'PROCESSING', 'SHIPPED', 'DELIVERED', 'CANCELLED', 'REFUNDED')),
    payment_status text not null default 'PENDING' check (payment_status in
        ('PENDING', 'AUTHORIZED', 'CAPTURED', 'PARTIALLY_REFUNDED', 'REFUNDED', 'FAILED')),
    shipment_status text not null default 'PENDING' check (shipment_status in
        ('PENDING', 'READY', 'SHIPPED', 'IN_TRANSIT', 'DELIVERED', 'RETURNED', 'LOST')),

    subtotal_amount numeric(14, 3) not null,
    discount_amount numeric(14, 3) not null default 0,
    tax_amount numeric(14, 3) not null default 0,
    shipping_amount numeric(14, 3) not null default 0,
    total_amount numeric(14, 3) not null,
    currency char(3) not null default 'INR',

    shipping_address jsonb not null,
    billing_address jsonb not null,
    shipping_address_id uuid references addresses (id) on delete set null,
    billing_address_id uuid references addresses (id) on delete set null,
    shipping_method text not null default 'STANDARD' check (shipping_method in ('STANDARD', 'EXPRESS')),

    payment_method text not null check (payment_method in
        ('CREDIT_CARD', 'DEBIT_CARD', 'UPI', 'NET_BANKING', 'WALLET', 'COD')),
    payment_id text,                            -- the gateway's payment id
    transaction_id text,

    tracking_number text,
    courier_service text,
    estimated_delivery_date date,

    order_date timestamptz not null,
    confirmed_at timestamptz,
    shipped_at timestamptz,
    delivered_at timestamptz,
    cancelled_at timestamptz,
    updated_at timestamptz not null,

    constraint orders_total_check check
        (total_amount = subtotal_amount - discount_amount + tax_amount + shipping_amount and total_amount >= 0),
    check ((order_status in ('CONFIRMED', 'PROCESSING', 'SHIPPED', 'DELIVERED')) <= (confirmed_at is not null)),
    check ((order_status = 'CANCELLED') = (cancelled_at is not null)),
    check (cancellation_run_id is null or order_status <> 'PENDING')
) with (fillfactor = 70);
-- One cart makes at most one live order, whatever was clicked twice.
create unique index orders_one_live_per_cart on orders (cart_id) where order_status <> 'CANCELLED';
create index orders_cart on orders (cart_id);
create index orders_user on orders (user_id, order_date desc);
create index orders_status on orders (order_status, order_date);
create index orders_payment_status on orders (payment_status);
create index orders_tracking on orders (tracking_number) where tracking_number is not null;
create index orders_shipping_address on orders (shipping_address_id) where shipping_address_id is not null;
create index orders_billing_address on orders (billing_address_id) where billing_address_id is not null;

create table order_items (
    id uuid primary key,
    order_id uuid not null references orders (id) on delete cascade,
    variant_id uuid not null references product_variants (id) on delete restrict,
    product_name text not null,
    sku text not null,
    variant_attributes jsonb,
    product_image_url text,
    quantity int not null check (quantity > 0),
    unit_price numeric(12, 3) not null,
    currency char(3) not null default 'INR',    -- of the product when it was bought: the order's, or the books do not balance
    discount_amount numeric(14, 3) not null default 0,
    tax_amount numeric(14, 3) not null default 0,
    cgst_amount numeric(14, 3) not null default 0,
    sgst_amount numeric(14, 3) not null default 0,
    igst_amount numeric(14, 3) not null default 0,
    total_price numeric(14, 3) not null,
    -- Pieces that will never be delivered, what they were worth, and those of them that are not back in stock.
    called_off int not null default 0,
    called_off_amount numeric(14, 3) not null default 0,
    written_off int not null default 0,
    created_at timestamptz not null,
    check (called_off between 0 and quantity and written_off between 0 and called_off),
    check (called_off_amount between 0 and total_price),
    constraint order_items_total_check check (total_price = quantity * unit_price - discount_amount + tax_amount),
    constraint order_items_tax_check check (tax_amount = cgst_amount + sgst_amount + igst_amount)
);
create index order_items_order on order_items (order_id);
create index order_items_variant on order_items (variant_id);

create table order_coupons (
    id bigint generated always as identity primary key,
    order_id uuid not null references orders (id) on delete cascade,
    coupon_id uuid not null references coupons (id) on delete restrict,
    coupon_code text not null,
    discount_applied numeric(14, 3) not null,
    applied_at timestamptz not null,
    unique (order_id, coupon_id)
);
create index order_coupons_coupon on order_coupons (coupon_id);

-- HELD when checkout starts, SUCCESS on confirmation, RELEASED on failure, REVERSED once by a full
-- cancellation. One row per order and coupon; order_id has no foreign key because the hold comes
-- before the order.
create table coupon_redemption_log (
    id bigint generated always as identity primary key,
    coupon_id uuid not null references coupons (id) on delete restrict,
    user_id uuid references users (id) on delete restrict,
    redeemer bytea,                             -- by their e-mail address: see coupon_redeemer
    order_id uuid not null,
    discount_applied numeric(14, 3) not null,
    status text not null check (status in ('HELD', 'SUCCESS', 'RELEASED', 'REVERSED')),
    created_at timestamptz not null,
    updated_at timestamptz not null,
    constraint coupon_redemption_once unique (order_id, coupon_id)
);
create index coupon_redemption_user on coupon_redemption_log (user_id, coupon_id);
create index coupon_redemption_redeemer on coupon_redemption_log (redeemer, coupon_id);
create index coupon_redemption_coupon on coupon_redemption_log (coupon_id);

-- The audit trail. The first row of an order comes from nowhere: (null) → PENDING. Folding an
-- order's rows gives its status.
create table order_state_history (
    id bigint generated always as identity primary key,
    order_id uuid not null references orders (id) on delete cascade,
    from_status text check (from_status in
        ('PENDING', 'CONFIRMED', 'PROCESSING', 'SHIPPED', 'DELIVERED', 'CANCELLED', 'REFUNDED')),
    to_status text not null check (to_status in
        ('PENDING', 'CONFIRMED', 'PROCESSING', 'SHIPPED', 'DELIVERED', 'CANCELLED', 'REFUNDED')),
    changed_by text not null,
    change_reason text,
    changed_at timestamptz not null,
    metadata jsonb
);
create index order_state_history_order on order_state_history (order_id, changed_at);

-- Ten-minute holds. A row leaves ACTIVE once, by a guarded update, so stock cannot be given back twice.
create table inventory_reservations (
    id uuid primary key,
    -- The order it is for; null when a service holds stock without one. Drawn before the order row
    -- exists, so it is no foreign key; an order is never deleted.
    order_id uuid,
    cart_id uuid references carts (id) on delete cascade,
    variant_id uuid not null references product_variants (id) on delete cascade,
    quantity_reserved int not null check (quantity_reserved > 0),
    quantity_returned int not null default 0,
    status text not null default 'ACTIVE' check (status in
        ('ACTIVE', 'CONFIRMED', 'RELEASED', 'EXPIRED', 'RETURNED')),
    created_at timestamptz not null,
    expires_at timestamptz not null,
    released_at timestamptz,
    check (quantity_returned between 0 and quantity_reserved),
    check ((status in ('RELEASED', 'EXPIRED')) = (released_at is not null)),
    check ((status = 'RETURNED') = (quantity_returned = quantity_reserved))
) with (fillfactor = 80);
create index inventory_reservations_order on inventory_reservations (order_id);
create index inventory_reservations_cart on inventory_reservations (cart_id);
create index inventory_reservations_variant_status on inventory_reservations (variant_id, status);
create index inventory_reservations_expiry on inventory_reservations (expires_at, status);

-- Append-only ledger: Σ deltas of a variant = its counters, always.
create table inventory_movements (
    id bigint generated always as identity primary key,
    variant_id uuid not null references product_variants (id) on delete cascade,
    kind text not null check (kind in
        ('RESTOCK', 'ADJUST', 'HOLD', 'COMMIT', 'RELEASE', 'EXPIRE', 'RETURN')),
    available_delta int not null,
    reserved_delta int not null,
    reservation_id uuid,
    reason text,
    created_at timestamptz not null
);
create index inventory_movements_variant on inventory_movements (variant_id);

-- 1:1 with the order; attempts and refunds stand under it.
create table payments (
    id bigint generated always as identity primary key,
    order_id uuid not null unique references orders (id) on delete cascade,
    payment_method text not null check (payment_method in
        ('CREDIT_CARD', 'DEBIT_CARD', 'UPI', 'NET_BANKING', 'WALLET', 'COD')),
    amount numeric(14, 3) not null check (amount >= 0),
    currency char(3) not null default 'INR',
    payment_gateway text,
    gateway_payment_id text unique,
    gateway_transaction_id text,
    payment_status text not null default 'PENDING' check (payment_status in
        ('PENDING', 'AUTHORIZED', 'CAPTURED', 'PARTIALLY_REFUNDED', 'REFUNDED', 'FAILED')),
    captured_amount numeric(14, 3) not null default 0,
    failure_reason text,
    refund_amount numeric(14, 3) not null default 0,
    refunded_at timestamptz,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    constraint payments_refund_check check (refund_amount >= 0 and refund_amount <= captured_amount)
) with (fillfactor = 80);
create index payments_status on payments (payment_status);

create table payment_attempts (
    id bigint generated always as identity primary key,
    payment_id bigint not null references payments (id) on delete cascade,
    attempt int not null check (attempt > 0),
    idempotency_key uuid not null,
    gateway_payment_id text,
    currency char(3) not null default 'INR',    -- what the gateway says it charges
    next_action jsonb,                          -- where the shopper must go, while PENDING
    status text not null check (status in ('PENDING', 'CAPTURED', 'FAILED', 'CLOSED')),
    failure_reason text,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    unique (payment_id, attempt)
);
-- Webhooks name the gateway's payment.
create index payment_attempts_gateway on payment_attempts (gateway_payment_id);

create table refunds (
    id uuid primary key,
    payment_id bigint not null references payments (id) on delete restrict,
    run_id uuid not null,
    gateway_payment_id text not null,
    amount numeric(14, 3) not null check (amount > 0),
    currency char(3) not null default 'INR',
    reason text not null,
    status text not null check (status in ('PENDING', 'SUCCEEDED', 'FAILED')),
    gateway_refund_id text,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    unique (run_id, gateway_payment_id)
);
create index refunds_payment on refunds (payment_id);

create table shipments (
    id uuid primary key,
    order_id uuid not null references orders (id) on delete restrict,
    courier_service text not null,
    tracking_number text not null,
    status text not null check (status in
        ('PENDING', 'READY', 'SHIPPED', 'IN_TRANSIT', 'DELIVERED', 'RETURNED', 'LOST')),
    created_at timestamptz not null,
    shipped_at timestamptz,
    delivered_at timestamptz
);
create index shipments_order on shipments (order_id);

create table shipment_items (
    shipment_id uuid not null references shipments (id) on delete cascade,
    order_item_id uuid not null references order_items (id) on delete restrict,
    quantity int not null check (quantity > 0),
    primary key (shipment_id, order_item_id)
);
create index shipment_items_item on shipment_items (order_item_id);

create table returns (
    id uuid primary key,
    order_id uuid not null references orders (id) on delete restrict,
    status text not null check (status in ('REQUESTED', 'APPROVED', 'RECEIVED', 'REFUNDED', 'REJECTED')),
    reason text not null,
    run_id uuid,
    created_at timestamptz not null,
    updated_at timestamptz not null
);
create index returns_order on returns (order_id);

create table return_items (
    return_id uuid not null references returns (id) on delete cascade,
    order_item_id uuid not null references order_items (id) on delete restrict,
    quantity int not null check (quantity > 0),
    primary key (return_id, order_item_id)
);
create index return_items_item on return_items (order_item_id);
