//! From what a decoder gives to an image.

use crate::error;
use atelier_sdk::{Error, Image, Result};
use candle_core::Tensor;

/// An image from planes (1, 3, height, width).
///
/// # Errors
/// Something that is no number.
pub fn image(planes: &Tensor) -> Result<Image> {
    let failed = error::tensor("reading the decoded image");
    let (_, _, height, width) = planes.dims4().map_err(&failed)?;
    let values = planes.flatten_all().and_then(|t| t.to_vec1::<f32>()).map_err(&failed)?;
    let side = |n: usize| u32::try_from(n).map_err(|_| Error::internal("an image side beyond 32 bits"));
    Image::from_planes(side(width)?, side(height)?, &values)
}
