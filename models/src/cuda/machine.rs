//! A card: its kernels compiled for it, memory, streams, and programs made ready to be launched as one graph.
//!
//! Everything here belongs to the thread that opened the card. Buffers, functions and the compute stream are candle's, so that
//! tensors of the same device can stand beside them; addresses are taken once, when a program is loaded.

#![allow(unsafe_code)]

use super::program::{Buffer, Launch, Program};
use super::source::Kernel;
use crate::ModelError;
use candle_core::cuda_backend::CudaDevice;
use candle_core::cuda_backend::cudarc::driver::result::DriverError;
use candle_core::cuda_backend::cudarc::driver::sys::{
    CUdevice_attribute, CUfunction_attribute, CUgraphInstantiate_flags, CUstreamCaptureMode, cudaError_enum,
};
use candle_core::cuda_backend::cudarc::driver::{
    CudaFunction, CudaGraph, CudaSlice, CudaStream, CudaView, DevicePtr, DeviceRepr, LaunchConfig, PinnedHostSlice,
    PushKernelArg, result,
};
use candle_core::cuda_backend::cudarc::nvrtc::{CompileOptions, compile_ptx_with_opts};
use std::collections::BTreeMap;
use std::mem::ManuallyDrop;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What NVRTC made of a module for a capability, by both: compiling takes longer than anything else that opening a card does, and
/// every job, and every scorer that is restarted, needs the same.
static COMPILED: Mutex<BTreeMap<(u32, String), Arc<str>>> = Mutex::new(BTreeMap::new());

/// Held while a graph is captured and while a card is opened or closed: both of the latter synchronise with the whole card, which
/// spoils a capture of any other thread.
static CAPTURE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    CAPTURE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A CUDA device as the driver describes it, without a context on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    /// Its number.
    pub ordinal: usize,
    /// Its name.
    pub name: String,
    /// Compute capability: 90 is 9.0.
    pub capability: u32,
    /// Bytes of memory.
    pub memory_bytes: usize,
}

impl std::fmt::Display for Card {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (major, minor) = (self.capability / 10, self.capability % 10);
        write!(f, "{}, compute capability {major}.{minor}, {} MiB", self.name, self.memory_bytes >> 20)
    }
}

/// Lists the cards that the driver offers.
///
/// # Errors
/// `Device` with the driver's reason where it offers none.
pub fn cards() -> Result<Vec<Card>, ModelError> {
    let refused = |error: DriverError| ModelError::Device(format!("no CUDA device: the driver says {}", reason(error)));
    result::init().map_err(refused)?;
    let count = result::device::get_count().map_err(refused)?;
    (0..count.max(0)).map(|ordinal| card(ordinal).map_err(refused)).collect()
}

/// Lists the cards that can be used together: those of the first usable one's capability. None where there is no driver.
pub fn alike() -> Vec<Card> {
    let mut cards = cards().unwrap_or_default();
    cards.retain(|card| card.capability >= CAPABILITY_MIN);
    let capability = cards.first().map(|card| card.capability);
    cards.retain(|card| Some(card.capability) == capability);
    cards
}

fn card(ordinal: i32) -> Result<Card, DriverError> {
    use CUdevice_attribute as Attribute;
    let device = result::device::get(ordinal)?;
    // SAFETY: `device` was just handed out by the driver.
    let attribute = |which| unsafe { result::device::get_attribute(device, which) };
    let major = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
    let minor = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
    Ok(Card {
        ordinal: ordinal as usize,
        name: result::device::get_name(device)?,
        capability: (major * 10 + minor) as u32,
        // SAFETY: as above.
        memory_bytes: unsafe { result::device::total_mem(device)? },
    })
}

/// The least that is allocated, on the card and beside it alike: what is copied whole must fit.
const LEAST_BYTES: usize = 16;
/// The least compute capability: tensor cores with bfloat16 and copies in the background came with Ampere.
pub const CAPABILITY_MIN: u32 = 80;

/// The driver's word for an error.
fn reason(error: DriverError) -> String {
    let name = format!("{:?}", error.0);
    match error.error_string() {
        Ok(text) => format!("{name} ({})", text.to_string_lossy()),
        Err(_) => name,
    }
}

/// The argument record of every kernel, as `struct Args` of the prelude.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct Record {
    pointers: [u64; super::program::POINTERS],
    ints: [i32; super::program::INTS],
    floats: [f32; super::program::FLOATS],
}

// SAFETY: plain numbers in C layout, passed by value.
unsafe impl DeviceRepr for Record {}

/// A launch with its function and addresses.
struct Step {
    label: String,
    function: CudaFunction,
    config: LaunchConfig,
    record: Record,
}

