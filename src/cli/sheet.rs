//! `restyle styles sheet`: a photo in every style, side by side.

use super::output;
use crate::error::{Error, ErrorKind};
use crate::styles::resolve;
use restyle_models::device::DeviceChoice;
use restyle_models::mix::{Controls, build_mix};
use restyle_models::pixels::{PixelFormat, Samples};
use restyle_models::shipped;
use restyle_models::style::StylizeOptions;
use restyle_models::train::Photo;
use std::path::{Path, PathBuf};

/// Pixels between cells.
const GAP: usize = 4;
/// The widest cell, in pixels.
const WIDTH_MAX: u32 = 2048;

/// What a sheet shows and how.
#[derive(Debug, clap::Args)]
pub(crate) struct SheetArgs {
    /// The photo: a PNG or JPEG file
    pub(crate) photo: PathBuf,
    /// Where the sheet goes: a .jpg or .png file
    #[arg(long, value_name = "FILE", default_value = "sheet.jpg")]
    pub(crate) out: PathBuf,
    /// Styles to show [default: every built-in one]
    #[arg(long = "style", value_name = "STYLE")]
    pub(crate) styles: Vec<String>,
    /// Width of a cell in pixels
    #[arg(long, default_value_t = 320)]
    pub(crate) width: u32,
    /// Cells in a row
    #[arg(long, default_value_t = 3)]
    pub(crate) columns: usize,
}

pub(super) fn sheet(args: &SheetArgs) -> Result<(), Error> {
    if !(16..=WIDTH_MAX).contains(&args.width) || !(1..=16).contains(&args.columns) {
        let message = format!("a sheet has cells of 16 to {WIDTH_MAX} pixels, 1 to 16 in a row");
        return Err(Error::new(ErrorKind::Usage, message));
    }
    let styles = match args.styles.as_slice() {
        [] => shipped::ALL.iter().map(|style| style.name.to_owned()).collect(),
        said => said.to_vec(),
    };
    let photo = read(&args.photo, args.width)?;
    let mut cells = vec![photo.clone()];
    for style in &styles {
        cells.push(stylized(&photo, style)?);
    }
    let sheet = lay_out(&cells, args.columns);
    sheet.save(&args.out).map_err(|e| Error::new(ErrorKind::Storage, format!("cannot write the sheet: {e}")))?;
    output::write(&format!("{}: the photo, {}\n", args.out.display(), styles.join(", ")))
}

fn read(path: &Path, width: u32) -> Result<Photo, Error> {
    let unreadable = |e: restyle_models::train::TrainError| Error::new(ErrorKind::InputUnreadable, e.to_string());
    let (whole_width, whole_height) = Photo::read(path, None).map_err(unreadable)?.size();
    let short = width as usize * whole_width.min(whole_height) / whole_width;
    Photo::read(path, Some(short.max(1) as u32)).map_err(unreadable)
}

fn stylized(photo: &Photo, style: &str) -> Result<Photo, Error> {
    let style = resolve(style, None)?;
    let failed = |e: restyle_models::ModelError| Error::new(ErrorKind::JobFailed, e.to_string());
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut model = build_mix(&style.parts, Controls::default(), &DeviceChoice::Cpu, threads, None).map_err(failed)?;
    let picture = photo.to_picture().map_err(failed)?;
    let options = StylizeOptions { score_width: None, output: PixelFormat::RGB8 };
    let result = model.stylize(&[&picture], &options).map_err(failed)?.swap_remove(0);
    let planes: Vec<&[u8]> = result.planes.iter().filter_map(|plane| bytes(&plane.samples)).collect();
    let (width, height) = photo.size();
    let rgb = (0..3 * width * height).map(|index| planes[index % 3][index / 3]).collect();
    Ok(Photo::from_rgb(width, height, rgb))
}

fn bytes(samples: &Samples) -> Option<&[u8]> {
    match samples {
        Samples::U8(bytes) => Some(bytes),
        Samples::U16(_) => None,
    }
}

/// Cells of one size in rows, white between and after them.
fn lay_out(cells: &[Photo], columns: usize) -> Photo {
    let (width, height) = cells[0].size();
    let columns = columns.min(cells.len());
    let rows = cells.len().div_ceil(columns);
    let (whole_width, whole_height) = (columns * (width + GAP) - GAP, rows * (height + GAP) - GAP);
    let mut rgb = vec![255; 3 * whole_width * whole_height];
    for (index, cell) in cells.iter().enumerate() {
        let (left, top) = (index % columns * (width + GAP), index / columns * (height + GAP));
        for (y, row) in cell.rgb().chunks_exact(3 * width).enumerate() {
            let start = 3 * ((top + y) * whole_width + left);
            rgb[start..start + row.len()].copy_from_slice(row);
        }
    }
    Photo::from_rgb(whole_width, whole_height, rgb)
}
