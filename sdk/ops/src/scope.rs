//! Temporary objects of a device.

/// Runs one unit of work (a step, a decode) and frees what the device's driver made for it on the way.
///
/// Metal's objects wait in an autorelease pool; a command-line program has none that empties by itself, so without
/// this a long run grows with every step. On other devices this is just `f()`.
pub fn scope<R>(f: impl FnOnce() -> R) -> R {
    #[cfg(all(feature = "metal", target_vendor = "apple"))]
    return objc2::rc::autoreleasepool(|_| f());
    #[cfg(not(all(feature = "metal", target_vendor = "apple")))]
    f()
}
