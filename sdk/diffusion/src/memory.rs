//! How much memory there is.

/// What a process takes beside weights and activations, in bytes.
pub const BASE: u64 = 64 << 20;

/// Memory that a run may take, in bytes: what was given in GiB, else what is free.
pub fn limit(given_gib: f64, free: Option<u64>) -> Option<u64> {
    if given_gib > 0.0 { Some((given_gib * (1u64 << 30) as f64) as u64) } else { free }
}

/// Memory that is free for the networks of a device, in bytes, if the system tells. The memory of a CUDA device is not
/// asked for.
pub fn available(device: &candle_core::Device) -> Option<u64> {
    if device.is_cuda() {
        return None;
    }
    let mut system = sysinfo::System::new().ok()?;
    system.refresh_memory();
    let free = system.available_memory();
    // Not the group's own count of free memory, which takes cached files for used.
    let group = system.cgroup_limits().map(|limits| limits.total_memory.saturating_sub(limits.rss));
    let limited = group.map_or(free, |group| free.min(group));
    (limited > 0).then_some(limited)
}

/// Gives memory that was freed and is kept for what is allocated next back to the system: where a network makes room for
/// another, what it leaves is in pieces of the wrong sizes. Elsewhere than with glibc it does nothing.
pub fn return_freed() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: may be called at any time by any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// `783.0 MiB`, `3.44 GiB`.
pub fn words(bytes: u64) -> String {
    let mib = bytes as f64 / (1u64 << 20) as f64;
    if mib < 1000.0 { format!("{mib:.1} MiB") } else { format!("{:.2} GiB", mib / 1024.0) }
}
