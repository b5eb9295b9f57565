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
}

impl DeviceChoice {
    /// Reads `auto`, `cpu` or `cuda:N`; `auto` is the best device that this build can use here.
    ///
    /// # Errors
    /// `Options` for any other text.
    pub fn parse(text: &str) -> Result<Self, ModelError> {
        match text {
            "auto" => Ok(available().last().copied().unwrap_or(Self::Cpu)),
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
            Self::Cuda(_) => Err(ModelError::Device(format!(
                "device {self} was asked for, but this build has no CUDA support: use --device cpu"
            ))),
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

/// Lists the devices that this build can use here, the best last.
pub fn available() -> Vec<DeviceChoice> {
    vec![DeviceChoice::Cpu]
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
        DeviceChoice::Cuda(_) => "cuda".to_owned(),
    }
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
        assert!(available().contains(&DeviceChoice::parse("auto").unwrap()));
        for text in ["", "gpu", "cuda", "cuda:", "cuda:-1", "CPU"] {
            assert!(DeviceChoice::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn devices_that_are_not_compiled_in_are_refused() {
        DeviceChoice::Cpu.check().unwrap();
        let message = DeviceChoice::Cuda(0).check().unwrap_err().to_string();
        assert!(message.contains("cuda:0") && message.contains("no CUDA support"), "{message}");
    }
}
