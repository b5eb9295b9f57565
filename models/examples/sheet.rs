//! Lays out a contact sheet: a row for each style (its painting, then every photo in it), under a row of the photos.
//!
//! `sheet OUT HEIGHT PAINTING=STYLE ... -- PHOTO ...`: all cells are HEIGHT pixels high; OUT is a PNG or JPEG file. STYLE is a
//! style file, or a network for any style, which then gets the painting as its style picture.

mod painter;

use std::path::Path;

use candle_core::Tensor;
use painter::{Failure, Painter};
use restyle_models::train::Photo;

/// Pixels between cells.
const GAP: usize = 4;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let usage = "usage: sheet OUT HEIGHT PAINTING=STYLE ... -- PHOTO ...";
    let [out, height, rest @ ..] = arguments.as_slice() else { return Err(usage.into()) };
    let height: u32 = height.parse()?;
    let mut sides = rest.split(|argument| argument == "--");
    let (Some(styles), Some(photos)) = (sides.next(), sides.next()) else { return Err(usage.into()) };
    let photos = photos.iter().map(|path| cell(Path::new(path), height)).collect::<Result<Vec<_>, _>>()?;
    let mut rows = Vec::new();
    for pair in styles {
        let (painting, style) = pair.split_once('=').ok_or(usage)?;
        let painter = Painter::load(Path::new(style), Path::new(painting))?;
        let mut row = vec![cell(Path::new(painting), height)?];
        for photo in &photos {
            row.push(painter.paint(photo)?);
        }
        rows.push(row);
    }
    let painting_width = rows.iter().map(|row| row[0].dims()[3]).max().unwrap_or(1);
    let blank = Tensor::ones((1, 3, height as usize, painting_width), candle_core::DType::F32, photos[0].device())?;
    let mut all = vec![std::iter::once(blank.clone()).chain(photos).collect::<Vec<_>>()];
    all.extend(rows);
    let lines = all.into_iter().map(|row| line(row, painting_width)).collect::<Result<Vec<_>, _>>()?;
    Photo::write(&Tensor::cat(&lines, 2)?, Path::new(out))?;
    Ok(())
}

/// A picture scaled to the height of a cell, as (1, 3, H, W).
fn cell(path: &Path, height: u32) -> Result<Tensor, Failure> {
    let (width, full_height) = image::image_dimensions(path)?;
    let short = height * width.min(full_height) / full_height;
    let tensor = Photo::read(path, Some(short.max(1)))?.to_tensor()?;
    let rows = tensor.dims()[2].min(height as usize);
    Ok(tensor.narrow(2, 0, rows)?.pad_with_same(2, 0, height as usize - rows)?)
}

/// Cells side by side on white, the first padded to `first_width`.
fn line(row: Vec<Tensor>, first_width: usize) -> Result<Tensor, Failure> {
    let mut cells = Vec::new();
    for (index, cell) in row.into_iter().enumerate() {
        let spare = if index == 0 { first_width - cell.dims()[3] } else { 0 };
        let white = cell.ones_like()?.narrow(3, 0, 1)?.repeat((1, 1, 1, GAP + spare))?;
        cells.extend([cell, white]);
    }
    let line = Tensor::cat(&cells, 3)?;
    let white = line.ones_like()?.narrow(2, 0, GAP)?;
    Ok(Tensor::cat(&[&line, &white], 2)?)
}
