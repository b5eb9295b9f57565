//! The styles this build carries, and its network for any style: trained by the project, in `models/styles`, with a card each.

/// A style inside the binary.
#[derive(Debug, Clone, Copy)]
pub struct ShippedStyle {
    /// Its name on the command line.
    pub name: &'static str,
    /// The painting it was trained on.
    pub painting: &'static str,
    /// blake3 of the file, hexadecimal, as it was when it was built in; its card gives SHA-256.
    pub digest: &'static str,
    /// The safetensors file.
    pub bytes: &'static [u8],
}

/// A network for any style inside the binary.
#[derive(Debug, Clone, Copy)]
pub struct ShippedNetwork {
    /// blake3 of the file, hexadecimal, as it was when it was built in; its card gives SHA-256.
    pub digest: &'static str,
    /// The safetensors file, see [`crate::any_style::AnyStyleNetwork::load`].
    pub bytes: &'static [u8],
}

/// The network that encodes a picture as a style.
pub const ANY: ShippedNetwork = ShippedNetwork {
    digest: "374ea872e726e89be3dd78bf823201726b6847bb7068ac2c60196b8f7a5518bb",
    bytes: include_bytes!("../styles/any-picture.safetensors"),
};

/// Every style of this build, by name.
pub const ALL: &[ShippedStyle] = &[
    ShippedStyle {
        name: "composition-vii",
        painting: "Wassily Kandinsky, Composition VII, 1913",
        digest: "1e76730a071a93111a96a881ec64fec1ab23bd997c428f0e4497180808047811",
        bytes: include_bytes!("../styles/composition-vii.safetensors"),
    },
    ShippedStyle {
        name: "great-wave",
        painting: "Katsushika Hokusai, The Great Wave off Kanagawa, 1831",
        digest: "44735acd30b83318df710d390edaac330d9762d98b1fdd26f619651816d1e787",
        bytes: include_bytes!("../styles/great-wave.safetensors"),
    },
    ShippedStyle {
        name: "starry-night",
        painting: "Vincent van Gogh, The Starry Night, 1889",
        digest: "aac3b58fbf6f84436e1a0b797aaa759ad4703d2f451bfdd1e868bf837170356e",
        bytes: include_bytes!("../styles/starry-night.safetensors"),
    },
    ShippedStyle {
        name: "the-scream",
        painting: "Edvard Munch, The Scream, 1893",
        digest: "2dcf08146c31af0977fe51ae2e95386c6daef10126e2e16237d135d6a9612225",
        bytes: include_bytes!("../styles/the-scream.safetensors"),
    },
    ShippedStyle {
        name: "udnie",
        painting: "Francis Picabia, Udnie, 1913",
        digest: "3880689540086eaf6b405164779aaa51e7c973441a08de83bc2ef8ce68f5aec7",
        bytes: include_bytes!("../styles/udnie.safetensors"),
    },
    ShippedStyle {
        name: "wheat-field",
        painting: "Vincent van Gogh, Wheat Field with Cypresses, 1889",
        digest: "d5ccebc1f9ea058a0afe62c457cd3cdccbabf7b78973e0a81dea722001d9d248",
        bytes: include_bytes!("../styles/wheat-field.safetensors"),
    },
];

/// Returns the shipped style of that name.
#[must_use]
pub fn find(name: &str) -> Option<&'static ShippedStyle> {
    ALL.iter().find(|s| s.name == name)
}
