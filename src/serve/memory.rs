//! What memory this process has, may have, and gives back.

use std::path::PathBuf;

/// Share of what is free that scorers may take: caches of the system and other programs need some as well.
const SHARE_PERCENT: u64 = 80;
const PAGE_BYTES: u64 = 4096;

/// Bytes that may be taken now: what the machine has free and the control group allows, less a reserve. All there could be where
/// nothing says.
pub(super) fn available() -> u64 {
    let machine = meminfo("MemAvailable:").unwrap_or(u64::MAX);
    machine.min(group_left().unwrap_or(u64::MAX)) / 100 * SHARE_PERCENT
}

/// Bytes of the machine.
pub(super) fn total() -> u64 {
    meminfo("MemTotal:").unwrap_or(u64::MAX)
}

/// Bytes of this process that are in memory.
pub(super) fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * PAGE_BYTES
}

fn meminfo(name: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().trim_end_matches(" kB").parse::<u64>().ok()?.checked_mul(1024)
}

/// What the control group, if it has a limit, leaves.
fn group_left() -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::"))?.trim_start_matches('/').to_owned();
    // Inside a container the path is often that of the host, and the limit at the root.
    [own, String::new()].iter().find_map(|group| {
        let folder = PathBuf::from("/sys/fs/cgroup").join(group);
        let read = |name: &str| std::fs::read_to_string(folder.join(name)).ok()?.trim().parse::<u64>().ok();
        Some(read("memory.max")?.saturating_sub(read("memory.current")?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_tells_its_memory() {
        assert!(resident() > 0 && resident() < total());
        assert!(available() > 0 && available() < total());
    }
}
