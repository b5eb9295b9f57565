//! The network as one operation of candle: the same call on a tensor of the processor or of a card.

use crate::ModelError;
use crate::pixels::RgbPlanes;
use crate::transform_net::TransformNet;
use crate::weights::StyleWeights;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape};
use std::sync::{Arc, Mutex, PoisonError};

/// Stylizes `[batch, 3, height, width]` of f32 RGB on 0..255; gives the raw output, whose height and width are the next
/// multiples of four, not clamped. Forward only.
///
/// `tensor.apply_op1_no_bwd(&op)` runs it. One call at a time is computed; others wait. On a card every tensor must come from the same
/// [`candle_core::Device`], best made by `new_cuda_with_stream`, and stay on the thread that made it.
pub struct StylizeOp {
    processor: Mutex<TransformNet>,
    #[cfg(feature = "cuda")]
    card: Mutex<Option<crate::cuda::op::Forward>>,
    #[cfg(feature = "cuda")]
    precision: crate::cuda::Precision,
    #[cfg(feature = "cuda")]
    weights: Arc<StyleWeights>,
}

impl StylizeOp {
    /// Packs the weights for the processor; for a card they are packed at the first call there, in bfloat16.
    ///
    /// # Errors
    /// `Weights` where a layer is missing, `Device` where a thread cannot be started.
    pub fn new(weights: &Arc<StyleWeights>, threads: usize) -> std::result::Result<Self, ModelError> {
        Ok(Self {
            processor: Mutex::new(TransformNet::new(weights, threads)?),
            #[cfg(feature = "cuda")]
            card: Mutex::new(None),
            #[cfg(feature = "cuda")]
            precision: crate::cuda::Precision::Bf16,
            #[cfg(feature = "cuda")]
            weights: Arc::clone(weights),
        })
    }

    /// Returns the operation with another precision on cards.
    #[cfg(feature = "cuda")]
    #[must_use]
    pub fn with_precision(self, precision: crate::cuda::Precision) -> Self {
        Self { precision, ..self }
    }
}

/// Reads batch, height and width of a contiguous tensor of pictures.
fn picture_dims(layout: &Layout) -> Result<(usize, usize, usize)> {
    let (batch, channels, height, width) = layout.shape().dims4()?;
    let most = crate::pixels::DIMENSION_MAX as usize;
    let fits = (1..=most).contains(&height) && (1..=most).contains(&width);
    if channels != 3 || batch == 0 || !fits || !layout.is_contiguous() {
        candle_core::bail!("stylize takes contiguous [batch, 3, height, width], got {:?}", layout.shape());
    }
    Ok((batch, height, width))
}

impl CustomOp1 for StylizeOp {
    fn name(&self) -> &'static str {
        "stylize"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (batch, height, width) = picture_dims(layout)?;
        let values = &storage.as_slice::<f32>()?[layout.start_offset()..];
        let mut net = self.processor.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rgb = RgbPlanes::new(width, height);
        let mut out = RgbPlanes::default();
        let mut results = Vec::new();
        for picture in values.chunks_exact(3 * height * width).take(batch) {
            for (plane, values) in rgb.planes.iter_mut().zip(picture.chunks_exact(height * width)) {
                plane.copy_from_slice(values);
            }
            net.forward(&rgb, &mut out);
            out.planes.iter().for_each(|plane| results.extend_from_slice(plane));
        }
        Ok((CpuStorage::F32(results), Shape::from((batch, 3, out.height, out.width))))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        storage: &candle_core::CudaStorage,
        layout: &Layout,
    ) -> Result<(candle_core::CudaStorage, Shape)> {
        let (images, height, width) = picture_dims(layout)?;
        let mut card = self.card.lock().unwrap_or_else(PoisonError::into_inner);
        let forward = match card.take() {
            Some(forward) if forward.is_on(&storage.device) => forward,
            _ => crate::cuda::op::Forward::new(&self.weights, &storage.device, self.precision)
                .map_err(candle_core::Error::wrap)?,
        };
        let size = crate::cuda::Size { images, height, width };
        card.insert(forward).run(storage, layout.start_offset(), size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle;
    use crate::testkit::{Seeded, random_weights};
    use crate::weights::NetShape;
    use candle_core::{Device, Tensor};

    #[test]
    fn it_is_the_network_for_every_picture_of_a_batch() {
        let weights = Arc::new(random_weights(&NetShape { down: [4, 6, 8], blocks: 1, up: [6, 4] }, 7));
        let values = Seeded(1).values(2 * 3 * 21 * 30).iter().map(|v| 127.5 + 127.5 * v).collect();
        let frames = Tensor::from_vec::<_, f32>(values, (2, 3, 21, 30), &Device::Cpu).unwrap();
        let found = frames.apply_op1_no_bwd(&StylizeOp::new(&weights, 1).unwrap()).unwrap();
        let expected = oracle::forward(&weights, &frames).unwrap();
        assert_eq!(found.dims(), [2, 3, 24, 32]);
        assert_eq!(found.dims(), expected.dims());
        let error = (found - &expected).unwrap().sqr().unwrap().mean_all().unwrap().to_scalar::<f32>().unwrap();
        let power = expected.sqr().unwrap().mean_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(error <= 1e-8 * power, "{error} of {power}");
    }

    #[test]
    fn other_shapes_are_refused() {
        let weights = Arc::new(random_weights(&NetShape { down: [4, 6, 8], blocks: 1, up: [6, 4] }, 7));
        let op = StylizeOp::new(&weights, 1).unwrap();
        let frames = Tensor::zeros((1, 4, 8, 8), candle_core::DType::F32, &Device::Cpu).unwrap();
        assert!(frames.apply_op1_no_bwd(&op).is_err());
        let frames = Tensor::zeros((1, 3, 8, 9), candle_core::DType::F32, &Device::Cpu).unwrap();
        assert!(frames.transpose(2, 3).unwrap().apply_op1_no_bwd(&op).is_err());
    }
}