/// An open card, used by the thread that opened it.
pub struct Machine {
    card: Card,
    device: ManuallyDrop<CudaDevice>,
    compute: Arc<CudaStream>,
}

impl Drop for Machine {
    fn drop(&mut self) {
        if self.compute.synchronize().is_err() {
            // Closing the libraries of a context that answers no more would panic; it is left to the end of the process.
            return;
        }
        let _alone = alone();
        // SAFETY: it is dropped here and nowhere else, and not used afterwards.
        unsafe { ManuallyDrop::drop(&mut self.device) };
    }
}

impl Machine {
    /// Opens card number `ordinal`.
    ///
    /// # Errors
    /// `Device` where there is no such card or it is too old.
    pub fn open(ordinal: usize) -> Result<Self, ModelError> {
        let card = Self::find(ordinal)?;
        let _alone = alone();
        let device = CudaDevice::new_with_stream(ordinal)
            .map_err(|error| ModelError::Device(format!("device cuda:{ordinal} cannot be opened: {error}")))?;
        Ok(Self::with(card, device))
    }

    /// Takes a device that candle opened, on its stream.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn on(device: &CudaDevice) -> Result<Self, ModelError> {
        let card = Self::find(device.cuda_stream().context().ordinal())?;
        Ok(Self::with(card, device.clone()))
    }

    fn with(card: Card, device: CudaDevice) -> Self {
        // SAFETY: every buffer of this device is used on the compute stream or behind an event of our own (style.rs), and lives
        // as long as the work that names it.
        unsafe { device.disable_event_tracking() };
        let compute = device.cuda_stream();
        Self { card, device: ManuallyDrop::new(device), compute }
    }

    /// Finds a card that can be used, without opening it.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn find(ordinal: usize) -> Result<Card, ModelError> {
        let cards =
            cards().map_err(|error| ModelError::Device(format!("device cuda:{ordinal}: {error}; use --device cpu")))?;
        let count = cards.len();
        let card = cards.into_iter().nth(ordinal).ok_or_else(|| {
            ModelError::Device(format!(
                "device cuda:{ordinal} was asked for, but there are {count} CUDA devices: use --device cpu"
            ))
        })?;
        if card.capability < CAPABILITY_MIN {
            return Err(ModelError::Device(format!(
                "device cuda:{ordinal} ({}) has compute capability {}, at least {CAPABILITY_MIN} is needed: use --device cpu",
                card.name, card.capability
            )));
        }
        Ok(card)
    }

    /// Returns what the driver says about the card.
    pub fn card(&self) -> &Card {
        &self.card
    }

    /// Returns candle's device.
    pub fn device(&self) -> &CudaDevice {
        &self.device
    }

    /// Returns the stream on which programs run.
    pub fn compute(&self) -> &Arc<CudaStream> {
        &self.compute
    }

    /// Makes another stream of the card, for copies.
    ///
    /// # Errors
    /// `DeviceLost` where the card does not answer.
    pub fn stream(&self) -> Result<Arc<CudaStream>, ModelError> {
        self.compute.context().new_stream().map_err(lost)
    }

    /// Returns the bytes of memory that are free now.
    ///
    /// # Errors
    /// `DeviceLost` where the card does not answer.
    pub fn free_bytes(&self) -> Result<usize, ModelError> {
        // What was given back is free once the stream has come to that.
        self.compute.synchronize().map_err(lost)?;
        Ok(self.compute.context().mem_get_info().map_err(lost)?.0)
    }

    /// Allocates memory; what is in it is arbitrary.
    ///
    /// # Errors
    /// `DeviceFull` where there is not enough, `DeviceLost` where the card does not answer.
    pub fn allocate(&self, bytes: usize) -> Result<CudaSlice<u8>, ModelError> {
        // SAFETY: programs write every value before they read it, whatever was in memory before.
        unsafe { self.compute.alloc(bytes.max(LEAST_BYTES)) }.map_err(lost)
    }

    /// Allocates memory that holds a copy of `bytes`.
    ///
    /// # Errors
    /// As [`Self::allocate`].
    pub fn hold(&self, bytes: &[u8]) -> Result<CudaSlice<u8>, ModelError> {
        let mut slice = self.allocate(bytes.len())?;
        self.compute.memcpy_htod(bytes, &mut slice).map_err(lost)?;
        Ok(slice)
    }

    /// Allocates f32 values that are arbitrary, for what is copied over them.
    pub(super) fn values(stream: &Arc<CudaStream>, len: usize) -> Result<CudaSlice<f32>, DriverError> {
        // SAFETY: the caller overwrites all of it next on the same stream.
        unsafe { stream.alloc(len) }
    }

    /// Copies values into memory of bytes.
    pub(super) fn copy_values(
        stream: &Arc<CudaStream>,
        from: &CudaView<'_, f32>,
        to: &mut CudaSlice<u8>,
    ) -> Result<(), DriverError> {
        // SAFETY: f32 has no padding, and the view's length is what it covers.
        let bytes = unsafe { from.transmute::<u8>(from.len() * 4) };
        let bytes = bytes.ok_or(DriverError(cudaError_enum::CUDA_ERROR_INVALID_VALUE))?;
        stream.memcpy_dtod(&bytes, to)
    }

    /// Copies memory of bytes over values.
    pub(super) fn copy_bytes(
        stream: &Arc<CudaStream>,
        from: &CudaSlice<u8>,
        to: &mut CudaSlice<f32>,
    ) -> Result<(), DriverError> {
        // SAFETY: any four bytes are an f32, and memory of the card is aligned to 256.
        let values = unsafe { from.transmute::<f32>(to.len()) };
        let values = values.ok_or(DriverError(cudaError_enum::CUDA_ERROR_INVALID_VALUE))?;
        stream.memcpy_dtod(&values, to)
    }

    /// Allocates page-locked memory of the host.
    ///
    /// # Errors
    /// `DeviceFull` where the driver has none to give, `DeviceLost` where it refuses otherwise.
    pub fn pinned(&self, bytes: usize) -> Result<PinnedHostSlice<u8>, ModelError> {
        // SAFETY: frames are written into it before it is copied, or the card writes it before it is read.
        unsafe { self.compute.context().alloc_pinned_with_flags(bytes.max(LEAST_BYTES), 0) }.map_err(lost)
    }

    /// Compiles what a program needs and fixes its addresses; the launches become one graph.
    ///
    /// # Errors
    /// `Device` where a kernel does not compile, `DeviceFull` where there is no room for the graph, `DeviceLost` where the card
    /// does not answer.
    pub fn load(&self, program: &Program, memory: &dyn Fn(Buffer) -> u64) -> Result<Loaded, ModelError> {
        let functions =
            program.kernels.iter().map(|kernel| self.function(kernel)).collect::<Result<Vec<_>, ModelError>>()?;
        let steps = program
            .launches
            .iter()
            .map(|launch| self.step(launch, &functions[launch.kernel], memory))
            .collect::<Result<Vec<_>, ModelError>>()?;
        let mut loaded = Loaded { steps, graph: None, stream: Arc::clone(&self.compute) };
        loaded.graph = loaded.capture()?;
        Ok(loaded)
    }

    fn step(
        &self,
        launch: &Launch,
        function: &CudaFunction,
        memory: &dyn Fn(Buffer) -> u64,
    ) -> Result<Step, ModelError> {
        let function = function.clone();
        if launch.shared_bytes > 48 << 10 {
            let attribute = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            function.set_attribute(attribute, launch.shared_bytes as i32).map_err(lost)?;
        }
        let [x, y, z] = launch.grid;
        Ok(Step {
            label: launch.label.clone(),
            function,
            config: LaunchConfig {
                grid_dim: (x, y, z),
                block_dim: (launch.threads, 1, 1),
                shared_mem_bytes: launch.shared_bytes,
            },
            record: Record {
                pointers: launch.pointers.map(|buffer| buffer.map_or(0, memory)),
                ints: launch.ints,
                floats: launch.floats,
            },
        })
    }

    fn function(&self, kernel: &Kernel) -> Result<CudaFunction, ModelError> {
        let function = self
            .device
            .get_or_load_custom_func(kernel.entry, &kernel.module(), &compiled(kernel, self.card.capability)?)
            .map_err(|error| ModelError::Device(format!("kernel {} cannot be loaded: {error}", kernel.entry)))?;
        Ok(function.into_cuda_function())
    }
}

