//! What goes wrong in real data sets, once of each sort.

use super::records::{self, FIRST_ID, Product};
use super::{draw, jpeg};
use crate::images::{Rgb, png_file, resize};
use atelier_sdk::files::write_atomic;
use atelier_sdk::{Result, ResultExt};
use std::path::Path;

/// Ids of broken products: from here on.
const FIRST_BROKEN: usize = FIRST_ID + 50_000;

struct Breaker<'a> {
    out: &'a Path,
    table: &'a mut Vec<u8>,
    next: usize,
    broken: Vec<(String, &'static str)>,
    seed: u64,
}

/// Adds broken records and files. Returns what is broken, and how.
///
/// # Errors
/// The folder is not writable, the disk is full.
pub fn add(
    out: &Path,
    products: &[Product],
    table: &mut Vec<u8>,
    seed: u64,
) -> Result<Vec<(String, &'static str)>> {
    let mut b = Breaker { out, table, next: FIRST_BROKEN, broken: Vec::new(), seed };
    b.documents()?;
    b.photos()?;
    b.copies(products)?;
    b.rows(products);
    Ok(b.broken)
}

impl Breaker<'_> {
    /// A fresh product: a shoe, so that no filter hides it.
    fn product(&mut self) -> Product {
        let sample = (0..).map(|i| records::product(i, self.seed)).find(|p| p.article == "Casual Shoes");
        let id = self.next;
        self.next += 1;
        match sample {
            Some(p) => Product { id, colour: "Black", ..p },
            None => Product { id, ..records::product(0, self.seed) },
        }
    }

    fn file(&mut self, name: String, content: &[u8], why: &'static str) -> Result<()> {
        write_atomic(&self.out.join(&name), content)?;
        self.broken.push((name, why));
        Ok(())
    }

    fn style(&mut self, p: &Product) -> Result<()> {
        self.row(p);
        write_atomic(&self.out.join(format!("styles/{}.json", p.id)), &records::style(p)?)
    }

    fn row(&mut self, p: &Product) {
        let row = format!(
            "{},{},Footwear,Shoes,{},{},{},{},{},{},{}\n",
            p.id,
            p.gender,
            p.article,
            p.colour,
            p.season,
            p.year,
            p.usage,
            p.name(),
            p.brand
        );
        self.table.extend(row.as_bytes());
    }

    fn photo(&mut self, p: &Product) -> Result<Vec<u8>> {
        jpeg(&draw::product(p, self.seed), 92)
    }

    /// Style documents.
    fn documents(&mut self) -> Result<()> {
        let p = self.product();
        let whole = records::style(&p)?;
        let photo = self.photo(&p)?;
        self.file(format!("styles/{}.json", p.id), &whole[..whole.len() / 2], "the document is cut off")?;
        write_atomic(&self.out.join(format!("images/{}.jpg", p.id)), &photo)?;

        let p = self.product();
        let text = String::from_utf8_lossy(&records::style(&p)?)
            .replace(p.brand, &format!("<b>{}</b>&trade;", p.brand));
        let photo = self.photo(&p)?;
        self.file(format!("styles/{}.json", p.id), text.as_bytes(), "markup inside of fields")?;
        write_atomic(&self.out.join(format!("images/{}.jpg", p.id)), &photo)?;

        let p = self.product();
        let text =
            String::from_utf8_lossy(&records::style(&p)?).replace(&p.id.to_string(), "\"../../outside\"");
        self.file(format!("styles/{}.json", p.id), text.as_bytes(), "the id inside leads out of the folder")?;

        let p = self.product();
        let text =
            String::from_utf8_lossy(&records::style(&p)?).replace(&p.id.to_string(), &FIRST_ID.to_string());
        self.file(
            format!("styles/{}.json", p.id),
            text.as_bytes(),
            "the id inside is that of another record",
        )?;

        let p = self.product();
        let text = String::from_utf8_lossy(&records::style(&p)?).replace(p.brand, "Caf\u{e9} Norte");
        let latin1: Vec<u8> = text.chars().map(|c| c as u32 as u8).collect();
        let photo = self.photo(&p)?;
        self.file(format!("styles/{}.json", p.id), &latin1, "the document is in Latin-1")?;
        write_atomic(&self.out.join(format!("images/{}.jpg", p.id)), &photo)
    }

    /// Photos.
    fn photos(&mut self) -> Result<()> {
        let p = self.product();
        self.style(&p)?;
        self.broken.push((format!("styles/{}.json", p.id), "there is no photo"));

        let p = self.product();
        let photo = self.photo(&p)?;
        self.file(format!("images/{}.jpg", p.id), &photo, "there is no record")?;

        let p = self.product();
        self.style(&p)?;
        self.file(format!("images/{}.jpg", p.id), b"", "the file has 0 bytes")?;

        let p = self.product();
        self.style(&p)?;
        let photo = self.photo(&p)?;
        self.file(format!("images/{}.jpg", p.id), &photo[..photo.len() * 2 / 3], "the photo is cut off")?;

        let p = self.product();
        self.style(&p)?;
        let png = png_file::encode(&draw::product(&p, self.seed), None)?;
        self.file(format!("images/{}.jpg", p.id), &png, "a PNG that is named .jpg")?;

        let p = self.product();
        self.style(&p)?;
        self.file(
            format!("images/{}.jpg", p.id),
            b"<html>404 Not Found</html>",
            "a page instead of a photo",
        )?;

        let p = self.product();
        self.style(&p)?;
        self.file(format!("images/{}.png", p.id), &bomb()?, "100 megapixels in a small file")?;

        let p = self.product();
        self.style(&p)?;
        let photo = jpeg(&lying(&draw::product(&p, self.seed)), 92)?;
        self.file(
            format!("images/{}.jpg", p.id),
            &turned(&photo),
            "lies on its side, as its EXIF mark says",
        )?;
        self.file("images/notes.txt".into(), b"not a photo\n", "not an image at all")
    }

    /// The same photo under another id: the same file, and another file that shows the same.
    fn copies(&mut self, products: &[Product]) -> Result<()> {
        let Some(original) = products.iter().find(|p| p.article == "Casual Shoes") else { return Ok(()) };
        let drawn = draw::product(original, self.seed);
        let same = Product { id: self.next, ..original.clone() };
        let near = Product { id: self.next + 1, ..original.clone() };
        self.next += 2;
        self.style(&same)?;
        self.file(
            format!("images/{}.jpg", same.id),
            &jpeg(&drawn, 92)?,
            "the same file as another record's",
        )?;
        self.style(&near)?;
        let smaller = resize::lanczos(&drawn, drawn.width * 2 / 3, drawn.height * 2 / 3)?;
        self.file(
            format!("images/{}.jpg", near.id),
            &jpeg(&smaller, 75)?,
            "the same picture as another record's, smaller",
        )
    }

    /// Rows of the table.
    fn rows(&mut self, products: &[Product]) {
        let id = self.next;
        let rest = "Men,Footwear,Shoes,Casual Shoes,Black,Summer,2012,Casual";
        let mut add = |row: Vec<u8>, why| {
            self.table.extend(row);
            self.broken.push(("styles.csv".into(), why));
        };
        add(format!("../../outside,{rest},Escape,Aldra\n").into(), "an id that leads out of the folder");
        add(format!("/etc/outside,{rest},Escape,Aldra\n").into(), "an id that is an absolute path");
        add(
            format!("{id},{rest},\"=HYPERLINK(\"\"http://example.org\"\")\",Aldra\n").into(),
            "a cell that a spreadsheet would run",
        );
        add(
            [format!("{},{rest},Caf", id + 1).as_bytes(), b"\xe9", b" Norte,Aldra\n"].concat(),
            "a line in Latin-1",
        );
        add(format!("{},{rest},Too, many, cells,Aldra\n", id + 2).into(), "more cells than the header has");
        if let Some(first) = products.first() {
            add(format!("{},{rest},Again,Aldra\n", first.id).into(), "an id that came before");
        }
    }
}

