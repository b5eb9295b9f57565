//! How many scorers a job gets on the processor where nobody says.
//!
//! Several frames at once, with one thread each, never wait for each other and are as fast as several threads in one frame,
//! or faster (`make bench-peers`: two threads in one frame are 1.7 to 2.0 times one). But each holds the activations of its
//! frame, so that large frames on many cores are scored by fewer scorers with more threads.

use crate::config::{Config, cores};
use crate::prepare::Prepared;
use restyle_models::device::DeviceChoice;
use std::num::NonZeroUsize;

/// Scorers may fill this share of the memory that is free; the rest is for pictures, encoders and whoever else is there.
const ROOM_SHARE: u64 = 2;

/// Returns the configuration with the job's device and a number of scorers, which is the one asked for if one was.
pub(crate) fn settled(config: &Config, prepared: &Prepared) -> Config {
    let mut config = Config { device: prepared.device, ..config.clone() };
    if config.workers.is_none() && config.device == DeviceChoice::Cpu {
        let video = &prepared.plan.source.video;
        config.workers = Some(choose(cores(), free_bytes(), frame_bytes(prepared), video.frames_about));
    }
    config
}

/// As many as there are cores, frames, and frames that fit into the room.
fn choose(cores: usize, free: Option<u64>, frame_bytes: u64, frames: Option<u64>) -> NonZeroUsize {
    let fitting = free.map_or(u64::MAX, |bytes| bytes / ROOM_SHARE / frame_bytes.max(1));
    let most = fitting.min(frames.unwrap_or(u64::MAX));
    let most = usize::try_from(most).unwrap_or(usize::MAX).clamp(1, cores.max(1));
    // Threads are shared out evenly: five scorers on eight cores would leave three of them idle.
    let busy = |scorers: &usize| (scorers * (cores / scorers), *scorers);
    (1..=most).max_by_key(busy).and_then(NonZeroUsize::new).unwrap_or(NonZeroUsize::MIN)
}

/// Bytes that one scorer holds while it works on a frame.
fn frame_bytes(prepared: &Prepared) -> u64 {
    let (width, height) = prepared.plan.source.video.upright_size();
    let (width, height) = (u64::from(width), u64::from(height));
    let pixels = match prepared.plan.score_width.map(u64::from) {
        Some(scored) => scored * (scored * height / width.max(1)).max(1),
        None => width * height,
    };
    prepared.style.parts.iter().map(|(source, _)| source.bytes_per_pixel() * pixels).sum()
}

/// Memory that may be taken without pushing anything out, also where a container's limit is lower; `None` where the system
/// does not say.
fn free_bytes() -> Option<u64> {
    let mut system = sysinfo::System::new();
    system.refresh_memory();
    let limited = system.cgroup_limits().map(|limits| limits.free_memory);
    let free = system.available_memory();
    (free > 0).then(|| limited.map_or(free, |limit| limit.min(free)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn every_core_has_a_frame_of_its_own_while_there_is_room() {
        assert_eq!(choose(8, Some(16 * GIB), GIB / 4, Some(1000)).get(), 8);
        assert_eq!(choose(8, None, GIB, None).get(), 8);
    }

    #[test]
    fn large_frames_on_many_cores_are_fewer_at_once() {
        assert_eq!(choose(64, Some(16 * GIB), 2 * GIB, Some(1000)).get(), 4);
        assert_eq!(choose(64, Some(GIB), 2 * GIB, Some(1000)).get(), 1, "one there must be");
        assert_eq!(choose(8, Some(10 * GIB), GIB, Some(1000)).get(), 4, "no core is left over");
        assert_eq!(choose(7, Some(10 * GIB), GIB, Some(1000)).get(), 1, "nor here: seven threads in one frame");
    }

    #[test]
    fn a_clip_of_one_frame_has_all_threads_in_it() {
        assert_eq!(choose(8, Some(16 * GIB), 1, Some(1)).get(), 1);
        assert_eq!(choose(8, Some(16 * GIB), 1, Some(0)).get(), 1);
    }

    #[test]
    fn this_machine_says_how_much_is_free() {
        assert!(free_bytes().is_some_and(|bytes| bytes > 1 << 20));
    }
}
