//! Several styles in one picture, written as the command's `--blend` takes them: `a:0.7,b:0.3`.
//!
//! Each part is looked up by itself, as if it were the whole style: a blend leads nowhere that a style alone would not lead.

use super::error::ServiceError;
use crate::styles::share_of;
use restyle_models::mix::BLEND_MAX;

/// What a job is styled with: one style, or several with their shares.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Choice {
    /// What people call it.
    pub(super) name: String,
    /// What the pipeline resolves.
    pub(super) location: String,
    /// How many styles are blended; 0 for one without a share.
    pub(super) blended: usize,
}

impl Choice {
    /// One style.
    pub(super) fn alone(name: &str, location: &str) -> Self {
        Self { name: name.to_owned(), location: location.to_owned(), blended: 0 }
    }

    /// Several styles; `find` returns what people call one and what the pipeline resolves for it.
    ///
    /// # Errors
    /// Those of `find`; `Invalid` for more than [`BLEND_MAX`] parts, and for a location that cannot be written into a blend.
    pub(super) fn blend(
        parts: &[(&str, f32)],
        mut find: impl FnMut(&str) -> Result<(String, String), ServiceError>,
    ) -> Result<Self, ServiceError> {
        // First of all: a long list is not looked up.
        if parts.len() > BLEND_MAX {
            let message = format!("a blend of {} styles, expected at most {BLEND_MAX}", parts.len());
            return Err(ServiceError::invalid(message));
        }
        let (mut names, mut locations) = (Vec::new(), Vec::new());
        for (said, share) in parts {
            let (name, location) = find(said)?;
            // The pipeline takes a blend apart at its commas.
            if location.contains(',') {
                let message = format!("style {name} cannot be blended, its path holds a comma: rename it");
                return Err(ServiceError::invalid(message));
            }
            names.push(format!("{name}:{share}"));
            locations.push(format!("{location}:{share}"));
        }
        Ok(Self { name: names.join(","), location: locations.join(","), blended: parts.len() })
    }
}

/// Takes `a:0.7,b:0.3` apart; `None` for what is no blend.
pub(super) fn parts(said: &str) -> Option<Vec<(&str, f32)>> {
    said.split(',').map(share_of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(name: &str) -> Result<(String, String), ServiceError> {
        match name {
            "own" => Ok((name.to_owned(), "/styles/own.safetensors".to_owned())),
            "comma" => Ok((name.to_owned(), "/styles/a,b.safetensors".to_owned())),
            "udnie" => Ok((name.to_owned(), name.to_owned())),
            _ => Err(ServiceError::invalid("unknown")),
        }
    }

    fn blend(said: &str) -> Result<Choice, ServiceError> {
        Choice::blend(&parts(said).unwrap(), find)
    }

    #[test]
    fn each_part_is_looked_up() {
        let found = blend("own:0.7, udnie:0.30").unwrap();
        assert_eq!((found.name.as_str(), found.blended), ("own:0.7,udnie:0.3", 2));
        assert_eq!(found.location, "/styles/own.safetensors:0.7,udnie:0.3");
        let many = ["own:1"; BLEND_MAX + 1].join(",");
        for (said, why) in [("own:1,/etc/passwd:1", "unknown"), ("comma:1", "comma"), (many.as_str(), "at most")] {
            let error = blend(said).unwrap_err().to_string();
            assert!(error.contains(why) && !error.contains("/styles"), "{said}: {error}");
        }
    }

    #[test]
    fn what_lacks_a_share_is_no_blend() {
        for said in [
            "",
            "udnie",
            "udnie:",
            "udnie:0",
            "udnie:-1",
            "udnie:inf",
            "udnie:3e38",
            "udnie:1e-4",
            "udnie:1,",
            "s3://b/a.safetensors",
            ":1",
        ] {
            assert!(parts(said).is_none(), "{said:?}");
        }
    }
}
