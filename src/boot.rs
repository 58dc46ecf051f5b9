//! Which boot of the machine this is: what was recorded in another says nothing of what runs now.

/// The identity of this boot, the same for every process of it; empty where the kernel does not say.
pub fn id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned()).unwrap_or_default()
}
