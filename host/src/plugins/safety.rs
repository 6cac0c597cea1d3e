//! Whether anyone else could have put a file where it is.
//!
//! A plugin runs with all rights of the user, so a file that others can write is never run, trusted or not.
//! On Unix, for the path with every link resolved:
//!
//! - the file and the folder it lies in belong to the user or to root;
//! - neither it nor any folder above it is writable by everyone. A shared folder with the sticky bit, such as
//!   `/tmp`, will do if what lies in it belongs to the user or to root: nobody else can replace that.
//!
//! Writing by the group is not looked at, because many systems give every user a group of their own; nor are
//! access control lists. On Windows nothing is checked: a user's folders are closed to others there by default.

use atelier_sdk::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};

/// Checks a file, and gives its path with links resolved.
///
/// # Errors
/// Missing, not a regular file, or others could have written it.
pub fn file(path: &Path) -> Result<PathBuf> {
    let real = real(path)?;
    if !real.is_file() {
        return Err(not_a(
            "regular file",
            path,
            "name the library, or the folder that holds its plugin.yaml",
        ));
    }
    // Whoever owns the folder can put another file in its place.
    check(&real, 2)?;
    Ok(real)
}

/// Checks a folder, and gives its path with links resolved.
///
/// # Errors
/// Missing, not a folder, or others can put files into it. One with the sticky bit passes; the files in it are
/// each looked at by [`file`].
pub fn folder(path: &Path) -> Result<PathBuf> {
    let real = real(path)?;
    if !real.is_dir() {
        return Err(not_a("folder", path, "name the folder"));
    }
    check(&real, 1)?;
    Ok(real)
}

fn real(path: &Path) -> Result<PathBuf> {
    path.canonicalize().map_err(|e| {
        let missing = e.kind() == std::io::ErrorKind::NotFound;
        let err = Error::io(format!("cannot open {}", path.display()), e);
        if missing { err.hint("name a file or folder that is there") } else { err }
    })
}

fn not_a(what: &str, path: &Path, hint: &str) -> Error {
    Error::new(ErrorKind::Corrupt, format!("{} is not a {what}", path.display())).hint(hint)
}

#[cfg(not(unix))]
fn check(_: &Path, _: usize) -> Result<()> {
    Ok(())
}

#[cfg(unix)]
fn check(real: &Path, owned: usize) -> Result<()> {
    // SAFETY: it has no preconditions and cannot fail.
    let me = unsafe { libc::geteuid() };
    unix::check(real, owned, me)
}

#[cfg(unix)]
mod unix {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    const ANYONE_WRITES: u32 = 0o002;
    const STICKY: u32 = 0o1000;

    /// Looks at `real` and every folder above it; the first `owned` of them must belong to `me` or root.
    pub fn check(real: &Path, owned: usize, me: u32) -> Result<()> {
        let foreign = |uid: u32| uid != me && uid != 0;
        let mut inside_is_foreign = false;
        for (depth, path) in real.ancestors().enumerate() {
            let meta = std::fs::symlink_metadata(path)
                .map_err(|e| Error::io(format!("cannot look at {}", path.display()), e))?;
            if depth < owned && foreign(meta.uid()) {
                return Err(belongs_to_other(real, path, meta.uid()));
            }
            let shared = meta.is_dir() && meta.mode() & STICKY != 0 && !inside_is_foreign;
            if meta.mode() & ANYONE_WRITES != 0 && !shared {
                return Err(anyone_writes(real, path));
            }
            inside_is_foreign = foreign(meta.uid());
        }
        Ok(())
    }

    fn belongs_to_other(real: &Path, at: &Path, uid: u32) -> Error {
        let what = if real == at { "it".to_string() } else { format!("its folder {}", at.display()) };
        Error::new(ErrorKind::Environment, format!("{} is not used", real.display()))
            .because(format!("{what} belongs to another user (number {uid}), who can change it at any time"))
            .hint("copy it to a folder of your own if you know where it is from")
    }

