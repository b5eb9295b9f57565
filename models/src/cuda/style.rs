//! A style on a card: frames cross as integer planes through page-locked memory, in groups that overlap.
//!
//! While one group is computed the next is uploaded and the one before comes back: two slots, three streams, events between them.
//! The network's memory is shared by both slots, since the compute stream does one group after the other. How many pictures are a
//! group, and whether there is a second slot, is settled by what the card has free (`room`).

use super::frames::{Framed, Job};
use super::machine::{Loaded, Machine, address, alike, lost};
use super::network::Network;
use super::pack::Precision;
use super::program::Buffer;
use super::room::{Share, take_largest};
use crate::ModelError;
use crate::device::DeviceChoice;
use crate::pixels::{Picture, PixelFormat, Samples};
use crate::style::{PictureShape, StyleModel, StylizeOptions, check_equal_shapes, score_size};
use crate::weights::StyleWeights;
use candle_core::cuda_backend::cudarc::driver::{CudaEvent, CudaSlice, CudaStream, PinnedHostSlice};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Pixels that fill a large card; smaller pictures are computed several at once.
const GROUP_PIXELS: usize = 1 << 20;
/// The most pictures that are computed at once.
const GROUP_MAX: usize = 8;
/// Groups in one call: enough that the first upload and the last download weigh little.
const GROUPS_A_CALL: usize = 8;
/// The share of the free memory that a job may take; the rest is for others and for the driver.
const MEMORY_SHARE: f64 = 0.9;

/// How many models of this process are on each card, by number: a fact about the process, whatever pipelines it holds.
static OCCUPANCY: Mutex<Vec<usize>> = Mutex::new(Vec::new());

/// A model's place on a card, given back on drop.
struct Seat {
    ordinal: usize,
}

impl Seat {
    /// Takes the named card, or the one with the fewest models, the first of equals.
    fn take(device: DeviceChoice) -> Result<Self, ModelError> {
        let mut taken = OCCUPANCY.lock().unwrap_or_else(PoisonError::into_inner);
        let count = |taken: &[usize], ordinal: usize| taken.get(ordinal).copied().unwrap_or(0);
        let ordinal = match device {
            DeviceChoice::Cuda(ordinal) => Machine::find(ordinal)?.ordinal,
            _ => {
                let ordinals = alike().into_iter().map(|card| card.ordinal);
                let freest = ordinals.min_by_key(|&ordinal| count(&taken, ordinal));
                freest.map_or_else(|| Machine::find(0).map(|card| card.ordinal), Ok)?
            }
        };
        let len = taken.len().max(ordinal + 1);
        taken.resize(len, 0);
        taken[ordinal] += 1;
        Ok(Self { ordinal })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        OCCUPANCY.lock().unwrap_or_else(PoisonError::into_inner)[self.ordinal] -= 1;
    }
}

/// The transformer network on a card. Used by the thread that built it.
pub struct CudaStyle {
    rig: Rig,
    /// What is ready for the shape of the last call.
    ready: Option<Ready>,
    _seat: Seat,
}

/// The open card with a style on it.
struct Rig {
    machine: Machine,
    network: Network,
    constants: Vec<CudaSlice<u8>>,
    upload: Arc<CudaStream>,
    download: Arc<CudaStream>,
}

/// Memory and graphs for pictures of one shape.
struct Ready {
    job: Job,
    /// Memory of the program by number; input and output are in the slots.
    work: Vec<Option<CudaSlice<u8>>>,
    slots: Vec<Slot>,
    /// Graphs by slot and pictures.
    programs: HashMap<(usize, usize), Loaded>,
}

/// Where a group is between its upload and its return.
struct Slot {
    input: CudaSlice<u8>,
    output: CudaSlice<u8>,
    to_card: PinnedHostSlice<u8>,
    from_card: PinnedHostSlice<u8>,
    /// Recorded behind the download; pictures of the group that is under way.
    under_way: Option<(CudaEvent, usize)>,
}

impl CudaStyle {
    /// Opens the card and packs the weights for it.
    ///
    /// # Errors
    /// `Device` where the card cannot be used, `Weights` where a layer is missing.
    pub fn new(weights: &StyleWeights, device: DeviceChoice, precision: Precision) -> Result<Self, ModelError> {
        let seat = Seat::take(device)?;
        let machine = Machine::open(seat.ordinal)?;
        let network = Network::pack(weights, precision)?;
        let constants = network.constants().iter().map(|bytes| machine.hold(bytes)).collect::<Result<_, _>>()?;
        let (upload, download) = (machine.stream()?, machine.stream()?);
        let rig = Rig { machine, network, constants, upload, download };
        Ok(Self { rig, ready: None, _seat: seat })
    }

