//! Adam (Kingma and Ba 2015) with a clipped gradient norm, and the learning-rate schedule.

use candle_core::backprop::GradStore;
use candle_core::{Device, Tensor, Var};

use super::buffer::with_floats;
use super::error::TrainError;
use super::stock;
use super::stock_adam::{Step, TensorMoments, gradients, norm};

pub(super) const BETA_FIRST: f64 = 0.9;
pub(super) const BETA_SECOND: f64 = 0.99;
pub(super) const EPSILON: f64 = 1e-8;

/// The optimiser's state: first and second moments of every variable, and the steps made.
#[derive(Debug)]
pub struct Adam {
    moments: Moments,
    steps: u32,
    clip: f64,
}

/// First and second moments, in the variables' order.
#[derive(Debug)]
enum Moments {
    /// In the processor's memory, where all begin.
    Host(HostMoments),
    /// On the device of variables that lie elsewhere.
    Device(TensorMoments),
}

/// First and second moments of every variable, in the variables' order, in the processor's memory.
#[derive(Debug, Clone, PartialEq)]
pub struct HostMoments {
    /// First moments.
    pub first: Vec<Vec<f32>>,
    /// Second moments.
    pub second: Vec<Vec<f32>>,
}

impl Adam {
    /// A fresh optimiser for these variables; gradients whose common norm is above `clip` are scaled down to it.
    pub fn new(variables: &[(String, Var)], clip: f64) -> Self {
        let zeros = || variables.iter().map(|(_, variable)| vec![0.0; variable.elem_count()]).collect();
        Self::restore(zeros(), zeros(), 0, clip)
    }

    /// An optimiser that goes on from a checkpoint's moments.
    pub fn restore(first: Vec<Vec<f32>>, second: Vec<Vec<f32>>, steps: u32, clip: f64) -> Self {
        Self { moments: Moments::Host(HostMoments { first, second }), steps, clip }
    }

    /// First and second moments, in the variables' order; waits for the device.
    ///
    /// # Errors
    /// When the device is lost.
    pub fn moments(&self) -> Result<HostMoments, TrainError> {
        match &self.moments {
            Moments::Host(moments) => Ok(moments.clone()),
            Moments::Device(moments) => Ok(moments.download()?),
        }
    }

    /// Steps made.
    pub fn steps(&self) -> u32 {
        self.steps
    }

    /// Makes one step and returns the gradient's norm before clipping; a norm that is not finite changes nothing.
    ///
    /// # Errors
    /// When candle cannot set a variable, or the variables moved to another device since the last step.
    pub fn step(&mut self, variables: &[(String, Var)], store: &GradStore, rate: f64) -> Result<f64, TrainError> {
        let Some((_, first)) = variables.first() else { return Ok(0.0) };
        if stock::serves(first.device()) {
            return self.step_on_device(variables, store, rate);
        }
        let values = host_gradients(variables, store)?;
        let norm = values.iter().flatten().map(|&value| f64::from(value) * f64::from(value)).sum::<f64>().sqrt();
        let Moments::Host(moments) = &mut self.moments else {
            return Err(candle_core::Error::msg("moments on a device, variables in the processor's memory").into());
        };
        if let Some(step) = next(&mut self.steps, self.clip, norm, rate) {
            moments.step(variables, &values, step)?;
        }
        Ok(norm)
    }

    fn step_on_device(&mut self, variables: &[(String, Var)], store: &GradStore, rate: f64) -> Result<f64, TrainError> {
        let gradients = gradients(variables, store)?;
        let norm = norm(&gradients)?;
        if let Some(step) = next(&mut self.steps, self.clip, norm, rate) {
            self.moments.on_device(variables)?.step(variables, &gradients, step)?;
        }
        Ok(norm)
    }
}

impl Moments {
    /// The moments on the variables' device, moved there if they were not.
    fn on_device(&mut self, variables: &[(String, Var)]) -> Result<&mut TensorMoments, TrainError> {
        let uploaded = match self {
            Self::Device(moments) => return Ok(moments),
            Self::Host(HostMoments { first, second }) => TensorMoments::upload(variables, first, second)?,
        };
        *self = Self::Device(uploaded);
        self.on_device(variables)
    }
}

/// Counts the next step, for gradients of this norm.
fn next(steps: &mut u32, clip: f64, norm: f64, rate: f64) -> Option<Step> {
    if !norm.is_finite() {
        // An overflowed gradient has no direction; scaled down it would turn weights into no numbers for good.
        return None;
    }
    *steps += 1;
    let scale = if norm > clip { clip / norm } else { 1.0 };
    Some(Step { scale, rate, number: *steps })
}

fn host_gradients(variables: &[(String, Var)], store: &GradStore) -> Result<Vec<Vec<f32>>, TrainError> {
    let of = |variable: &Var| match store.get(variable.as_tensor()) {
        Some(gradient) => with_floats(gradient, |gradient| Ok(gradient.to_vec())),
        None => Ok(vec![0.0; variable.elem_count()]),
    };
    variables.iter().map(|(_, variable)| Ok(of(variable)?)).collect()
}

