//! What scores: one node a network, and the networks that are kept when nothing uses them.

use crate::config::Config;
use restyle_actors::score::{Scorer, StyleScorer};
use restyle_engine::clock::Clock;
use restyle_engine::supervise::{NodeClass, NodeSpec};
use restyle_models::ModelError;
use restyle_models::device::DeviceChoice;
use restyle_models::mix::{Controls, StyleSource, build_mix};
use restyle_models::pixels::Picture;
use restyle_models::ranges::Ranges;
use restyle_models::style::{PictureShape, StyleModel, StylizeOptions};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// One node a scorer, named after its device.
pub(crate) fn nodes(config: &Config) -> Vec<NodeSpec> {
    let device = config.device.to_string();
    let dedicated = config.worker_count().saturating_sub(config.low_priority);
    (0..config.worker_count())
        .map(|k| NodeSpec {
            class: if k < dedicated { NodeClass::Dedicated } else { NodeClass::LowPriority },
            ..NodeSpec::new(format!("{device}-{k}").as_str(), device.as_str())
        })
        .collect()
}

/// What a scorer of a job is built from.
pub(crate) struct Blueprint {
    pub(crate) parts: Vec<(StyleSource, f32)>,
    pub(crate) controls: Controls,
    pub(crate) device: DeviceChoice,
    pub(crate) threads: usize,
    pub(crate) ranges: Option<Ranges>,
    pub(crate) options: StylizeOptions,
    /// What the decoder's pictures have in common.
    pub(crate) shape: PictureShape,
}

impl Blueprint {
    /// Builds a scorer on the thread that uses it, with a network of the shelf where it holds one like it.
    pub(crate) fn scorer(&self, shelf: Option<&Arc<Shelf>>) -> Result<Box<dyn Scorer>, ModelError> {
        let build = || build_mix(&self.parts, self.controls, &self.device, self.threads, self.ranges.as_ref());
        let mut model = match shelf.filter(|_| self.device == DeviceChoice::Cpu) {
            // A card's memory belongs to the thread's context, and is better free than kept.
            None => build()?,
            Some(shelf) => shelf.take_or_build(&self.key(), build)?,
        };
        let batch = model.make_room(self.shape, &self.options)?;
        Ok(Box::new(StyleScorer::new(model, self.options, batch)))
    }

    /// What networks that stand for each other have in common.
    fn key(&self) -> String {
        let parts: Vec<String> =
            self.parts.iter().map(|(source, share)| format!("{}:{share}", source.digest())).collect();
        let Controls { strength, preserve_color } = self.controls;
        let ranges = self.ranges.as_ref().map(|r| serde_json::to_string(r).unwrap_or_default()).unwrap_or_default();
        format!("{} {strength} {preserve_color} {} {ranges}", parts.join(","), self.threads)
    }
}

/// Networks that were built and that nothing uses, so that the next scorer begins at once. Clones of the `Arc` share it.
pub struct Shelf {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    /// Networks in use and on the shelf together, beyond which one of the shelf goes for each that is built.
    networks_max: usize,
}

#[derive(Default)]
struct State {
    kept: Vec<(String, Box<dyn StyleModel>)>,
    used: usize,
    /// What the last network cost to build.
    build: Duration,
}

