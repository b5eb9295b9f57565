//! How much of a file's tensors is copied, counted before anything is.

use super::refused;
use crate::ModelError;

/// The most elements of all of a file's tensors together; the network of the paper has 1.7 million.
const ELEMENTS_MAX: usize = 64 << 20;

/// What is left of the elements that may be copied from one file.
#[derive(Debug)]
pub(super) struct Room {
    elements: usize,
}

impl Room {
    /// The room of one file.
    pub(super) fn new() -> Self {
        Self { elements: ELEMENTS_MAX }
    }

    /// Takes the room of a tensor and returns its number of elements.
    ///
    /// # Errors
    /// `Weights` naming the tensor where it, with those before it, is too large for a style network.
    pub(super) fn take(&mut self, name: &str, shape: &[usize]) -> Result<usize, ModelError> {
        let elements = shape.iter().try_fold(1_usize, |product, &side| product.checked_mul(side));
        let left = elements.and_then(|elements| self.elements.checked_sub(elements));
        let (Some(elements), Some(left)) = (elements, left) else {
            return Err(refused(format!(
                "tensor {name} of shape {shape:?} is too large for a style network: all tensors of a file together may have \
                 {ELEMENTS_MAX} elements, and {} are left",
                self.elements
            )));
        };
        self.elements = left;
        Ok(elements)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_share_one_room() {
        let mut room = Room::new();
        assert_eq!(room.take("a", &[ELEMENTS_MAX / 2, 2]).unwrap(), ELEMENTS_MAX);
        assert_eq!(room.take("none", &[0, usize::MAX]).unwrap(), 0);
        let error = room.take("b", &[1]).unwrap_err().to_string();
        assert!(error.contains("tensor b of shape [1]") && error.contains("0 are left"), "{error}");
    }

    #[test]
    fn a_shape_that_overflows_is_refused() {
        let error = Room::new().take("a", &[usize::MAX, usize::MAX]).unwrap_err().to_string();
        assert!(error.contains("too large"), "{error}");
    }
}
