//! Folders as kohya's scripts have them: `10_red shoes` holds images that are seen ten times in an epoch.

use super::draft::Draft;
use super::listing::Listing;
use super::plain::{Captions, in_folder};

/// More repeats than this are a year or a number in a name.
const MAX_REPEATS: u32 = 1000;

/// Repeats and concept of a folder's name.
fn parts(folder: &str) -> Option<(u32, &str)> {
    let (repeats, concept) = folder.split_once('_')?;
    let digits = !repeats.is_empty() && repeats.bytes().all(|b| b.is_ascii_digit());
    let repeats = repeats.parse().ok().filter(|n| digits && (1..=MAX_REPEATS).contains(n))?;
    Some((repeats, concept.trim())).filter(|p| !p.1.is_empty())
}

fn concept(name: &str) -> Option<(u32, &str)> {
    parts(name.split_once('/')?.0)
}

/// Whether any image lies in such a folder.
pub fn fits(listing: &Listing) -> bool {
    listing.images.iter().any(|name| concept(name).is_some())
}

/// Reads such folders.
pub fn read(listing: Listing, draft: &mut Draft<'_>) {
    let captions = Captions::new(&listing.captions);
    for name in &listing.images {
        let Some((repeats, concept)) = concept(name) else {
            draft.reject(name, "it is not in a folder named <repeats>_<name>");
            continue;
        };
        let Some(mut text) = captions.of(name, draft) else { continue };
        if text.trim().is_empty() {
            draft.remark(name, "has no caption; its folder's name is taken");
            text = concept.into();
        }
        let mut item = draft.item(name);
        item.repeats = repeats;
        in_folder(&mut item);
        draft.take(item, &text);
    }
    captions.lone(&listing.images, draft);
    draft.rejected(listing.rejected);
    draft.others += listing.others;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::testing::{Dir, png};
    use crate::data::{Folder, Kind};

    #[test]
    fn repeats_and_concept_are_the_folders_name() {
        assert_eq!(parts("10_sks red_shoe"), Some((10, "sks red_shoe")));
        for name in ["10", "_a", "10_", "0_a", "x_a", "+3_a", "2024_photos", "99999999999_a"] {
            assert_eq!(parts(name), None, "{name}");
        }
    }

    #[test]
    fn folders_give_repeats_and_captions_where_there_are_none() {
        let dir = Dir::new();
        for name in ["3_red shoe/a.png", "3_red shoe/b.png", "1_hat/c.png", "reg/d.png", "e.png"] {
            dir.put(name, png(4, 4));
        }
        dir.put("3_red shoe/a.caption", "a shoe");
        dir.put("1_hat/c.txt", " \n");
        let found = Folder::new(dir.path()).read().unwrap();
        assert_eq!(found.kind, Kind::Kohya);
        let items: Vec<_> = found.items.iter().map(|i| (i.repeats, i.caption.as_str())).collect();
        assert_eq!(items, [(1, "hat"), (3, "a shoe"), (3, "red shoe")]);
        assert_eq!((found.rejected.len(), found.remarks.len()), (2, 2));
    }
}
