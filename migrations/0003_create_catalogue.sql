-- What is sold, and how much of it there is.

create table categories (
    id uuid primary key,
    name text not null unique,
    parent_id uuid references categories (id) on delete set null
);
create index categories_parent on categories (parent_id);

create table brands (
    id uuid primary key,
    name text not null unique
);

create table products (
    id uuid primary key,
    sku text not null constraint products_sku_key unique check (length(sku) <= 100),
    product_name text not null check (length(product_name) <= 255),
    description text,
    category_id uuid references categories (id) on delete set null,
    brand_id uuid references brands (id) on delete set null,
    base_price numeric(12, 3) not null check (base_price >= 0),
    currency char(3) not null default 'INR',
    is_active boolean not null default true,
    image_url text check (length(image_url) <= 500),
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);
create index products_category on products (category_id);
create index products_brand on products (brand_id);
create index products_active on products (is_active);

create table product_variants (
    id uuid primary key,
    product_id uuid not null references products (id) on delete cascade,
    sku text not null constraint product_variants_sku_key unique check (length(sku) <= 100),
    variant_name text check (length(variant_name) <= 100),
    attributes jsonb,                   -- {"size": "L", "color": "Red"}
    price numeric(12, 3) not null check (price >= 0),
    compare_at_price numeric(12, 3),    -- original price, for showing a discount
    tax_rate numeric(5, 2) not null default 18 check (tax_rate between 0 and 100),
    is_active boolean not null default true,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);
create index product_variants_product on product_variants (product_id);

-- The counters. available + reserved = total; both are Σ of inventory_movements.
create table inventory (
    id bigint generated always as identity primary key,
    variant_id uuid not null unique references product_variants (id) on delete cascade,
    available_quantity int not null default 0 constraint inventory_available_check check (available_quantity >= 0),
    reserved_quantity int not null default 0 constraint inventory_reserved_check check (reserved_quantity >= 0),
    total_quantity int generated always as (available_quantity + reserved_quantity) stored,
    low_stock_threshold int not null default 10 check (low_stock_threshold >= 0),
    last_restocked_at timestamptz,
    updated_at timestamptz not null default now(),
    version int not null default 0
) with (fillfactor = 50);
-- Partial, so that selling from a well-stocked variant stays a HOT update.
create index inventory_availability on inventory (available_quantity)
    where available_quantity <= low_stock_threshold;