impl HostMoments {
    fn step(&mut self, variables: &[(String, Var)], gradients: &[Vec<f32>], step: Step) -> Result<(), TrainError> {
        let first_bias = 1.0 - BETA_FIRST.powi(step.number as i32);
        let second_bias = 1.0 - BETA_SECOND.powi(step.number as i32);
        for (index, (_, variable)) in variables.iter().enumerate() {
            let mut weights = variable.as_tensor().flatten_all()?.to_vec1::<f32>()?;
            let moments = self.first[index].iter_mut().zip(&mut self.second[index]);
            for ((weight, &gradient), (first, second)) in weights.iter_mut().zip(&gradients[index]).zip(moments) {
                let gradient = f64::from(gradient) * step.scale;
                let mean = BETA_FIRST * f64::from(*first) + (1.0 - BETA_FIRST) * gradient;
                let square = BETA_SECOND * f64::from(*second) + (1.0 - BETA_SECOND) * gradient * gradient;
                (*first, *second) = (mean as f32, square as f32);
                let change = step.rate * (mean / first_bias) / ((square / second_bias).sqrt() + EPSILON);
                *weight = (f64::from(*weight) - change) as f32;
            }
            variable.set(&Tensor::from_vec(weights, variable.shape(), &Device::Cpu)?)?;
        }
        Ok(())
    }
}

/// Learning rate of step `step` (from 0) of `steps`: linear warm-up over 20 steps, flat to 30 %, cosine down to 2 %.
pub fn scheduled_rate(peak: f64, step: u32, steps: u32) -> f64 {
    const WARM_UP: f64 = 20.0;
    let (step, steps) = (f64::from(step), f64::from(steps.max(1)));
    let warm = ((step + 1.0) / WARM_UP).min(1.0);
    let position = ((step / steps - 0.3) / 0.7).clamp(0.0, 1.0);
    let cosine = 0.02 + 0.98 * 0.5 * (1.0 + (std::f64::consts::PI * position).cos());
    peak * warm * cosine
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_warms_up_stays_flat_and_falls_to_two_percent() {
        assert!((scheduled_rate(1.0, 0, 1000) - 0.05).abs() < 1e-12);
        assert!((scheduled_rate(1.0, 19, 1000) - 1.0).abs() < 1e-12);
        assert!((scheduled_rate(1.0, 300, 1000) - 1.0).abs() < 1e-12);
        assert!((scheduled_rate(1.0, 650, 1000) - 0.51).abs() < 1e-9);
        assert!((scheduled_rate(1.0, 1000, 1000) - 0.02).abs() < 1e-9);
    }

    #[test]
    fn an_overflowed_gradient_changes_nothing() {
        let start = Tensor::new(&[3.0_f32, -2.0], &Device::Cpu).unwrap();
        let variables = [("x".to_owned(), Var::from_tensor(&start).unwrap())];
        let mut adam = Adam::new(&variables, 10.0);
        let huge = variables[0].1.as_tensor().affine(1e30, 0.0).unwrap().sqr().unwrap().sum_all().unwrap();
        let norm = adam.step(&variables, &huge.backward().unwrap(), 0.1).unwrap();
        assert!(!norm.is_finite());
        assert_eq!(variables[0].1.as_tensor().to_vec1::<f32>().unwrap(), [3.0, -2.0]);
        assert_eq!(adam.steps(), 0);
    }

    #[test]
    fn adam_finds_the_minimum_of_a_parabola() {
        let start = Tensor::new(&[3.0_f32, -2.0], &Device::Cpu).unwrap();
        let variables = [("x".to_owned(), Var::from_tensor(&start).unwrap())];
        let mut adam = Adam::new(&variables, 10.0);
        for step in 0..400 {
            let loss = variables[0].1.as_tensor().affine(1.0, -1.0).unwrap().sqr().unwrap().sum_all().unwrap();
            let gradients = loss.backward().unwrap();
            adam.step(&variables, &gradients, scheduled_rate(0.1, step, 400)).unwrap();
        }
        for value in variables[0].1.as_tensor().to_vec1::<f32>().unwrap() {
            assert!((value - 1.0).abs() < 1e-3, "{value}");
        }
    }

    #[test]
    fn tensors_step_as_the_processor_does() {
        let start = Tensor::new(&[[3.0_f32, -2.0, 0.5], [1.0, 0.0, -40.0]], &Device::Cpu).unwrap();
        let run = |clip: f64| {
            let variables = ["x", "y"].map(|name| (name.to_owned(), Var::from_tensor(&start.copy().unwrap()).unwrap()));
            let mut adam = Adam::new(&variables, clip);
            for step in 0..30 {
                // The second variable has no gradient at all.
                let loss = variables[0].1.as_tensor().affine(1.0, -1.0).unwrap().sqr().unwrap().sum_all().unwrap();
                adam.step(&variables, &loss.backward().unwrap(), scheduled_rate(0.1, step, 40)).unwrap();
            }
            let of = |(_, variable): &(String, Var)| variable.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let HostMoments { first, second } = adam.moments().unwrap();
            [variables.each_ref().map(of).to_vec(), first, second].concat().concat()
        };
        // Clipped and not.
        for clip in [1.0, 1e6] {
            for (got, expected) in stock::everywhere(|| run(clip)).iter().zip(run(clip)) {
                assert!((got - expected).abs() <= 1e-6 * expected.abs(), "{got} for {expected}");
            }
        }
    }

    #[test]
    fn tensors_are_not_moved_by_an_overflowed_gradient_either() {
        stock::everywhere(an_overflowed_gradient_changes_nothing);
    }
}