/// Returns a kernel's PTX, compiled once in a process.
fn compiled(kernel: &Kernel, capability: u32) -> Result<Arc<str>, ModelError> {
    let key = (capability, kernel.module());
    let known = || COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(ptx) = known().get(&key) {
        return Ok(Arc::clone(ptx));
    }
    let ptx: Arc<str> = compile(kernel, capability)?.into();
    known().insert(key, Arc::clone(&ptx));
    Ok(ptx)
}

/// Compiles a kernel to PTX for a compute capability; needs NVRTC, no card.
///
/// # Errors
/// `Device` with the compiler's words.
pub fn compile(kernel: &Kernel, capability: u32) -> Result<String, ModelError> {
    let options = CompileOptions {
        options: vec![format!("--gpu-architecture=compute_{capability}"), "--std=c++17".to_owned()],
        name: Some(format!("{}.cu", kernel.entry)),
        ..CompileOptions::default()
    };
    compile_ptx_with_opts(kernel.source(), options)
        .map(|ptx| ptx.to_src())
        .map_err(|error| ModelError::Device(format!("kernel {} does not compile: {error}", kernel.entry)))
}

/// Returns the address of memory on its own stream.
pub fn address(slice: &CudaSlice<u8>) -> u64 {
    slice.device_ptr(slice.stream()).0
}

