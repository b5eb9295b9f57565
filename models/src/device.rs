//! Which device a model runs on.

use crate::ModelError;
use crate::kernels::Isa;
use std::fmt;

/// A device to run a model on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeviceChoice {
    /// The processor, with the widest vector instructions it has.
    Cpu,
    /// The CUDA device of this number.
    Cuda(usize),
    /// All CUDA devices of the first one's generation; each model takes the one that has the fewest in this process.
    CudaAll,
}

impl DeviceChoice {
    /// Reads `auto`, `cpu` or `cuda:N`; `auto` is the best device that this build can use here.
    ///
    /// # Errors
    /// `Options` for any other text.
    pub fn parse(text: &str) -> Result<Self, ModelError> {
        match text {
            "auto" => Ok(Self::best()),
            "cpu" => Ok(Self::Cpu),
            _ => text
                .strip_prefix("cuda:")
                .and_then(|number| number.parse().ok())
                .map(Self::Cuda)
                .ok_or_else(|| ModelError::Options(format!("device is {text:?}, expected auto, cpu or cuda:N"))),
        }
    }

    /// Checks that this build can use the device.
    ///
    /// # Errors
    /// `Device` saying what is missing.
    pub fn check(self) -> Result<(), ModelError> {
        match self {
            Self::Cpu => Ok(()),
            Self::Cuda(ordinal) => check_cuda(ordinal),
            Self::CudaAll => check_cuda(first_cuda()),
        }
    }

    /// Returns how many models score best beside each other: one a GPU, `cores` on the processor.
    pub fn nodes(self, cores: usize) -> usize {
        match self {
            Self::Cpu => cores,
            Self::Cuda(_) => 1,
            Self::CudaAll => cuda_devices().len().max(1),
        }
    }

    fn best() -> Self {
        match cuda_devices().as_slice() {
            [] => Self::Cpu,
            [(ordinal, _)] => Self::Cuda(*ordinal),
            _ => Self::CudaAll,
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
            Self::CudaAll => f.write_str("cuda"),
        }
    }
}

#[cfg(feature = "cuda")]
fn check_cuda(ordinal: usize) -> Result<(), ModelError> {
    crate::cuda::machine::Machine::find(ordinal).map(|_| ())
}

#[cfg(not(feature = "cuda"))]
fn check_cuda(ordinal: usize) -> Result<(), ModelError> {
    Err(ModelError::Device(format!(
        "device cuda:{ordinal} was asked for, but this build has no CUDA support: use --device cpu, or build with --features cuda"
    )))
}

/// Lists the devices that this build can use here, the best last. Asks the driver and opens nothing.
pub fn available() -> Vec<DeviceChoice> {
    let mut devices = vec![DeviceChoice::Cpu];
    // The first card is the best by convention of the driver, which orders by speed.
    devices.extend(cuda_devices().into_iter().rev().map(|(ordinal, _)| DeviceChoice::Cuda(ordinal)));
    devices
}

/// Lists number and description of every card that can be used. Cards of another generation than the first one's round
/// otherwise, so they are left out: they can be named.
#[cfg(feature = "cuda")]
fn cuda_devices() -> Vec<(usize, String)> {
    crate::cuda::machine::alike().into_iter().map(|card| (card.ordinal, card.to_string())).collect()
}

#[cfg(not(feature = "cuda"))]
fn cuda_devices() -> Vec<(usize, String)> {
    Vec::new()
}

/// The card that speaks for all of [`DeviceChoice::CudaAll`]: older ones before it are passed over.
fn first_cuda() -> usize {
    cuda_devices().first().map_or(0, |(ordinal, _)| *ordinal)
}

/// Says for people what this build can do with CUDA on this machine.
pub fn describe_cuda() -> String {
    let cards: Vec<String> =
        cuda_devices().into_iter().map(|(ordinal, card)| format!("cuda:{ordinal} {card}")).collect();
    if cards.is_empty() {
        return DeviceChoice::Cuda(0)
            .check()
            .map_or_else(|error| error.to_string(), |()| "cuda:0 can be used".to_owned());
    }
    cards.join(", ")
}

/// Names the vector instructions that the kernels use on this processor.
pub fn cpu_kernels() -> String {
    Isa::detect().to_string()
}

/// Names what the bytes of a stylized picture depend on besides weights and options: device kind, precision, instructions.
///
/// Machines of one class give the same bytes; between classes sums are rounded in another order.
pub fn numeric_class(device: DeviceChoice) -> String {
    match device {
        DeviceChoice::Cpu => format!("cpu f32 {}", cpu_kernels()),
        DeviceChoice::Cuda(ordinal) => format!("cuda bf16 {}", cuda_class(ordinal)),
        DeviceChoice::CudaAll => format!("cuda bf16 {}", cuda_class(first_cuda())),
    }
}

/// Tensor cores of different generations may round differently.
#[cfg(feature = "cuda")]
fn cuda_class(ordinal: usize) -> String {
    let card = crate::cuda::machine::Machine::find(ordinal);
    card.map_or_else(|_| "absent".to_owned(), |card| format!("sm_{}", card.capability))
}

#[cfg(not(feature = "cuda"))]
fn cuda_class(_: usize) -> String {
    "absent".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written() {
        for (text, device) in [("cpu", DeviceChoice::Cpu), ("cuda:3", DeviceChoice::Cuda(3))] {
            assert_eq!(DeviceChoice::parse(text).unwrap(), device);
            assert_eq!(device.to_string(), text);
        }
        let auto = DeviceChoice::parse("auto").unwrap();
        assert!(auto == DeviceChoice::CudaAll || available().contains(&auto));
        assert!(auto.nodes(3) >= 1);
        for text in ["", "gpu", "cuda", "cuda:", "cuda:-1", "CPU"] {
            assert!(DeviceChoice::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn devices_that_are_not_there_are_refused() {
        DeviceChoice::Cpu.check().unwrap();
        let message = DeviceChoice::Cuda(4711).check().unwrap_err().to_string();
        let expected = if cfg!(feature = "cuda") { "CUDA device" } else { "no CUDA support" };
        assert!(message.contains("cuda:4711") && message.contains(expected), "{message}");
        assert!(message.contains("--device cpu"), "{message}");
    }
}
