//! The styles this build carries: trained by the project, in `models/styles`, with a card each.

/// A style inside the binary.
#[derive(Debug, Clone, Copy)]
pub struct ShippedStyle {
    /// Its name on the command line.
    pub name: &'static str,
    /// The painting it was trained on.
    pub painting: &'static str,
    /// blake3 of the file, hexadecimal, as its card says.
    pub digest: &'static str,
    /// The safetensors file.
    pub bytes: &'static [u8],
}

/// Every style of this build, by name.
pub const ALL: &[ShippedStyle] = &[ShippedStyle {
    name: "starry-night",
    painting: "Vincent van Gogh, The Starry Night, 1889",
    digest: "eb9d6681ae597cd21c1ab11f0980ee6de73644ffc6547ad90bf2e2369b8d29ee",
    bytes: include_bytes!("../styles/starry-night.safetensors"),
}];

/// Returns the shipped style of that name.
#[must_use]
pub fn find(name: &str) -> Option<&'static ShippedStyle> {
    ALL.iter().find(|s| s.name == name)
}
