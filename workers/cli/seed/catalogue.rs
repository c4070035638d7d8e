//! What the demo shop sells. Prices are rupees without tax; stock is units.

/// Something on the shelf, in at least one variant.
pub(super) struct Product {
    pub(super) sku: &'static str,
    pub(super) name: &'static str,
    pub(super) description: &'static str,
    pub(super) category: &'static str,
    pub(super) brand: &'static str,
    /// GST, in percent.
    pub(super) tax_percent: u32,
    pub(super) variants: &'static [Variant],
}

/// What is put into a cart.
pub(super) struct Variant {
    pub(super) sku: &'static str,
    pub(super) name: &'static str,
    pub(super) price: u32,
    pub(super) stock: i32,
    pub(super) attributes: &'static [(&'static str, &'static str)],
}

/// A code to type in; none applies by itself, so that a cart without a code costs what it says.
pub(super) struct Coupon {
    pub(super) code: &'static str,
    pub(super) kind: &'static str,
    /// Percent or rupees, by kind.
    pub(super) value: u32,
    pub(super) min_order_value: Option<u32>,
    /// Of the same: how many to buy, and how many then come free.
    pub(super) buy_get: Option<(i32, i32)>,
}

/// One coupon of each kind.
pub(super) const COUPONS: [Coupon; 4] = [
    Coupon { code: "SAVE20", kind: "PERCENT", value: 20, min_order_value: None, buy_get: None },
    Coupon { code: "FLAT500", kind: "FIXED", value: 500, min_order_value: Some(2000), buy_get: None },
    Coupon { code: "FREESHIP", kind: "FREE_SHIPPING", value: 0, min_order_value: None, buy_get: None },
    Coupon { code: "BUY2GET1", kind: "BUY_X_GET_Y", value: 0, min_order_value: None, buy_get: Some((2, 1)) },
];

