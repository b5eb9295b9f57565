//! After its first frame the network takes no memory any more.

use restyle_models::pixels::RgbPlanes;
use restyle_models::ranges::Ranges;
use restyle_models::transform_net::TransformNet;
use restyle_models::weights::StyleWeights;

/// A style that the project ships.
fn weights() -> StyleWeights {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/styles/starry-night.safetensors");
    StyleWeights::load(&std::fs::read(path).unwrap()).unwrap()
}

fn picture() -> RgbPlanes {
    let mut rgb = RgbPlanes::new(70, 45);
    for (number, plane) in rgb.planes.iter_mut().enumerate() {
        plane.iter_mut().enumerate().for_each(|(at, value)| *value = (at * (37 + number) % 251) as f32);
    }
    rgb
}

#[test]
fn no_frame_after_the_first_allocates() {
    let (weights, rgb) = (weights(), picture());
    let (mut out, mut ranges) = (RgbPlanes::default(), Ranges::default());
    TransformNet::new(&weights, 1).unwrap().observe(&rgb, &mut out, &mut ranges);
    let isa = restyle_models::kernels::Isa::detect();
    for ranges in [None, Some(&ranges)] {
        // Allocations are counted on this thread, which is the only one of the network.
        let mut net = TransformNet::with_ranges(&weights, 1, isa, ranges).unwrap();
        let first = allocation_counter::measure(|| net.forward(&rgb, &mut out));
        let second = allocation_counter::measure(|| net.forward(&rgb, &mut out));
        assert!(first.count_total > 0, "what is counted is seen");
        assert_eq!(second.count_total, 0, "{second:?}");
    }
}
