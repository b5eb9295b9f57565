//! The styles this build carries, and its network for any style: trained by the project, in `models/styles`, with a card each.

/// A style inside the binary.
#[derive(Debug, Clone, Copy)]
pub struct ShippedStyle {
    /// Its name on the command line.
    pub name: &'static str,
    /// The painting it was trained on.
    pub painting: &'static str,
    /// blake3 of the file, hexadecimal, as it was when it was built in, and as its card gives it.
    pub digest: &'static str,
    /// The safetensors file.
    pub bytes: &'static [u8],
}

/// A network for any style inside the binary.
#[derive(Debug, Clone, Copy)]
pub struct ShippedNetwork {
    /// blake3 of the file, hexadecimal, as it was when it was built in, and as its card gives it.
    pub digest: &'static str,
    /// The safetensors file, see [`crate::any_style::AnyStyleNetwork::load`].
    pub bytes: &'static [u8],
}

/// The network that encodes a picture as a style.
pub const ANY: ShippedNetwork = ShippedNetwork {
    digest: "7a126aa3431b3efef1f26871af089f64c88a1438dd238862ed534641c9fb8015",
    bytes: include_bytes!("../styles/any-picture.safetensors"),
};

/// Every style of this build, by name.
pub const ALL: &[ShippedStyle] = &[
    ShippedStyle {
        name: "composition-vii",
        painting: "Wassily Kandinsky, Composition VII, 1913",
        digest: "41ac37f8621cc49db480cf660caff1e8a4a0a24cb8f0dd2b27c6201f954bc0f3",
        bytes: include_bytes!("../styles/composition-vii.safetensors"),
    },
    ShippedStyle {
        name: "great-wave",
        painting: "Katsushika Hokusai, The Great Wave off Kanagawa, 1831",
        digest: "99de533852da13883b0f30b852a12b1876251570f588cfe8febb1d5ba5afc978",
        bytes: include_bytes!("../styles/great-wave.safetensors"),
    },
    ShippedStyle {
        name: "great-wave-quick",
        painting: "Katsushika Hokusai, The Great Wave off Kanagawa, 1831",
        digest: "0656eefd73e190cd59d4c87d50b41261476895c527a186f391cad5cf0ccd9982",
        bytes: include_bytes!("../styles/great-wave-quick.safetensors"),
    },
    ShippedStyle {
        name: "starry-night",
        painting: "Vincent van Gogh, The Starry Night, 1889",
        digest: "cc79b46830b84432730cb2f278a32163bf09befdc8c83b0afc0d850a21266394",
        bytes: include_bytes!("../styles/starry-night.safetensors"),
    },
    ShippedStyle {
        name: "the-scream",
        painting: "Edvard Munch, The Scream, 1893",
        digest: "896df209912ed6c33f906095b921ebbfd4349d255608cea683b3108f2a2c14d4",
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
        digest: "4cb42da4a4c3e07c786ea41757cf88c3c25ee5a4146bf781f27b2e8911f28a3c",
        bytes: include_bytes!("../styles/wheat-field.safetensors"),
    },
];

/// Returns the shipped style of that name.
#[must_use]
pub fn find(name: &str) -> Option<&'static ShippedStyle> {
    ALL.iter().find(|s| s.name == name)
}