    /// Returns the open card.
    pub fn machine(&mut self) -> &mut Machine {
        &mut self.rig.machine
    }

    /// Takes memory for pictures of the job's shape: as many at once as fill the card and fit it.
    fn prepare(&mut self, job: Job) -> Result<usize, ModelError> {
        if let Some(ready) = self.ready.as_ref().filter(|ready| Job { images: job.images, ..ready.job } == job) {
            return Ok(ready.job.images);
        }
        // Freed first: the new shape may need what the old one held.
        self.ready = None;
        let ready =
            take_largest(group_images(job.scored), |share| self.rig.take(Job { images: share.images, ..job }, share))?;
        let images = ready.job.images;
        self.ready = Some(ready);
        Ok(images)
    }

    fn run(&mut self, pictures: &[&Picture]) -> Result<Vec<Picture>, ModelError> {
        let ready = self.ready.as_mut().expect("prepared before");
        let (group, slots) = (ready.job.images, ready.slots.len());
        let mut results = Vec::with_capacity(pictures.len());
        let mut groups = 0;
        for (at, chunk) in pictures.chunks(group).enumerate() {
            results.extend(ready.finish(at % slots)?);
            self.rig.begin(ready, at % slots, chunk)?;
            groups = at + 1;
        }
        for at in groups..groups + slots {
            results.extend(ready.finish(at % slots)?);
        }
        Ok(results)
    }
}

impl Rig {
    /// Measures what is free and takes a share of it, graphs of whole groups included.
    fn take(&self, job: Job, share: Share) -> Result<Ready, ModelError> {
        let framed = Framed::plan(&self.network, &job);
        if framed.program.oversized {
            let (width, height) = job.scored;
            let message = format!("{} pictures of {width}x{height} are too large for a card: lower --size", job.images);
            return Err(ModelError::DeviceFull(message));
        }
        let free = (self.machine.free_bytes()? as f64 * MEMORY_SHARE) as usize;
        let needed = framed.bytes(share.slots);
        if needed > free {
            return Err(ModelError::DeviceFull(format!(
                "cuda:{} has {} MiB to spare, {} pictures of {}x{} need {} MiB: lower --size, end what else uses the card, or use --device cpu",
                self.machine.card().ordinal,
                free >> 20,
                job.images,
                job.scored.0,
                job.scored.1,
                needed >> 20
            )));
        }
        let slots = (0..share.slots).map(|_| self.slot(&framed)).collect::<Result<_, _>>()?;
        let own = |at: usize| Buffer::Work(at) == framed.input || Buffer::Work(at) == framed.output;
        let work = framed.program.work.iter().enumerate().map(|(at, work)| match &work.contents {
            _ if own(at) => Ok(None),
            Some(contents) => self.machine.hold(contents).map(Some),
            None => self.machine.allocate(work.bytes).map(Some),
        });
        let work = work.collect::<Result<_, _>>()?;
        // Memory comes in the order of the compute stream, and the other streams are to use it too.
        self.machine.compute().synchronize().map_err(lost)?;
        let mut ready = Ready { job, work, slots, programs: HashMap::new() };
        // Of every group that may come, the last and smaller ones included: nothing is taken in mid-job.
        for images in std::iter::successors(Some(job.images), |images| (*images > 1).then_some(images / 2)) {
            (0..share.slots).try_for_each(|slot| self.load(&mut ready, slot, images))?;
        }
        Ok(ready)
    }

    fn slot(&self, framed: &Framed) -> Result<Slot, ModelError> {
        let (input, output) = (framed.program.work_of(framed.input), framed.program.work_of(framed.output));
        Ok(Slot {
            input: self.machine.allocate(input)?,
            output: self.machine.allocate(output)?,
            to_card: self.machine.pinned(input)?,
            from_card: self.machine.pinned(output)?,
            under_way: None,
        })
    }

    /// Makes the graph of so many pictures on a slot.
    fn load(&self, ready: &mut Ready, slot: usize, images: usize) -> Result<(), ModelError> {
        let framed = Framed::plan(&self.network, &Job { images, ..ready.job });
        let (work, place) = (&ready.work, &ready.slots[slot]);
        let memory = |buffer| match buffer {
            Buffer::Constant(at) => address(&self.constants[at]),
            _ if buffer == framed.input => address(&place.input),
            _ if buffer == framed.output => address(&place.output),
            Buffer::Work(at) => work[at].as_ref().map_or(0, address),
        };
        let loaded = self.machine.load(&framed.program, &memory)?;
        ready.programs.insert((slot, images), loaded);
        Ok(())
    }

