//! Where a training computes.

use std::fmt;

use candle_core::Device;
use serde::{Deserialize, Serialize};

use super::error::TrainError;
use crate::ModelError;
use crate::device::{DeviceChoice, available};

/// The device of a training. Weights are the same to the byte only on one kind of processor; a card rounds otherwise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum TrainDevice {
    /// The processor.
    #[default]
    Cpu,
    /// The CUDA device of this number.
    Cuda(usize),
}

impl TrainDevice {
    /// Reads `auto`, `cpu` or `cuda:N`; `auto` is the first card that this build can use here, or the processor.
    ///
    /// # Errors
    /// `Options` for any other text.
    pub fn parse(text: &str) -> Result<Self, ModelError> {
        let chosen = match DeviceChoice::parse(text)? {
            // Training takes one card.
            DeviceChoice::CudaAll => available().pop().unwrap_or(DeviceChoice::Cpu),
            one => one,
        };
        Ok(match chosen {
            DeviceChoice::Cuda(ordinal) => Self::Cuda(ordinal),
            DeviceChoice::Cpu | DeviceChoice::CudaAll => Self::Cpu,
        })
    }

    /// Checks that this build can use the device here.
    ///
    /// # Errors
    /// `Device` saying what is missing.
    pub fn check(self) -> Result<(), ModelError> {
        match self {
            Self::Cpu => Ok(()),
            Self::Cuda(ordinal) => DeviceChoice::Cuda(ordinal).check(),
        }
    }

    /// Opens the device.
    ///
    /// # Errors
    /// `Device` saying what is missing.
    pub(super) fn open(self) -> Result<Device, TrainError> {
        self.check().map_err(|error| TrainError::Device(error.to_string()))?;
        match self {
            Self::Cpu => Ok(Device::Cpu),
            // On a stream of its own, so that no other thread's work is waited for.
            Self::Cuda(ordinal) => Device::new_cuda_with_stream(ordinal)
                // Never closed: closing the libraries of a card that was lost meanwhile would panic.
                .inspect(|device| {
                    Box::leak(Box::new(device.clone()));
                })
                .map_err(|error| TrainError::Device(format!("device {self} cannot be opened: {error}"))),
        }
    }

    /// The device with its number left out: cards of one number or another are one kind.
    pub(super) fn kind(self) -> Self {
        match self {
            Self::Cpu => Self::Cpu,
            Self::Cuda(_) => Self::Cuda(0),
        }
    }
}

impl fmt::Display for TrainDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written() {
        for (text, device) in [("cpu", TrainDevice::Cpu), ("cuda:3", TrainDevice::Cuda(3))] {
            assert_eq!(TrainDevice::parse(text).unwrap(), device);
            assert_eq!(device.to_string(), text);
        }
        TrainDevice::parse("auto").unwrap().check().unwrap();
        for text in ["", "gpu", "cuda", "cuda:-1", "CPU"] {
            assert!(TrainDevice::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_device_that_is_not_there_is_refused() {
        let error = TrainDevice::Cuda(4711).open().unwrap_err();
        assert_eq!(error.kind(), crate::train::TrainErrorKind::Device);
        let message = error.to_string();
        assert!(message.contains("cuda:4711") && message.contains("--device cpu"), "{message}");
    }
}