/// A PNG whose pixels are far more than its bytes.
fn bomb() -> Result<Vec<u8>> {
    let mut out = Vec::new();
    let mut encoder = png::Encoder::new(&mut out, 10_000, 10_000);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::One);
    encoder.set_compression(png::Compression::High);
    let what = "encoding a PNG";
    let mut writer = encoder.write_header().internal(what)?;
    writer.write_image_data(&vec![0; 10_000 * 1250]).internal(what)?;
    writer.finish().internal(what)?;
    Ok(out)
}

/// An image turned left by 90 degrees.
fn lying(image: &Rgb) -> Rgb {
    let (width, height) = (image.height, image.width);
    let pixels = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
    let data = pixels.flat_map(|(x, y)| image.at(image.width - 1 - y, x)).collect();
    Rgb { width, height, data }
}

/// The JPEG with an EXIF mark that says: turn right by 90 degrees to see it upright.
fn turned(jpeg: &[u8]) -> Vec<u8> {
    let entry = b"\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
    let exif = [b"Exif\0\0II*\0\x08\0\0\0\x01\0".as_slice(), entry].concat();
    let length = (exif.len() as u16 + 2).to_be_bytes();
    [&jpeg[..2], &[0xff, 0xe1], &length, &exif, &jpeg[2..]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::load;

    #[test]
    fn the_bomb_is_small_and_the_turned_photo_turns() {
        assert!(bomb().unwrap().len() < 100_000);
        let photo = jpeg(&Rgb::plain(40, 20, [9; 3]), 90).unwrap();
        let upright = load::decode(&turned(&photo), 50.0).unwrap().pixels;
        assert_eq!((upright.width, upright.height), (20, 40));
        let marked = Rgb { width: 2, height: 1, data: vec![1, 1, 1, 2, 2, 2] };
        assert_eq!(lying(&marked), Rgb { width: 1, height: 2, data: vec![2, 2, 2, 1, 1, 1] });
    }
}
