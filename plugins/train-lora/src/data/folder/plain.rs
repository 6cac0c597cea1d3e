//! Images with captions in files beside them.

use super::Item;
use super::draft::{Draft, MAX_CAPTION};
use super::listing::{Listing, stem};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Reads a folder of images.
pub fn read(listing: Listing, draft: &mut Draft<'_>) {
    let captions = Captions::new(&listing.captions);
    for name in &listing.images {
        let mut item = draft.item(name);
        in_folder(&mut item);
        if let Some(text) = captions.of(name, draft) {
            draft.take(item, &text);
        }
    }
    captions.lone(&listing.images, draft);
    draft.rejected(listing.rejected);
    draft.others += listing.others;
}

/// What folder an image is in is all that is known of it.
pub fn in_folder(item: &mut Item) {
    if let Some((folder, _)) = item.name.rsplit_once('/') {
        item.attributes.insert("folder".into(), folder.into());
    }
}

/// Caption files by what they are named after.
pub struct Captions<'a>(BTreeMap<&'a str, Vec<&'a str>>);

impl<'a> Captions<'a> {
    pub fn new(files: &'a BTreeSet<String>) -> Self {
        let mut out = BTreeMap::<&str, Vec<&str>>::new();
        files.iter().for_each(|f| out.entry(stem(f)).or_default().push(f));
        // Where there are both, `.txt` counts before `.caption`.
        out.values_mut().for_each(|v| v.reverse());
        Self(out)
    }

    /// The caption of an image; empty when it has none, nothing when the file is bad, which was told then.
    pub fn of(&self, image: &str, draft: &mut Draft<'_>) -> Option<String> {
        let Some(files) = self.0.get(stem(image)) else { return Some(String::new()) };
        if files.len() > 1 {
            draft.remark(image, "has more than one caption file; .txt counts");
        }
        match text(&draft.root.join(files.first()?)) {
            Ok(text) => Some(text),
            Err(reason) => {
                draft.reject(image, format!("its caption {reason}"));
                None
            }
        }
    }

    /// Tells of captions whose image is not there, and of those that several images share.
    pub fn lone(&self, images: &BTreeSet<String>, draft: &mut Draft<'_>) {
        let mut owners = BTreeMap::<&str, usize>::new();
        images.iter().for_each(|i| *owners.entry(stem(i)).or_default() += 1);
        for file in self.0.iter().filter(|c| !owners.contains_key(c.0)).flat_map(|c| c.1) {
            draft.reject(file, "there is a caption and no image");
        }
        let shared = |name: &&String| owners[stem(name)] > 1 && self.0.contains_key(stem(name));
        for name in images.iter().filter(shared) {
            draft.remark(name, "shares its caption file with another image");
        }
    }
}

fn text(path: &Path) -> Result<String, String> {
    let length = std::fs::metadata(path).map_err(|e| format!("cannot be read: {e}"))?.len();
    if length > MAX_CAPTION as u64 {
        return Err("is too long to be one".into());
    }
    let bytes = std::fs::read(path).map_err(|e| format!("cannot be read: {e}"))?;
    String::from_utf8(bytes).map_err(|_| "is not UTF-8: save it as that".into())
}

#[cfg(test)]
mod tests {
    use crate::data::testing::{Dir, png};
    use crate::data::{Folder, Kind};

    #[test]
    fn captions_lie_beside_images() {
        let dir = Dir::new();
        for name in ["a.png", "b.jpg", "sub/c.png", "d.png", "e.png", "f.jpg", "f.png"] {
            dir.put(name, png(4, 4));
        }
        dir.put("a.txt", "a shoe\nin red");
        dir.put("a.caption", "other");
        dir.put("sub/c.caption", "c");
        dir.put("d.txt", b"\xff\xfea\0");
        dir.put("f.TXT", "both");
        dir.put("gone.txt", "of nothing");
        dir.put("README.md", "");
        let found = Folder::new(dir.path()).read().unwrap();
        assert_eq!(found.kind, Kind::Plain);
        let items: Vec<_> = found.items.iter().map(|i| (i.name.as_str(), i.caption.as_str())).collect();
        assert_eq!(
            items,
            [("a.png", "a shoe in red"), ("f.jpg", "both"), ("f.png", "both"), ("sub/c.png", "c")]
        );
        assert_eq!(found.items[3].attributes["folder"], "sub");
        let rejected: Vec<_> = found.rejected.iter().map(|r| r.file.as_str()).collect();
        assert_eq!(rejected, ["b.jpg", "d.png", "e.png", "gone.txt"]);
        assert_eq!((found.remarks.len(), found.others), (4, 1), "{:?}", found.remarks);
        let found = Folder::new(dir.path()).with_caption(Some(" a shoe ".into())).read().unwrap();
        assert_eq!((found.items.len(), found.rejected.len()), (6, 2));
    }
}