impl Shelf {
    /// Makes an empty shelf for jobs that use at most so many networks at once.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, networks_max: usize) -> Self {
        Self { clock, state: Mutex::default(), networks_max }
    }

    /// Returns how many networks lie on it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().kept.len()
    }

    /// Whether nothing lies on it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns what the last network took to build.
    #[must_use]
    pub fn build_time(&self) -> Duration {
        self.lock().build
    }

    /// Lets go of all but so many, and of nothing that is in use.
    pub fn shrink(&self, networks: usize) {
        let mut state = self.lock();
        let going = state.kept.len().saturating_sub(networks);
        let gone: Vec<_> = state.kept.drain(..going).collect();
        drop(state);
        drop(gone);
    }

    fn take_or_build(
        self: &Arc<Self>,
        key: &str,
        build: impl FnOnce() -> Result<Box<dyn StyleModel>, ModelError>,
    ) -> Result<Box<dyn StyleModel>, ModelError> {
        let (found, gone) = {
            let mut state = self.lock();
            state.used += 1;
            let place = state.kept.iter().rposition(|(kept, _)| kept == key);
            let found = place.map(|at| state.kept.remove(at).1);
            let full = found.is_none() && state.used + state.kept.len() > self.networks_max && !state.kept.is_empty();
            (found, full.then(|| state.kept.remove(0)))
        };
        drop(gone);
        let mut shelved = Shelved { model: found, key: key.to_owned(), shelf: Arc::clone(self), is_sound: true };
        if shelved.model.is_none() {
            let begun = self.clock.now();
            // Dropped with the error, it is counted out.
            shelved.model = Some(build()?);
            self.lock().build = self.clock.now() - begun;
        }
        Ok(Box::new(shelved))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while it was held leaves networks that are whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A network of the shelf in use; it goes back when it is dropped, unless it failed.
struct Shelved {
    model: Option<Box<dyn StyleModel>>,
    key: String,
    shelf: Arc<Shelf>,
    is_sound: bool,
}

impl Shelved {
    fn model(&mut self) -> Result<&mut Box<dyn StyleModel>, ModelError> {
        let gone = || ModelError::Device("the network is gone: this is a bug in restyle".to_owned());
        self.model.as_mut().ok_or_else(gone)
    }
}

impl StyleModel for Shelved {
    fn make_room(&mut self, shape: PictureShape, options: &StylizeOptions) -> Result<usize, ModelError> {
        self.model()?.make_room(shape, options)
    }

    fn stylize(&mut self, pictures: &[&Picture], options: &StylizeOptions) -> Result<Vec<Picture>, ModelError> {
        // Unless it comes back, and well: a panic is caught further up.
        let was_sound = std::mem::replace(&mut self.is_sound, false);
        let painted = self.model()?.stylize(pictures, options);
        self.is_sound = was_sound && painted.is_ok();
        painted
    }
}

impl Drop for Shelved {
    fn drop(&mut self) {
        let model = self.model.take().filter(|_| self.is_sound);
        let mut state = self.shelf.lock();
        state.used -= 1;
        if let Some(model) = model {
            state.kept.push((std::mem::take(&mut self.key), model));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use restyle_engine::clock::ManualClock;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    struct Nothing;

    impl StyleModel for Nothing {
        fn stylize(&mut self, _: &[&Picture], options: &StylizeOptions) -> Result<Vec<Picture>, ModelError> {
            assert_ne!(options.score_width, Some(0), "as told");
            Err(ModelError::Device("nothing".to_owned()))
        }
    }

    fn take(shelf: &Arc<Shelf>, key: &str, built: &mut u32) -> Box<dyn StyleModel> {
        let build = || {
            *built += 1;
            Ok(Box::new(Nothing) as Box<dyn StyleModel>)
        };
        shelf.take_or_build(key, build).unwrap()
    }

    #[test]
    fn a_network_is_built_once_and_kept_within_the_limit() {
        let (shelf, mut built) = (Arc::new(Shelf::new(ManualClock::shared(), 2)), 0);
        drop((take(&shelf, "a", &mut built), take(&shelf, "a", &mut built)));
        assert_eq!((shelf.len(), built), (2, 2));
        let first = take(&shelf, "a", &mut built);
        assert_eq!((shelf.len(), built), (1, 2));
        let other = take(&shelf, "b", &mut built);
        assert_eq!((shelf.len(), built), (0, 3), "the one that nobody uses made room");
        drop((first, other));
        shelf.shrink(1);
        assert_eq!(shelf.len(), 1);
        shelf.shrink(0);
        assert!(shelf.is_empty());
    }

    #[test]
    fn one_that_failed_or_panicked_is_not_kept() {
        let (shelf, mut built) = (Arc::new(Shelf::new(ManualClock::shared(), 2)), 0);
        let format = restyle_models::pixels::PixelFormat {
            layout: restyle_models::pixels::Layout::Rgb,
            bits: 8,
            range: restyle_models::pixels::ColorRange::Full,
            matrix: restyle_models::pixels::ColorMatrix::Rgb,
            site: restyle_models::pixels::ChromaSite::Center,
        };
        for score_width in [None, Some(0)] {
            let mut model = take(&shelf, "a", &mut built);
            let painted =
                catch_unwind(AssertUnwindSafe(|| model.stylize(&[], &StylizeOptions { score_width, output: format })));
            assert!(painted.is_err() || painted.is_ok_and(|painted| painted.is_err()));
            drop(model);
            assert!(shelf.is_empty() && shelf.lock().used == 0, "{score_width:?}");
        }
    }
}
