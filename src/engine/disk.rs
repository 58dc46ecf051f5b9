//! Whether the disk with the data has room left: without it nothing can be recorded, and people should hear of it before.
//!
//! Owned by nobody, asked by `status` and `doctor`. The judgement is pure.

use std::path::Path;

use crate::domain::manifest::Bytes;

/// Less free than this part of the disk is little.
const PART: u64 = 100;
/// Less than this is little on any disk.
const LEAST: u64 = 1024 * 1024;
/// More than this is enough on any disk.
const ENOUGH: u64 = 1024 * 1024 * 1024;

/// Bytes that may still be written on the disk that holds `data_dir`, without those only root may use.
pub(super) fn free(data_dir: &Path) -> Option<u64> {
    let disk = nix::sys::statvfs::statvfs(data_dir).ok()?;
    Some(disk.blocks_available().saturating_mul(disk.fragment_size()))
}

/// What is wrong with the disk that holds `data_dir`, if anything is. `least` is what must be free, where somebody said so.
pub fn problem(data_dir: &Path, least: Option<Bytes>) -> Option<String> {
    let disk = nix::sys::statvfs::statvfs(data_dir).ok()?;
    // What only root may use is not counted: the agent should not run as root.
    let block = disk.fragment_size();
    let (free, size) = (disk.blocks_available().saturating_mul(block), disk.blocks().saturating_mul(block));
    is_little(free, size, least).then(|| {
        format!(
            "the disk with {} is nearly full: {} MiB of {} MiB are free; free some space, or lower `retention.versions` and \
             `retention.logs`. What runs goes on, but nothing new can be recorded on a full disk",
            data_dir.display(),
            free / 1024 / 1024,
            size / 1024 / 1024
        )
    })
}

fn is_little(free: u64, size: u64, least: Option<Bytes>) -> bool {
    free < least.map_or((size / PART).clamp(LEAST, ENOUGH), |least| least.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn little_is_a_hundredth_but_at_least_a_mebibyte_and_at_most_a_gibibyte() {
        const MIB: u64 = 1024 * 1024;
        assert!(is_little(0, 24 * MIB, None));
        assert!(is_little(MIB - 1, 24 * MIB, None));
        assert!(!is_little(MIB, 24 * MIB, None));
        assert!(is_little(9 * MIB, 1000 * MIB, None));
        assert!(!is_little(10 * MIB, 1000 * MIB, None));
        assert!(!is_little(1024 * MIB, 100_000_000 * MIB, None));
        assert!(is_little(9 * MIB, 24 * MIB, Some(Bytes(10 * MIB))) && !is_little(9, 24 * MIB, Some(Bytes(0))));
    }
}
