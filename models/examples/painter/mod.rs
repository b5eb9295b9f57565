//! What stylizes a photo in the examples: a network of one style, or one for any style with a painting encoded.

use std::path::Path;
use std::sync::Arc;

use candle_core::{Device, Tensor};
use restyle_models::any_style::{AnyStyle, AnyStyleFiles, AnyStyleNetwork};
use restyle_models::pixels::RgbPlanes;
use restyle_models::train::{Photo, TransformerNetwork, import};

pub(crate) type Failure = Box<dyn std::error::Error>;

/// Short side of a painting, pixels.
pub(crate) const PAINTING_SIZE: u32 = 384;

pub(crate) enum Painter {
    Trained(TransformerNetwork),
    Any(AnyStyle),
}

impl Painter {
    /// Reads a style file trained on colours 0..255 (this project's and the PyTorch examples', of any width), or a network
    /// for any style (a file of the project's, a folder of MicroAST's) and the painting with it.
    pub(crate) fn load(network: &Path, painting: &Path) -> Result<Self, Failure> {
        if network.is_dir() {
            let part = |name: &str| std::fs::read(network.join(format!("{name}.safetensors")));
            let files = [part("content_encoder")?, part("style_encoder")?, part("modulator")?, part("decoder")?];
            let [content_encoder, style_encoder, modulator, decoder] = &files;
            let files = AnyStyleFiles { content_encoder, style_encoder, modulator, decoder };
            return Self::any(AnyStyleNetwork::from_parts(&files)?, painting);
        }
        let bytes = std::fs::read(network)?;
        let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes)?;
        let Some(first) = metadata.info("conv1.conv2d.weight") else {
            return Self::any(AnyStyleNetwork::load(&bytes)?, painting);
        };
        let network = TransformerNetwork::new(first.shape[0], 0)?;
        import(network.variables(), &bytes)?;
        Ok(Self::Trained(network))
    }

    fn any(network: AnyStyleNetwork, painting: &Path) -> Result<Self, Failure> {
        let picture = Photo::read(painting, Some(PAINTING_SIZE))?.to_picture()?;
        Ok(Self::Any(AnyStyle::encode(&Arc::new(network), &picture)?))
    }

    /// Stylizes (1, 3, H, W), RGB 0..1; the network rounds sides up to fours, the photo's size is cut out of it.
    pub(crate) fn paint(&self, photo: &Tensor) -> Result<Tensor, Failure> {
        let (_, _, height, width) = photo.dims4()?;
        let styled = match self {
            Self::Trained(network) => network.forward(photo)?.detach(),
            Self::Any(style) => {
                let mut rgb = RgbPlanes::new(width, height);
                let values = photo.affine(255.0, 0.0)?.flatten_all()?.to_vec1::<f32>()?;
                for (plane, values) in rgb.planes.iter_mut().zip(values.chunks_exact(width * height)) {
                    plane.copy_from_slice(values);
                }
                let styled = style.forward(&rgb)?;
                let shape = (1, 3, styled.height, styled.width);
                Tensor::from_vec(styled.planes.concat(), shape, &Device::Cpu)?.affine(1.0 / 255.0, 0.0)?
            }
        };
        let styled = styled.clamp(0.0_f32, 1.0_f32)?;
        Ok(styled.narrow(2, 0, height)?.narrow(3, 0, width)?.contiguous()?)
    }
}