/// The shelf. The laptop is the price example of the documentation; the limited ones are for selling
/// out.
pub(super) const PRODUCTS: &[Product] = &[
    Product {
        sku: "LAP",
        name: "Laptop Pro 14",
        description: "Fourteen inches, a day of battery",
        category: "Computers",
        brand: "Vidya",
        tax_percent: 18,
        variants: &[
            Variant {
                sku: "LAP-001",
                name: "16 GB / 512 GB",
                price: 50000,
                stock: 100,
                attributes: &[("memory", "16 GB"), ("storage", "512 GB")],
            },
            Variant {
                sku: "LAP-002",
                name: "32 GB / 1 TB",
                price: 74000,
                stock: 40,
                attributes: &[("memory", "32 GB"), ("storage", "1 TB")],
            },
        ],
    },
    Product {
        sku: "LTD",
        name: "Limited print",
        description: "A numbered print; there are ten",
        category: "Art",
        brand: "Kala",
        tax_percent: 18,
        variants: &[Variant { sku: "LTD-010", name: "One of ten", price: 999, stock: 10, attributes: &[] }],
    },
    Product {
        sku: "LTD-1",
        name: "Limited original",
        description: "The drawing itself; there is one",
        category: "Art",
        brand: "Kala",
        tax_percent: 18,
        variants: &[Variant { sku: "LTD-001", name: "The only one", price: 999, stock: 1, attributes: &[] }],
    },
    Product {
        sku: "TEE",
        name: "T-shirt",
        description: "Combed cotton",
        category: "Clothing",
        brand: "Suta",
        tax_percent: 5,
        variants: &[
            Variant { sku: "TEE-S", name: "Small", price: 499, stock: 200, attributes: &[("size", "S")] },
            Variant { sku: "TEE-M", name: "Medium", price: 499, stock: 200, attributes: &[("size", "M")] },
            Variant { sku: "TEE-L", name: "Large", price: 499, stock: 200, attributes: &[("size", "L")] },
        ],
    },
    Product {
        sku: "KUR",
        name: "Kurta",
        description: "Handloom cotton, knee-length",
        category: "Clothing",
        brand: "Suta",
        tax_percent: 5,
        variants: &[
            Variant { sku: "KUR-M", name: "Medium", price: 1299, stock: 80, attributes: &[("size", "M")] },
            Variant { sku: "KUR-L", name: "Large", price: 1299, stock: 80, attributes: &[("size", "L")] },
        ],
    },
    Product {
        sku: "SAR",
        name: "Saree",
        description: "Silk and cotton from Chanderi",
        category: "Clothing",
        brand: "Suta",
        tax_percent: 5,
        variants: &[
            Variant { sku: "SAR-IND", name: "Indigo", price: 4200, stock: 25, attributes: &[("color", "Indigo")] },
            Variant { sku: "SAR-MAR", name: "Marigold", price: 4200, stock: 25, attributes: &[("color", "Marigold")] },
        ],
    },
    Product {
        sku: "SHO",
        name: "Running shoes",
        description: "Light, for roads",
        category: "Sport",
        brand: "Vega",
        tax_percent: 18,
        variants: &[
            Variant { sku: "SHO-41", name: "EU 41", price: 3499, stock: 50, attributes: &[("size", "41")] },
            Variant { sku: "SHO-42", name: "EU 42", price: 3499, stock: 50, attributes: &[("size", "42")] },
            Variant { sku: "SHO-43", name: "EU 43", price: 3499, stock: 50, attributes: &[("size", "43")] },
        ],
    },
    Product {
        sku: "BAT",
        name: "Cricket bat",
        description: "English willow",
        category: "Sport",
        brand: "Vega",
        tax_percent: 18,
        variants: &[
            Variant { sku: "BAT-SH", name: "Short handle", price: 5999, stock: 30, attributes: &[("handle", "short")] },
            Variant { sku: "BAT-LH", name: "Long handle", price: 6199, stock: 30, attributes: &[("handle", "long")] },
        ],
    },
    Product {
        sku: "YOG",
        name: "Yoga mat",
        description: "Natural rubber, 5 mm",
        category: "Sport",
        brand: "Vega",
        tax_percent: 18,
        variants: &[
            Variant { sku: "YOG-GRN", name: "Green", price: 1499, stock: 120, attributes: &[("color", "Green")] },
            Variant { sku: "YOG-GRY", name: "Grey", price: 1499, stock: 120, attributes: &[("color", "Grey")] },
        ],
    },
    Product {
        sku: "PHN",
        name: "Phone",
        description: "Six inches, two cameras",
        category: "Electronics",
        brand: "Vidya",
        tax_percent: 18,
        variants: &[
            Variant { sku: "PHN-128", name: "128 GB", price: 18999, stock: 150, attributes: &[("storage", "128 GB")] },
            Variant { sku: "PHN-256", name: "256 GB", price: 21999, stock: 100, attributes: &[("storage", "256 GB")] },
        ],
    },
    Product {
        sku: "HDP",
        name: "Headphones",
        description: "Over-ear, wireless",
        category: "Electronics",
        brand: "Vidya",
        tax_percent: 18,
        variants: &[
            Variant { sku: "HDP-BLK", name: "Black", price: 7999, stock: 90, attributes: &[("color", "Black")] },
            Variant { sku: "HDP-SND", name: "Sand", price: 7999, stock: 90, attributes: &[("color", "Sand")] },
        ],
    },
    Product {
        sku: "CHG",
        name: "Charger",
        description: "USB-C, 65 W",
        category: "Electronics",
        brand: "Vidya",
        tax_percent: 18,
        variants: &[Variant {
            sku: "CHG-065",
            name: "65 W",
            price: 1899,
            stock: 300,
            attributes: &[("power", "65 W")],
        }],
    },
    Product {
        sku: "KBD",
        name: "Keyboard",
        description: "Mechanical, hot-swappable",
        category: "Computers",
        brand: "Vidya",
        tax_percent: 18,
        variants: &[
            Variant { sku: "KBD-LIN", name: "Linear", price: 5499, stock: 60, attributes: &[("switch", "linear")] },
            Variant { sku: "KBD-TAC", name: "Tactile", price: 5499, stock: 60, attributes: &[("switch", "tactile")] },
        ],
    },
    Product {
        sku: "MON",
        name: "Monitor",
        description: "27 inches, 4K",
        category: "Computers",
        brand: "Vidya",
        tax_percent: 18,
        variants: &[Variant {
            sku: "MON-027",
            name: "27 inches",
            price: 24999,
            stock: 45,
            attributes: &[("size", "27")],
        }],
    },
    Product {
        sku: "TEA",
        name: "Darjeeling tea",
        description: "First flush, loose leaf",
        category: "Groceries",
        brand: "Pahar",
        tax_percent: 5,
        variants: &[
            Variant { sku: "TEA-100", name: "100 g", price: 349, stock: 400, attributes: &[("weight", "100 g")] },
            Variant { sku: "TEA-250", name: "250 g", price: 799, stock: 300, attributes: &[("weight", "250 g")] },
        ],
    },
    Product {
        sku: "COF",
        name: "Coffee",
        description: "Arabica from Chikmagalur",
        category: "Groceries",
        brand: "Pahar",
        tax_percent: 5,
        variants: &[
            Variant { sku: "COF-BEA", name: "Beans, 250 g", price: 549, stock: 250, attributes: &[("grind", "beans")] },
            Variant {
                sku: "COF-FIL",
                name: "Filter, 250 g",
                price: 549,
                stock: 250,
                attributes: &[("grind", "filter")],
            },
        ],
    },
    Product {
        sku: "RIC",
        name: "Basmati rice",
        description: "Aged two years",
        category: "Groceries",
        brand: "Pahar",
        tax_percent: 0,
        variants: &[
            Variant { sku: "RIC-001", name: "1 kg", price: 189, stock: 500, attributes: &[("weight", "1 kg")] },
            Variant { sku: "RIC-005", name: "5 kg", price: 899, stock: 200, attributes: &[("weight", "5 kg")] },
        ],
    },
    Product {
        sku: "BOK",
        name: "Notebook",
        description: "192 pages, dotted",
        category: "Stationery",
        brand: "Kala",
        tax_percent: 0,
        variants: &[
            Variant { sku: "BOK-A5", name: "A5", price: 299, stock: 350, attributes: &[("size", "A5")] },
            Variant { sku: "BOK-A6", name: "A6", price: 199, stock: 350, attributes: &[("size", "A6")] },
        ],
    },
    Product {
        sku: "PEN",
        name: "Fountain pen",
        description: "Steel nib, refillable",
        category: "Stationery",
        brand: "Kala",
        tax_percent: 18,
        variants: &[
            Variant { sku: "PEN-F", name: "Fine", price: 899, stock: 110, attributes: &[("nib", "F")] },
            Variant { sku: "PEN-M", name: "Medium", price: 899, stock: 110, attributes: &[("nib", "M")] },
        ],
    },
    Product {
        sku: "LMP",
        name: "Desk lamp",
        description: "Warm to cool, dimmable",
        category: "Home",
        brand: "Ghar",
        tax_percent: 18,
        variants: &[
            Variant { sku: "LMP-BRS", name: "Brass", price: 2799, stock: 55, attributes: &[("finish", "brass")] },
            Variant { sku: "LMP-BLK", name: "Black", price: 2599, stock: 55, attributes: &[("finish", "black")] },
        ],
    },
    Product {
        sku: "BED",
        name: "Bed sheet set",
        description: "Percale, with two pillow covers",
        category: "Home",
        brand: "Ghar",
        tax_percent: 5,
        variants: &[
            Variant { sku: "BED-QN", name: "Queen", price: 2199, stock: 75, attributes: &[("size", "Queen")] },
            Variant { sku: "BED-KG", name: "King", price: 2599, stock: 75, attributes: &[("size", "King")] },
        ],
    },
    Product {
        sku: "POT",
        name: "Pressure cooker",
        description: "Stainless steel, induction base",
        category: "Home",
        brand: "Ghar",
        tax_percent: 18,
        variants: &[
            Variant { sku: "POT-3L", name: "3 litres", price: 2499, stock: 65, attributes: &[("volume", "3 l")] },
            Variant { sku: "POT-5L", name: "5 litres", price: 2999, stock: 65, attributes: &[("volume", "5 l")] },
        ],
    },
    Product {
        sku: "MUG",
        name: "Stoneware mug",
        description: "350 ml",
        category: "Home",
        brand: "Ghar",
        tax_percent: 18,
        variants: &[
            Variant { sku: "MUG-BLU", name: "Blue", price: 399, stock: 220, attributes: &[("color", "Blue")] },
            Variant { sku: "MUG-WHT", name: "White", price: 399, stock: 220, attributes: &[("color", "White")] },
        ],
    },
    Product {
        sku: "GFT",
        name: "Collector's watch",
        description: "Automatic, engraved to order",
        category: "Accessories",
        brand: "Vega",
        tax_percent: 40,
        variants: &[Variant {
            sku: "GFT-STL",
            name: "Steel",
            price: 32000,
            stock: 15,
            attributes: &[("case", "steel")],
        }],
    },
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_sku_names_one_product_or_one_variant() {
        let variants = PRODUCTS.iter().flat_map(|product| product.variants.iter().map(|variant| variant.sku));
        let skus: Vec<&str> = PRODUCTS.iter().map(|product| product.sku).chain(variants).collect();
        assert_eq!(skus.iter().collect::<BTreeSet<_>>().len(), skus.len());
    }

    #[test]
    fn there_is_enough_to_choose_from() {
        assert!(PRODUCTS.len() >= 20);
        assert!(PRODUCTS.iter().all(|product| !product.variants.is_empty()));
    }
}