    fn anyone_writes(real: &Path, at: &Path) -> Error {
        let what = if real == at { "it".to_string() } else { format!("the folder {}", at.display()) };
        Error::new(ErrorKind::Environment, format!("{} is not used", real.display()))
            .because(format!("every user of this machine can write to {what} (world-writable)"))
            .hint(format!("`chmod o-w {}`, if you know that its content is still right", at.display()))
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    struct Place(tempfile::TempDir);

    impl Place {
        fn new() -> Self {
            let place = Self(tempfile::tempdir().unwrap());
            std::fs::create_dir_all(place.path("sub")).unwrap();
            std::fs::write(place.path("sub/a.so"), "x").unwrap();
            place
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn mode(&self, name: &str, mode: u32) -> &Self {
            std::fs::set_permissions(self.path(name), PermissionsExt::from_mode(mode)).unwrap();
            self
        }

        fn problem(&self) -> String {
            file(&self.path("sub/a.so")).unwrap_err().chain().join(": ")
        }
    }

    #[test]
    fn a_file_of_ones_own_passes_also_through_a_link() {
        let place = Place::new();
        std::os::unix::fs::symlink("a.so", place.path("sub/link.so")).unwrap();
        let real = file(&place.path("sub/link.so")).unwrap();
        assert_eq!(real, place.path("sub/a.so").canonicalize().unwrap());
        folder(&place.path("sub")).unwrap();
    }

    #[test]
    fn a_file_that_everyone_writes_is_refused_also_through_a_link() {
        let place = Place::new();
        place.mode("sub/a.so", 0o666);
        std::os::unix::fs::symlink(place.path("sub/a.so"), place.path("link.so")).unwrap();
        assert!(place.problem().contains("can write to it (world-writable)"), "{}", place.problem());
        assert!(file(&place.path("link.so")).is_err());
    }

    #[test]
    fn a_folder_that_everyone_writes_is_refused_however_far_above() {
        let place = Place::new();
        place.mode("sub", 0o777);
        assert!(place.problem().contains("the folder"), "{}", place.problem());
        assert!(folder(&place.path("sub")).is_err());
        place.mode("sub", 0o755).mode("", 0o777);
        assert!(place.problem().contains("the folder"), "{}", place.problem());
    }

    #[test]
    fn a_shared_folder_with_the_sticky_bit_will_do() {
        let place = Place::new();
        place.mode("sub", 0o1777);
        file(&place.path("sub/a.so")).unwrap();
        folder(&place.path("sub")).unwrap();
    }

    #[test]
    fn only_regular_files_pass() {
        let place = Place::new();
        assert!(file(&place.path("sub")).unwrap_err().message().contains("not a regular file"));
        assert!(folder(&place.path("sub/a.so")).unwrap_err().message().contains("not a folder"));
        assert_eq!(file(&place.path("none")).unwrap_err().kind(), ErrorKind::NotFound);
    }

    /// Gives the file, or the folder, to another user if the tests may do that; else lets another user look.
    fn given_away(place: &Place, name: &str) -> Option<u32> {
        // SAFETY: as above.
        let me = unsafe { libc::geteuid() };
        if me != 0 {
            return Some(me + 1);
        }
        std::os::unix::fs::chown(place.path(name), Some(4242), None).ok().map(|()| me)
    }

    #[test]
    fn what_belongs_to_another_user_is_refused() {
        for name in ["sub/a.so", "sub"] {
            let place = Place::new();
            let Some(me) = given_away(&place, name) else { continue };
            let real = place.path("sub/a.so").canonicalize().unwrap();
            let e = unix::check(&real, 2, me).unwrap_err();
            assert!(e.chain().join(" ").contains("belongs to another user"), "{:?}", e.chain());
        }
    }

    #[test]
    fn the_sticky_bit_does_not_help_what_belongs_to_another_user() {
        let place = Place::new();
        place.mode("", 0o1777);
        let Some(me) = given_away(&place, "sub") else { return };
        let real = place.path("sub/a.so").canonicalize().unwrap();
        assert!(unix::check(&real, 0, me).unwrap_err().chain().join(" ").contains("world-writable"));
    }
}
