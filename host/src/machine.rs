//! Facts about this machine and this process.

/// The most memory this process has held, in bytes, if the system tells.
pub fn peak_memory() -> Option<u64> {
    // The other account begins with what the process held that started this one, and cannot be set back.
    #[cfg(target_os = "linux")]
    if let Some(bytes) = high_water() {
        return Some(bytes);
    }
    #[cfg(unix)]
    {
        let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
        // SAFETY: `usage` is a valid place for one rusage, which getrusage fills when it returns 0.
        let usage = unsafe {
            if libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()) != 0 {
                return None;
            }
            usage.assume_init()
        };
        // Linux counts in KiB, macOS in bytes.
        let unit = if cfg!(target_os = "macos") { 1 } else { 1024 };
        u64::try_from(usage.ru_maxrss).ok().map(|n| n * unit)
    }
    #[cfg(not(unix))]
    None
}

/// Linux's account of [`peak_memory`].
#[cfg(target_os = "linux")]
fn high_water() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.strip_suffix("kB"))?;
    Some(line.trim().parse::<u64>().ok()? * 1024)
}

/// Makes what this process holds now its peak, if the system can. Gives whether it did.
pub fn reset_peak_memory() -> bool {
    // The number that means this: proc_pid_clear_refs(5).
    cfg!(target_os = "linux") && std::fs::write("/proc/self/clear_refs", "5").is_ok()
}

/// Has the C library keep memory that is freed, for what is allocated next: networks free and allocate tens of megabytes in
/// every layer, and each time the system would take the pages away and fill new ones with zeros. To be called before
/// there are threads; elsewhere than with glibc it does nothing.
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    for (what, bytes) in
        [(libc::M_MMAP_THRESHOLD, 1 << 30), (libc::M_TRIM_THRESHOLD, 1 << 30), (libc::M_TOP_PAD, 16 << 20)]
    {
        // SAFETY: changes numbers of the allocator; it refuses those that it does not take.
        unsafe { libc::mallopt(what, bytes) };
    }
}

/// The name of the processor, if the system tells.
pub fn processor() -> Option<String> {
    let mut system = sysinfo::System::new().ok()?;
    system.refresh_cpu_list(sysinfo::CpuRefreshKind::nothing());
    let name = system.cpus().first()?.brand().trim().to_string();
    (!name.is_empty()).then_some(name)
}

/// Total and available memory of the machine, in bytes, if the system tells.
pub fn memory() -> Option<(u64, u64)> {
    let mut system = sysinfo::System::new().ok()?;
    system.refresh_memory();
    Some((system.total_memory(), system.available_memory()))
}

/// Processor cores that may be used.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Bytes in words.
pub fn human_bytes(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB"] {
        if value < 1024.0 {
            return format!("{value:.0} {unit}");
        }
        value /= 1024.0;
    }
    format!("{value:.2} GiB")
}

/// Bytes that this user can still write to the file system of `folder`, or of its nearest parent that exists, if the
/// system tells.
pub fn free_space(folder: &std::path::Path) -> Option<u64> {
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt;
        let folder = folder.ancestors().find(|p| p.exists())?;
        let name = std::ffi::CString::new(folder.as_os_str().as_bytes()).ok()?;
        let mut found = std::mem::MaybeUninit::<libc::statvfs>::zeroed();
        // SAFETY: `name` ends with a zero, and `found` is a valid place that statvfs fills when it returns 0.
        let found = unsafe {
            if libc::statvfs(name.as_ptr(), found.as_mut_ptr()) != 0 {
                return None;
            }
            found.assume_init()
        };
        #[allow(clippy::unnecessary_cast, reason = "the types differ between systems")]
        return (found.f_bavail as u64).checked_mul(found.f_frsize as u64);
    }
    #[cfg(not(unix))]
    {
        let _ = folder;
        None
    }
}
