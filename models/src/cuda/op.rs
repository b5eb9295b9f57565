//! The network on a tensor of a card: what [`crate::stylize_op`] calls there.

use super::machine::{Loaded, Machine, address, lost};
use super::network::{Network, Size};
use super::pack::Precision;
use super::program::{Buffer, Program};
use crate::ModelError;
use crate::weights::StyleWeights;
use candle_core::cuda_backend::cudarc::driver::CudaSlice;
use candle_core::cuda_backend::{CudaDevice, CudaStorage};
use candle_core::{Result, Shape};

/// Weights on a card, and the memory and the graph of the last size.
pub struct Forward {
    machine: Machine,
    network: Network,
    constants: Vec<CudaSlice<u8>>,
    ready: Option<Ready>,
}

struct Ready {
    size: Size,
    loaded: Loaded,
    input: CudaSlice<u8>,
    output: CudaSlice<u8>,
    /// Named by the graph.
    _work: Vec<CudaSlice<u8>>,
}

impl Forward {
    /// Packs the weights for candle's device.
    ///
    /// # Errors
    /// `Device` where the card cannot be used, `Weights` where a layer is missing.
    pub fn new(
        weights: &StyleWeights,
        device: &CudaDevice,
        precision: Precision,
    ) -> std::result::Result<Self, ModelError> {
        let machine = Machine::on(device)?;
        let network = Network::pack(weights, precision)?;
        let constants =
            network.constants().iter().map(|bytes| machine.hold(bytes)).collect::<std::result::Result<_, _>>()?;
        Ok(Self { machine, network, constants, ready: None })
    }

    /// Tells whether this is the device's.
    pub fn is_on(&self, device: &CudaDevice) -> bool {
        self.machine.device().id() == device.id()
    }

    /// Runs the network on pictures that begin at value `offset` of the storage, and returns the raw output.
    ///
    /// # Errors
    /// Candle's, with ours inside.
    pub fn run(&mut self, storage: &CudaStorage, offset: usize, size: Size) -> Result<(CudaStorage, Shape)> {
        let (width, height) = crate::transform_net::TransformNet::output_size(size.width, size.height);
        if self.ready.as_ref().is_none_or(|ready| ready.size != size) {
            self.ready = None;
            self.ready = Some(self.prepare(size, height * width).map_err(candle_core::Error::wrap)?);
        }
        let Some(ready) = &mut self.ready else { candle_core::bail!("nothing is ready") };
        let stream = self.machine.compute();
        let values = size.images * 3 * size.height * size.width;
        let from = storage.as_cuda_slice::<f32>()?.slice(offset..offset + values);
        let wrapped = |error| candle_core::Error::wrap(lost(error));
        Machine::copy_values(stream, &from, &mut ready.input).map_err(wrapped)?;
        ready.loaded.launch().map_err(candle_core::Error::wrap)?;
        let mut out = Machine::values(stream, size.images * 3 * height * width).map_err(wrapped)?;
        Machine::copy_bytes(stream, &ready.output, &mut out).map_err(wrapped)?;
        let device = self.machine.device().clone();
        Ok((CudaStorage::wrap_cuda_slice(out, device), Shape::from((size.images, 3, height, width))))
    }

    fn prepare(&mut self, size: Size, out_pixels: usize) -> std::result::Result<Ready, ModelError> {
        let mut program = Program::default();
        let rgb = program.reserve(size.images * 3 * size.height * size.width * 4);
        let raw = program.reserve(size.images * 3 * out_pixels * 4);
        self.network.forward(&mut program, size, rgb, raw);
        if program.oversized {
            return Err(ModelError::Picture(format!("{}x{} is too large for a card", size.width, size.height)));
        }
        let allocate = |at: usize| self.machine.allocate(program.work[at].bytes);
        let (input, output) = (allocate(0)?, allocate(1)?);
        let work = (2..program.work.len()).map(allocate).collect::<std::result::Result<Vec<_>, _>>()?;
        let memory = |buffer| match buffer {
            Buffer::Constant(at) => address(&self.constants[at]),
            Buffer::Work(0) => address(&input),
            Buffer::Work(1) => address(&output),
            Buffer::Work(at) => address(&work[at - 2]),
        };
        let loaded = self.machine.load(&program, &memory)?;
        Ok(Ready { size, loaded, input, output, _work: work })
    }
}
