//! Invented products. Every name is made up.

use crate::records::csv::defused;
use atelier_sdk::rng::Mt19937;
use atelier_sdk::{Result, ResultExt};
use serde_json::json;

/// The first id; the others follow.
pub const FIRST_ID: usize = 900_001;
/// What the documents of a demo set hold.
pub const MARK: &str = "atelier demo";

/// What is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    Sneaker,
    HighTop,
    Loafer,
    Tshirt,
}

/// A product.
#[derive(Debug, Clone)]
pub struct Product {
    pub id: usize,
    pub shape: Shape,
    pub article: &'static str,
    pub gender: &'static str,
    pub brand: &'static str,
    pub colour: &'static str,
    pub season: &'static str,
    pub year: u32,
    pub usage: &'static str,
    pub material: &'static str,
    pub fastening: &'static str,
    pub price: u32,
}

/// A choice by weights.
fn pick<T: Copy>(rng: &mut Mt19937, from: &[(T, u32)]) -> T {
    let total: u32 = from.iter().map(|f| f.1).sum();
    let mut lot = rng.next_u32() % total;
    for (value, weight) in from {
        if lot < *weight {
            return *value;
        }
        lot -= weight;
    }
    from[0].0
}

/// A generator for one product: others do not change it.
pub fn rng(seed: u64, id: usize) -> Mt19937 {
    let mut rng = Mt19937::new(seed ^ (id as u64).wrapping_mul(0x9e37_79b9));
    // Neighbouring seeds begin alike.
    (0..16).for_each(|_| {
        rng.next_u32();
    });
    rng
}

/// A product with about the shares of a real catalogue.
pub fn product(number: usize, seed: u64) -> Product {
    let id = FIRST_ID + number;
    let r = &mut rng(seed, id);
    let shape =
        pick(r, &[(Shape::Sneaker, 45), (Shape::Loafer, 22), (Shape::HighTop, 18), (Shape::Tshirt, 15)]);
    let shoe = shape != Shape::Tshirt;
    let (laces, none) = (("Lace-Ups", 8), ("", 4));
    Product {
        id,
        shape,
        article: if shoe { "Casual Shoes" } else { "Tshirts" },
        gender: pick(r, &[("Men", 62), ("Women", 26), ("Unisex", 8), ("Boys", 3), ("Girls", 1)]),
        brand: pick(
            r,
            &[
                ("Aldra", 9),
                ("Borealis", 7),
                ("Cintura", 5),
                ("Delmonte & Filhos", 3),
                ("Estrela", 2),
                ("Fjord", 1),
            ],
        ),
        colour: pick(
            r,
            &[
                ("Black", 30),
                ("Brown", 18),
                ("White", 15),
                ("Navy Blue", 10),
                ("Grey", 8),
                ("Blue", 7),
                ("Red", 5),
                ("Beige", 3),
                ("Green", 2),
                ("Pink", 1),
                ("", 1),
            ],
        ),
        season: pick(r, &[("Summer", 50), ("Fall", 31), ("Winter", 15), ("Spring", 4)]),
        year: pick(r, &[(2011, 10), (2012, 40), (2013, 20), (2016, 8)]),
        usage: pick(r, &[("Casual", 97), ("Smart Casual", 3)]),
        material: pick(r, &[("Leather", 10), ("Synthetic", 9), ("Canvas", 6), ("Suede", 3), ("", 10)]),
        fastening: if shape == Shape::Loafer { "Slip-On" } else { pick(r, &[laces, none]) },
        price: 499 + r.next_u32() % 60 * 100,
    }
}

impl Product {
    /// Its name, as a shop would write it.
    pub fn name(&self) -> String {
        let words = [self.brand, self.gender, self.colour, self.article];
        words.iter().filter(|w| !w.is_empty()).copied().collect::<Vec<_>>().join(" ")
    }
}

/// The style document of a product.
///
/// # Errors
/// None in practice.
pub fn style(p: &Product) -> Result<Vec<u8>> {
    let mut attributes = json!({});
    for (key, value) in [("Material", p.material), ("Fastening", p.fastening)] {
        if !value.is_empty() {
            attributes[key] = value.into();
        }
    }
    let description = format!(
        "<p>{} by <b>{}</b>, made of {}.<br>&nbsp;Drawn, not sold.</p>",
        p.article,
        p.brand.replace('&', "&amp;"),
        match p.material {
            "" => "mesh",
            other => other,
        }
    );
    let kind = |id: u32, name: &str| json!({"id": id, "typeName": name, "active": true});
    let shoe = p.article == "Casual Shoes";
    let value = json!({
        "notification": {},
        "meta": {"code": 200, "requestId": MARK},
        "data": {
            "id": p.id, "price": p.price, "discountedPrice": p.price, "productDisplayName": p.name(),
            "variantName": p.article, "brandName": p.brand, "ageGroup": format!("Adults-{}", p.gender),
            "gender": p.gender, "baseColour": if p.colour.is_empty() { "NA" } else { p.colour }, "colour1": "", "colour2": "",
            "fashionType": "Core", "season": p.season, "year": p.year.to_string(), "usage": p.usage,
            "articleAttributes": attributes,
            "masterCategory": kind(1, if shoe { "Footwear" } else { "Apparel" }),
            "subCategory": kind(2, if shoe { "Shoes" } else { "Topwear" }),
            "articleType": kind(3, p.article),
            "productDescriptors": {"description": {"descriptorType": "description", "value": description}},
        },
    });
    serde_json::to_vec(&value).internal("a style that is no JSON")
}

/// The table of products.
///
/// # Errors
/// None in practice.
pub fn table(products: &[Product]) -> Result<Vec<u8>> {
    let what = "writing a table";
    let mut out = ::csv::Writer::from_writer(Vec::new());
    let head = "id,gender,masterCategory,subCategory,articleType,baseColour,season,year,usage,productDisplayName,brandName";
    out.write_record(head.split(',')).internal(what)?;
    for p in products {
        let (master, sub) =
            if p.article == "Tshirts" { ("Apparel", "Topwear") } else { ("Footwear", "Shoes") };
        let (id, year, name) = (p.id.to_string(), p.year.to_string(), p.name());
        let row =
            [&*id, p.gender, master, sub, p.article, p.colour, p.season, &*year, p.usage, &*name, p.brand];
        out.write_record(row.map(defused)).internal(what)?;
    }
    out.into_inner().internal(what)
}