    /// Enqueues a group on a slot that is free.
    fn begin(&self, ready: &mut Ready, slot: usize, pictures: &[&Picture]) -> Result<(), ModelError> {
        // Fewer pictures than a group: the smallest power of two that holds them, so that graphs stay few.
        let images = pictures.len().next_power_of_two().min(ready.job.images);
        let place = &mut ready.slots[slot];
        fill(place.to_card.as_mut_slice().map_err(lost)?, pictures);
        self.upload.memcpy_htod(&place.to_card, &mut place.input).map_err(lost)?;
        self.machine.compute().join(&self.upload).map_err(lost)?;
        ready.programs.get_mut(&(slot, images)).expect("loaded with the memory").launch()?;
        self.download.join(self.machine.compute()).map_err(lost)?;
        self.download.memcpy_dtoh(&place.output, &mut place.from_card).map_err(lost)?;
        place.under_way = Some((self.download.record_event(None).map_err(lost)?, pictures.len()));
        Ok(())
    }

    /// Waits for everything that was enqueued: memory must outlive it. A lost card has nothing under way.
    fn settle(&self) {
        for stream in [&self.upload, self.machine.compute(), &self.download] {
            let _ = stream.synchronize();
        }
    }
}

impl Ready {
    /// Waits for the group of a slot and returns its pictures; none where the slot is free.
    fn finish(&mut self, slot: usize) -> Result<Vec<Picture>, ModelError> {
        let place = &mut self.slots[slot];
        let Some((done, count)) = place.under_way.take() else { return Ok(Vec::new()) };
        done.synchronize().map_err(lost)?;
        let job = &self.job;
        let bytes = job.output.picture_bytes(job.width, job.height);
        let all = place.from_card.as_slice().map_err(lost)?;
        all.chunks_exact(bytes).take(count).map(|one| read(one, job.output, job.width, job.height)).collect()
    }
}

impl StyleModel for CudaStyle {
    fn make_room(&mut self, shape: PictureShape, options: &StylizeOptions) -> Result<usize, ModelError> {
        Ok(self.prepare(job(shape, options)?)? * GROUPS_A_CALL)
    }

    fn stylize(&mut self, pictures: &[&Picture], options: &StylizeOptions) -> Result<Vec<Picture>, ModelError> {
        options.output.validate()?;
        check_equal_shapes(pictures)?;
        let Some(first) = pictures.first() else { return Ok(Vec::new()) };
        pictures.iter().try_for_each(|picture| picture.validate())?;
        self.prepare(job(PictureShape::of(first), options)?)?;
        let results = self.run(pictures);
        if results.is_err() {
            // Nothing of a broken run may be taken for the next one's.
            self.rig.settle();
            self.ready = None;
        }
        results
    }
}

impl Drop for CudaStyle {
    fn drop(&mut self) {
        self.rig.settle();
    }
}

/// What has to be done for pictures of a shape, one at a time.
fn job(shape: PictureShape, options: &StylizeOptions) -> Result<Job, ModelError> {
    let PictureShape { width, height, format } = shape;
    let scored = score_size((width as usize, height as usize), options.score_width)?;
    Ok(Job { images: 1, width, height, scored, input: format, output: options.output })
}

fn group_images((width, height): (usize, usize)) -> usize {
    (GROUP_PIXELS / (width * height).max(1)).clamp(1, GROUP_MAX).next_power_of_two().min(GROUP_MAX)
}

/// Lays pictures side by side as the card reads them: planes tight, one picture after the other, words as they lie in memory.
fn fill(mut to: &mut [u8], pictures: &[&Picture]) {
    for plane in pictures.iter().flat_map(|picture| &picture.planes) {
        let bytes = match &plane.samples {
            Samples::U8(samples) => samples.as_slice(),
            Samples::U16(samples) => bytemuck::cast_slice(samples),
        };
        let (head, rest) = to.split_at_mut(bytes.len());
        head.copy_from_slice(bytes);
        to = rest;
    }
}

fn read(mut from: &[u8], format: PixelFormat, width: u32, height: u32) -> Result<Picture, ModelError> {
    let mut picture = Picture::zeroed(format, width, height)?;
    for plane in &mut picture.planes {
        let to = match &mut plane.samples {
            Samples::U8(samples) => samples.as_mut_slice(),
            Samples::U16(samples) => bytemuck::cast_slice_mut(samples),
        };
        let (head, rest) = from.split_at(to.len());
        to.copy_from_slice(head);
        from = rest;
    }
    Ok(picture)
}
