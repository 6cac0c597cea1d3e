//! Training data: images with captions, what is wrong with them, and what the networks make of them, kept on disk.
//!
//! [`Folder::load`] does it all: it reads the captions, chooses, opens every image once, and tells what was left out
//! and why before anything is trained. [`pixels`] is an image as the encoder takes it, [`Cache`] keeps what the
//! encoders gave.

mod cache;
mod decode;
mod folder;
mod lots;
mod open;
mod pixels;
mod record;
mod set;
mod strata;
mod subset;
mod wanted;

#[cfg(test)]
mod testing;

pub use cache::{Cache, Key, LatentKey, Report, TextKey};
pub use folder::{Folder, Found, Item, Kind, Rejected, Remark, counted};
pub use open::{Check, Opened};
pub use pixels::pixels;
pub use record::{Named, Record};
pub use set::{Set, Wanted};
pub use subset::Subset;
pub use wanted::{Scalar, Values, Where};
