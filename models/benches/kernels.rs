//! Speeds of the convolutions at the sizes of a 640x360 picture, one thread, for every instruction set.
//!
//! Throughput counts the operations of the direct convolution (two a weight, output and pixel), so that minimal
//! filtering shows as a speed above the line `peak`, which is the processor's own limit: multiply-adds in registers.

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use restyle_models::kernels::{
    Affine, Extent, Input, Isa, Load, Moments, PackedConv, PackedFirst, PackedLast, Sampling, Team, View, ViewMut, peak,
};
use restyle_models::pixels::{Picture, PixelFormat, RgbPlanes, from_rgb, to_rgb};
use restyle_models::weights::ConvWeights;
use std::hint::black_box;

const WIDTH: usize = 640;
const HEIGHT: usize = 360;
const PEAK_ROUNDS: usize = 100_000;

/// Deterministic values on -0.5..0.5.
fn values(len: usize) -> Vec<f32> {
    (0..len).map(|at| (at.wrapping_mul(2_654_435_761) >> 8 & 0xffff) as f32 / 65_536.0 - 0.5).collect()
}

fn weights(out_channels: usize, in_channels: usize, kernel_size: usize) -> ConvWeights {
    let kernel = values(out_channels * in_channels * kernel_size * kernel_size);
    ConvWeights { kernel, bias: vec![0.0; out_channels], out_channels, in_channels, kernel_size }
}

fn affine(extent: &Extent) -> Affine {
    Affine { scale: vec![1.0; extent.pixel_stride], shift: vec![0.1; extent.pixel_stride] }
}

fn operations(weights: &ConvWeights, to: &Extent) -> Throughput {
    Throughput::Elements((2 * weights.kernel.len() * to.width * to.height) as u64)
}

fn planes() -> RgbPlanes {
    let plane = || values(WIDTH * HEIGHT).iter().map(|value| 255.0 * (value + 0.5)).collect();
    RgbPlanes { width: WIDTH, height: HEIGHT, planes: [plane(), plane(), plane()] }
}

type Group<'a> = BenchmarkGroup<'a, WallTime>;

fn bench_conv(group: &mut Group<'_>, isa: Isa, name: &str, sampling: Sampling, channels: [usize; 2], divide: usize) {
    let [ins, outs] = channels;
    let weights = weights(outs, ins, 3);
    let conv = PackedConv::pack(isa, sampling, &weights);
    let extent = Extent::new(HEIGHT / divide, WIDTH / divide, ins, isa.lanes());
    let to = conv.output(extent.height, extent.width);
    let (from, affine) = (values(extent.len()), affine(&extent));
    let (mut out, mut moments) = (vec![0.0; to.len()], Moments::default());
    let mut team = Team::new(1).expect("no thread is started");
    let mut peaks = vec![0.0; PackedConv::peak_count(sampling)];
    let input = || Input { values: View::new(extent, &from), affine: &affine, load: Load::Relu };
    conv.run_observed(&mut team, input(), ViewMut::new(to, &mut out), &mut moments, &mut peaks);
    let reduced = PackedConv::pack_reduced(isa, sampling, &weights, &peaks);
    group.throughput(operations(&weights, &to));
    for (name, conv) in [(name.to_owned(), conv), (format!("{name}, reduced"), reduced)] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| conv.run(&mut team, input(), ViewMut::new(to, &mut out), &mut moments));
        });
    }
}

fn bench_first(group: &mut Group<'_>, isa: Isa) {
    let weights = weights(32, 3, 9);
    let conv = PackedFirst::pack(isa, &weights);
    let to = conv.output(HEIGHT, WIDTH);
    let (rgb, mut out, mut moments) = (planes(), vec![0.0; to.len()], Moments::default());
    let mut team = Team::new(1).expect("no thread is started");
    group.throughput(operations(&weights, &to));
    group.bench_function("first 9x9 3-32", |bencher| {
        bencher.iter(|| conv.run(&mut team, &rgb, ViewMut::new(to, &mut out), &mut moments));
    });
}

fn bench_last(group: &mut Group<'_>, isa: Isa) {
    let weights = weights(3, 32, 9);
    let conv = PackedLast::pack(isa, &weights);
    let extent = Extent::new(HEIGHT, WIDTH, 32, isa.lanes());
    let (from, affine, mut out) = (values(extent.len()), affine(&extent), RgbPlanes::default());
    let mut team = Team::new(1).expect("no thread is started");
    group.throughput(operations(&weights, &extent));
    group.bench_function("last 9x9 32-3", |bencher| {
        bencher.iter(|| conv.run(&mut team, View::new(extent, &from), &affine, &mut out));
    });
}

fn convolutions(criterion: &mut Criterion) {
    for isa in Isa::available() {
        let mut group = criterion.benchmark_group(format!("conv/{isa}"));
        group.sample_size(10);
        group.throughput(Throughput::Elements(peak::multiply_adds(isa, PEAK_ROUNDS)));
        group.bench_function("peak", |bencher| bencher.iter(|| peak::multiply_adds(isa, black_box(PEAK_ROUNDS))));
        bench_first(&mut group, isa);
        bench_conv(&mut group, isa, "down 32-64", Sampling::Down, [32, 64], 1);
        bench_conv(&mut group, isa, "down 64-128", Sampling::Down, [64, 128], 2);
        bench_conv(&mut group, isa, "same 128-128", Sampling::Same, [128, 128], 4);
        bench_conv(&mut group, isa, "up 128-64", Sampling::Up, [128, 64], 4);
        bench_conv(&mut group, isa, "up 64-32", Sampling::Up, [64, 32], 2);
        bench_last(&mut group, isa);
        group.finish();
    }
}

fn conversions(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pixels");
    group.throughput(Throughput::Elements((WIDTH * HEIGHT) as u64));
    let rgb = planes();
    let deep = PixelFormat { bits: 10, ..PixelFormat::YUV420P8 };
    for (name, format) in [("yuv420p8", PixelFormat::YUV420P8), ("yuv420p10", deep), ("rgb8", PixelFormat::RGB8)] {
        let convert = |rgb: &RgbPlanes| -> Picture {
            from_rgb(rgb, format, WIDTH as u32, HEIGHT as u32).expect("a format that exists")
        };
        let (picture, mut out) = (convert(&rgb), RgbPlanes::default());
        group.bench_function(format!("from rgb/{name}"), |bencher| bencher.iter(|| convert(black_box(&rgb))));
        group.bench_function(format!("to rgb/{name}"), |bencher| {
            bencher.iter(|| to_rgb(black_box(&picture), &mut out).expect("a valid picture"));
        });
    }
    group.finish();
}

criterion_group!(benches, convolutions, conversions);
criterion_main!(benches);
