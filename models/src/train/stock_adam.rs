//! Adam's arithmetic in tensor operations, for variables that do not lie in the processor's memory.
//!
//! Everything is computed in double precision, as the processor does, and kept in single. Nothing here may be tracked by
//! autograd: moments that remember how they came about would hold every iteration's tensors for ever.

use candle_core::backprop::GradStore;
use candle_core::{DType, Result, Tensor, Var};

use super::adam::{BETA_FIRST, BETA_SECOND, EPSILON, HostMoments};

/// First and second moments of every variable, f32, on the variables' device.
#[derive(Debug)]
pub(super) struct TensorMoments {
    first: Vec<Tensor>,
    second: Vec<Tensor>,
}

/// What a step does besides the gradients.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    /// Factor that clips the gradients.
    pub(super) scale: f64,
    /// Learning rate.
    pub(super) rate: f64,
    /// Number of the step, from 1.
    pub(super) number: u32,
}

impl TensorMoments {
    /// Moments of these values, in the variables' order, moved to the variables' device.
    pub(super) fn upload(variables: &[(String, Var)], first: &[Vec<f32>], second: &[Vec<f32>]) -> Result<Self> {
        let of = |values: &[Vec<f32>]| -> Result<Vec<Tensor>> {
            let pairs = variables.iter().zip(values);
            pairs.map(|((_, var), values)| Tensor::from_slice(values, var.shape(), var.device())).collect()
        };
        Ok(Self { first: of(first)?, second: of(second)? })
    }

    /// First and second moments in the processor's memory.
    pub(super) fn download(&self) -> Result<HostMoments> {
        let of = |tensors: &[Tensor]| tensors.iter().map(|tensor| tensor.flatten_all()?.to_vec1::<f32>()).collect();
        let (first, second): (Result<_>, Result<_>) = (of(&self.first), of(&self.second));
        Ok(HostMoments { first: first?, second: second? })
    }

    /// Moves the moments and the variables by one step along `gradients`, which [`gradients()`] made.
    pub(super) fn step(&mut self, variables: &[(String, Var)], gradients: &[Tensor], step: Step) -> Result<()> {
        for (index, ((_, variable), gradient)) in variables.iter().zip(gradients).enumerate() {
            let gradient = gradient.affine(step.scale, 0.0)?;
            let mean = blend(&self.first[index], &gradient, BETA_FIRST)?;
            let square = blend(&self.second[index], &gradient.sqr()?, BETA_SECOND)?;
            self.first[index] = mean.to_dtype(DType::F32)?;
            self.second[index] = square.to_dtype(DType::F32)?;
            let first_bias = 1.0 - BETA_FIRST.powi(step.number as i32);
            let second_bias = 1.0 - BETA_SECOND.powi(step.number as i32);
            let deviation = square.affine(1.0 / second_bias, 0.0)?.sqrt()?.affine(1.0, EPSILON)?;
            let change = mean.affine(step.rate / first_bias, 0.0)?.div(&deviation)?;
            let weights = variable.as_detached_tensor().to_dtype(DType::F64)?.sub(&change)?;
            variable.set(&weights.to_dtype(DType::F32)?)?;
        }
        Ok(())
    }
}

/// `share * moment + (1 - share) * value`, f64.
fn blend(moment: &Tensor, value: &Tensor, share: f64) -> Result<Tensor> {
    moment.to_dtype(DType::F64)?.affine(share, 0.0)? + value.affine(1.0 - share, 0.0)?
}

/// The gradient of every variable, f64, zero where it has none.
pub(super) fn gradients(variables: &[(String, Var)], gradients: &GradStore) -> Result<Vec<Tensor>> {
    let of = |variable: &Var| match gradients.get(variable.as_tensor()) {
        Some(gradient) => gradient.detach().to_dtype(DType::F64),
        None => Tensor::zeros(variable.shape(), DType::F64, variable.device()),
    };
    variables.iter().map(|(_, variable)| of(variable)).collect()
}

/// The common norm of gradients; waits for the device.
pub(super) fn norm(gradients: &[Tensor]) -> Result<f64> {
    let squares = gradients.iter().map(|gradient| gradient.sqr()?.sum_all()).collect::<Result<Vec<_>>>()?;
    Ok(Tensor::stack(&squares, 0)?.sum_all()?.to_scalar::<f64>()?.sqrt())
}
