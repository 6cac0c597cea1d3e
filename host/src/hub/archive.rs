//! Files inside wheels and other zip archives.

use super::transfer::{Came, Expected, check};
use crate::digests::hex;
use crate::fsx;
use atelier_sdk::{Error, ErrorKind, Result};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use zip::ZipArchive;

/// No file of a model is larger; an archive that claims so is a trap.
const MOST: u64 = 64 << 30;

/// Unpacks the file `inside` of an archive to `place`, if it is what is expected.
///
/// # Errors
/// No zip archive, no such file in it, another length or digest, the disk is full.
pub fn unpack(archive: &Path, inside: &str, expected: &Expected, place: &Path) -> Result<Came> {
    let name = archive.display();
    let broken = |e| Error::new(ErrorKind::Corrupt, format!("cannot read {inside} in {name}")).because(e);
    let file = File::open(archive).map_err(|e| Error::io(format!("cannot read {name}"), e))?;
    let mut zip = ZipArchive::new(file)
        .map_err(|e| Error::new(ErrorKind::Corrupt, format!("{name} is not a zip archive")).because(e))?;
    if zip.index_for_name(inside).is_none() {
        return Err(missing(&zip, inside, archive));
    }
    let member = zip.by_name(inside).map_err(broken)?;
    let most = expected.size.unwrap_or(MOST);
    let folder = place.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(|e| fsx::cannot_write(folder, e))?;
    let temporary = tempfile::Builder::new().prefix(".atelier-").tempfile_in(folder);
    let mut temporary = temporary.map_err(|e| fsx::cannot_write(place, e))?;
    let mut content = member.take(most.saturating_add(1));
    let (mut hash, mut size, mut chunk) = (Sha256::new(), 0, vec![0; 256 << 10]);
    loop {
        let read = content.read(&mut chunk);
        let read = read.map_err(|e| {
            Error::new(ErrorKind::Corrupt, format!("cannot read {inside} in {name}")).because(e)
        })?;
        if read == 0 {
            break;
        }
        hash.update(&chunk[..read]);
        size += read as u64;
        temporary.write_all(&chunk[..read]).map_err(|e| fsx::cannot_write(place, e))?;
    }
    let came = Came { sha256: hex(&hash.finalize()), size };
    check(&came, expected, &format!("{inside} in {name}"))?;
    finish(temporary, place)?;
    Ok(came)
}

fn finish(file: tempfile::NamedTempFile, place: &Path) -> Result<()> {
    let failed = |e| fsx::cannot_write(place, e);
    #[cfg(unix)]
    file.as_file().set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644)).map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    file.persist(place).map_err(|e| failed(e.error))?;
    Ok(())
}

fn missing(zip: &ZipArchive<File>, inside: &str, archive: &Path) -> Error {
    let e = Error::new(ErrorKind::NotFound, format!("there is no {inside} in {}", archive.display()));
    let names: Vec<String> = zip.file_names().flatten().map(Into::into).collect();
    match atelier_sdk::registry::nearest(inside, names.iter().map(String::as_str)) {
        Some(near) => e.hint(format!("did you mean `{near}`?")),
        None => e.hint(format!("it holds {} files", zip.len())),
    }
}
