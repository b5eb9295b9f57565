//! `restyle doctor`: whether this machine can do the work, and what to do where it cannot.

use super::args::DoctorArgs;
use super::output;
use crate::error::{Error, ErrorKind};
use crate::work_store::{WorkPlace, WorkStore};
use restyle_actors::ffmpeg::capabilities::Capabilities;
use restyle_actors::ffmpeg::hardware::CardDecoder;
use restyle_engine::cancel::CancelToken;
use restyle_models::device;
use serde::Serialize;

#[derive(Serialize)]
struct Report {
    schema: u32,
    restyle: &'static str,
    ffmpeg: Capabilities,
    cores: usize,
    kernels: String,
    cuda: String,
    nvdec: String,
    work_dir: std::path::PathBuf,
    work_dir_problem: Option<String>,
}

pub(super) fn doctor(args: &DoctorArgs) -> Result<(), Error> {
    let work = WorkPlace::parse(args.work_dir.as_deref())?;
    let report = Report {
        schema: crate::event::SCHEMA,
        restyle: env!("CARGO_PKG_VERSION"),
        ffmpeg: Capabilities::read(),
        cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        kernels: device::cpu_kernels(),
        cuda: device::describe_cuda(),
        nvdec: CardDecoder::open(0).map_or_else(|e| e.to_string(), |_| "cuda:0 can be used".to_owned()),
        work_dir_problem: try_store(&work).err(),
        work_dir: work.to_string().into(),
    };
    if args.json {
        output::write_json(&report)?
    } else {
        output::write(&describe(&report))?
    }
    match (&report.work_dir_problem, report.ffmpeg.encoders.iter().find(|e| e.0 == "libx264")) {
        (Some(problem), _) => {
            Err(Error::new(ErrorKind::Storage, format!("work folder {}: {problem}", report.work_dir.display())))
        }
        (None, Some((_, false)) | None) => Err(Error::new(
            ErrorKind::Configuration,
            "this FFmpeg has no libx264: install a build that has it, or always name --codec",
        )),
        _ => Ok(()),
    }
}

/// Creates and deletes an object, as a job would.
fn try_store(place: &WorkPlace) -> Result<(), String> {
    let key = format!("doctor/{}", std::process::id());
    let store = WorkStore::open(place, &CancelToken::new(), std::sync::Arc::new(|_| ())).map_err(|e| e.to_string())?;
    let objects = store.objects();
    objects.create(&key, b"can objects be created here?").and_then(|_| objects.delete(&key)).map_err(|e| e.to_string())
}

fn describe(report: &Report) -> String {
    let mut text = format!("restyle      {}\n", report.restyle);
    let f = &report.ffmpeg;
    text += &format!(
        "FFmpeg       avcodec {}, avformat {}, avfilter {}, swscale {}; {}\n",
        f.avcodec, f.avformat, f.avfilter, f.swscale, f.license
    );
    for (name, there) in &f.encoders {
        text += &format!("  {name:<11}{}\n", if *there { "yes" } else { "no" });
    }
    text += &format!("CPU          {} cores, kernels: {}\n", report.cores, report.kernels);
    text += &format!("CUDA         {}\n", report.cuda);
    text += &format!("NVDEC        {}\n", report.nvdec);
    let state = report.work_dir_problem.as_deref().unwrap_or("writable, objects are created once");
    text += &format!("work folder  {}: {state}\n", report.work_dir.display());
    text
}
