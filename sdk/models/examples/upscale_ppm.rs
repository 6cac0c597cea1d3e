//! Enlarges a picture in the simplest of formats (PPM, P6), to hold the result beside another program's:
//!
//! `upscale_ppm WEIGHTS[,WEIGHTS of another,STRENGTH] IN.ppm OUT.ppm [TILE OVERLAP]`
//!
//! `upscale_ppm WEIGHTS IN.ppm seams TILE OVERLAP...` shows how far tiles are from the whole, overlap by overlap.

use atelier_models::{Tiles, Upscaler, UpscalerFile};
use candle_core::{DType, Device, Tensor};
use std::time::Instant;

type Anyhow<T> = Result<T, Box<dyn std::error::Error>>;

/// Bytes, width, height.
fn read(path: &str) -> Anyhow<(Vec<u8>, usize, usize)> {
    let file = std::fs::read(path)?;
    let header: Vec<&[u8]> = file.splitn(4, |b| b.is_ascii_whitespace()).collect();
    let [b"P6", width, height, rest] = header[..] else {
        return Err("expected a P6 file without comments".into());
    };
    let number = |text: &[u8]| -> Anyhow<usize> { Ok(std::str::from_utf8(text)?.parse()?) };
    let pixels = rest.strip_prefix(b"255\n").ok_or("expected 8 bits")?;
    Ok((pixels.to_vec(), number(width)?, number(height)?))
}

fn open(weights: &str) -> Anyhow<Upscaler> {
    let file = match weights.split(',').collect::<Vec<_>>()[..] {
        [path] => UpscalerFile::open(path)?,
        [path, other, strength] => {
            UpscalerFile::open(path)?.blended(&UpscalerFile::open(other)?, strength.parse()?)?
        }
        _ => return Err("expected WEIGHTS or WEIGHTS,OTHER,STRENGTH".into()),
    };
    println!("{:?}", file.architecture());
    Ok(file.build(DType::F32, &Device::Cpu)?)
}

fn seams(model: &Upscaler, picture: (Vec<u8>, usize, usize), size: usize, overlaps: &[usize]) -> Anyhow<()> {
    let (pixels, width, height) = picture;
    let planes: Vec<f32> =
        (0..3).flat_map(|c| pixels.iter().skip(c).step_by(3).map(|b| f32::from(*b) / 255.0)).collect();
    let image = Tensor::from_vec(planes, (1, 3, height, width), &Device::Cpu)?;
    let whole = model.upscale(&image, None, |_, _| Ok(()))?;
    for &overlap in overlaps {
        let began = Instant::now();
        let tiled = model.upscale(&image, Some(Tiles { size, overlap }), |_, _| Ok(()))?;
        let d = (tiled - &whole)?.abs()?.flatten_all()?;
        let (most, mean) = (d.max(0)?.to_scalar::<f32>()?, d.sqr()?.mean(0)?.to_scalar::<f32>()?.sqrt());
        println!(
            "tiles of {size}, overlap {overlap}: largest difference {:.2} of 255, root of the mean square {:.4}, {:.1} s",
            most * 255.0,
            mean * 255.0,
            began.elapsed().as_secs_f64()
        );
    }
    Ok(())
}

fn main() -> Anyhow<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [weights, input, output, rest @ ..] = &args[..] else {
        return Err("expected WEIGHTS IN.ppm OUT.ppm".into());
    };
    let numbers: Vec<usize> = rest.iter().map(|n| n.parse()).collect::<Result<_, _>>()?;
    let (model, picture) = (open(weights)?, read(input)?);
    if let ("seams", [size, overlaps @ ..]) = (output.as_str(), &numbers[..]) {
        return seams(&model, picture, *size, overlaps);
    }
    let (pixels, width, height) = picture;
    let tiles = if let [size, overlap] = numbers[..] { Some(Tiles { size, overlap }) } else { None };
    let began = Instant::now();
    let result = model.upscale_rgb8(&pixels, (width, height), tiles, |_, _| Ok(()))?;
    println!("{width}x{height}, {tiles:?}: {:.1} s", began.elapsed().as_secs_f64());
    let header = format!("P6\n{} {}\n255\n", width * model.scale(), height * model.scale());
    std::fs::write(output, [header.as_bytes(), &result].concat())?;
    Ok(())
}