/// Says that the card was lost: after most of its errors a context answers nothing any more. Being out of memory is none of them.
pub fn lost(error: DriverError) -> ModelError {
    if error.0 == cudaError_enum::CUDA_ERROR_OUT_OF_MEMORY {
        return ModelError::DeviceFull(
            "the CUDA device has no memory left: lower --size, or use --device cpu".to_owned(),
        );
    }
    ModelError::DeviceLost(format!("the CUDA device was lost: {}; run the same command again to go on", reason(error)))
}

fn is_spoiled(error: DriverError) -> bool {
    use cudaError_enum::{CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED};
    [CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED].contains(&error.0)
}

/// A program ready to be launched. The memory that it names must outlive it.
pub struct Loaded {
    steps: Vec<Step>,
    graph: Option<CudaGraph>,
    stream: Arc<CudaStream>,
}

// SAFETY: handles of functions, graphs and streams belong to a context, which every call binds to the calling thread first;
// they are used by one thread at a time, since launching takes `&mut self`.
unsafe impl Send for Loaded {}

impl Loaded {
    /// Enqueues the whole program as one graph.
    ///
    /// # Errors
    /// `DeviceLost` where the card does not answer.
    pub fn launch(&mut self) -> Result<(), ModelError> {
        match &self.graph {
            Some(graph) => graph.launch().map_err(lost),
            None => self.steps.iter().try_for_each(|step| self.enqueue(step)),
        }
    }

    /// Launches step by step and returns each one's label and milliseconds on the card; blocks. For benchmarks.
    ///
    /// # Errors
    /// `DeviceLost` where the card does not answer.
    pub fn timed(&mut self) -> Result<Vec<(String, f32)>, ModelError> {
        let flags = Some(candle_core::cuda_backend::cudarc::driver::sys::CUevent_flags::CU_EVENT_DEFAULT);
        let mut marks = vec![self.stream.record_event(flags).map_err(lost)?];
        for step in &self.steps {
            self.enqueue(step)?;
            marks.push(self.stream.record_event(flags).map_err(lost)?);
        }
        self.stream.synchronize().map_err(lost)?;
        let times = std::iter::zip(&self.steps, marks.windows(2));
        times.map(|(step, pair)| Ok((step.label.clone(), pair[0].elapsed_ms(&pair[1]).map_err(lost)?))).collect()
    }

    /// Launches the whole program `times` times and returns the milliseconds of one on the card; blocks. For benchmarks.
    ///
    /// # Errors
    /// `DeviceLost` where the card does not answer.
    pub fn milliseconds(&mut self, times: usize) -> Result<f32, ModelError> {
        let flags = Some(candle_core::cuda_backend::cudarc::driver::sys::CUevent_flags::CU_EVENT_DEFAULT);
        let begin = self.stream.record_event(flags).map_err(lost)?;
        for _ in 0..times {
            self.launch()?;
        }
        let end = self.stream.record_event(flags).map_err(lost)?;
        Ok(begin.elapsed_ms(&end).map_err(lost)? / times.max(1) as f32)
    }

    fn capture(&self) -> Result<Option<CudaGraph>, ModelError> {
        let _alone = alone();
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        self.stream.begin_capture(mode).map_err(lost)?;
        let enqueued = self.steps.iter().try_for_each(|step| self.enqueue(step));
        let graph = match self.stream.end_capture(CUgraphInstantiate_flags(0)) {
            // Someone else's library synchronised with the card. That is no lost card: launches go step by step.
            Err(error) if is_spoiled(error) => return Ok(None),
            ended => ended.map_err(lost)?,
        };
        enqueued?;
        if let Some(graph) = &graph {
            graph.upload().map_err(lost)?;
        }
        Ok(graph)
    }

    fn enqueue(&self, step: &Step) -> Result<(), ModelError> {
        let mut builder = self.stream.launch_builder(&step.function);
        builder.arg(&step.record);
        // SAFETY: the record has the layout of `Args`; its addresses are those of buffers as large as the program asks for, which
        // outlive it; that kernels stay inside them is what the emulated tests check.
        unsafe { builder.launch(step.config) }.map_err(lost)?;
        Ok(())
    }
}
