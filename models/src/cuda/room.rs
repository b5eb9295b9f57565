//! How much of a card a node takes: measured when its scorer is built, and less than it would like where little is free.

use crate::{ModelError, ModelErrorKind};

/// Groups that are under way at once: while one is computed the next is uploaded and the one before comes back.
const SLOTS: usize = 2;

/// What a node holds on a card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Pictures that are computed at once, at least 1.
    pub images: usize,
    /// Groups that are under way at once; with one, copies and computing do not overlap.
    pub slots: usize,
}

/// Returns what a node asks for, the best first: fewer and fewer pictures at once, at last one without overlap.
pub fn shares(images: usize) -> impl Iterator<Item = Share> {
    let halved = std::iter::successors(Some(images.max(1)), |images| (*images > 1).then_some(images / 2));
    halved.map(|images| Share { images, slots: SLOTS }).chain([Share { images: 1, slots: 1 }])
}

/// Takes the largest share that the card has room for.
///
/// Somebody else may take memory between measuring and allocating, so an allocation that is refused leads to the next
/// smaller share, as a measurement does.
///
/// # Errors
/// That of the smallest share where the card is too full for it; any other error of `take` at once.
pub fn take_largest<T>(images: usize, mut take: impl FnMut(Share) -> Result<T, ModelError>) -> Result<T, ModelError> {
    let mut refused = None;
    for share in shares(images) {
        match take(share) {
            Err(error) if error.kind() == ModelErrorKind::DeviceFull => {
                tracing::debug!(?share, %error, "a card has no room for a share");
                refused = Some(error);
            }
            result => return result,
        }
    }
    Err(refused.expect("the smallest share was refused"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A card with so many bytes free, on which a picture takes 100 at work and 10 in each slot.
    fn taken(free: usize, images: usize) -> Result<Share, ModelError> {
        take_largest(images, |share| {
            let needed = share.images * (100 + 10 * share.slots);
            if needed <= free { Ok(share) } else { Err(ModelError::DeviceFull(format!("{needed} bytes are needed"))) }
        })
    }

    fn check(free: usize, images: usize, slots: usize) {
        assert_eq!(taken(free, 8).unwrap(), Share { images, slots }, "{free} bytes free");
    }

    #[test]
    fn little_memory_is_a_smaller_group_and_then_no_overlap() {
        check(10_000, 8, 2);
        check(960, 8, 2);
        check(959, 4, 2);
        check(300, 2, 2);
        check(120, 1, 2);
        check(119, 1, 1);
    }

    #[test]
    fn a_card_that_is_too_full_says_what_the_smallest_share_needs() {
        let error = taken(109, 8).unwrap_err();
        assert_eq!(error.kind(), ModelErrorKind::DeviceFull);
        assert!(error.to_string().contains("110 bytes"), "{error}");
    }

    #[test]
    fn any_other_error_ends_the_search() {
        let mut tries = 0;
        let result: Result<(), _> = take_largest(8, |_| {
            tries += 1;
            Err(ModelError::DeviceLost("gone".into()))
        });
        assert_eq!((result.unwrap_err().kind(), tries), (ModelErrorKind::DeviceLost, 1));
    }
}
