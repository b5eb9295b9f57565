//! restyle
