//! Private options of each encoder: quality, speed, and what keeps its output a function of its input alone.
//!
//! Every encoder runs on one thread: parallelism comes from segments, and none of these libraries promises equal bytes
//! for different thread counts. Look-ahead is capped, since every open segment keeps that many frames in memory.

use super::codec::VideoCodec;
use super::settings::EncodeRequest;
use crate::source_info::{HdrInfo, MasteringDisplay, Rational};
use crate::{ActorError, Result};

/// Frames that an encoder may look ahead, at most.
pub(super) const LOOKAHEAD_FRAMES_MAX: u32 = 20;

/// Frames after which an encoder starts anew inside a segment; more than a segment of two seconds has.
pub(super) const GOP_FRAMES: u32 = 600;

const PRESETS: [&str; 10] =
    ["ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow", "placebo"];

/// Named options for the encoder, in the order in which they are set.
pub(super) fn choose(
    codec: VideoCodec,
    request: &EncodeRequest,
    hdr: &HdrInfo,
    full_chroma: bool,
    limited_range: bool,
) -> Result<Vec<(String, String)>> {
    if codec.is_intermediate() {
        refuse_unused(codec, request)?;
    }
    let own = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    match codec {
        VideoCodec::H264 => x264(request, hdr, limited_range),
        VideoCodec::Hevc => x265(request, hdr, limited_range),
        VideoCodec::Vp9 => vpx(request),
        VideoCodec::Av1 => aom(request),
        VideoCodec::Ffv1 => Ok(own(&[("level", "3"), ("g", "1"), ("slicecrc", "1")])),
        VideoCodec::ProRes => Ok(own(&[("profile", if full_chroma { "4444" } else { "hq" })])),
        VideoCodec::Mjpeg => Ok(own(&[("flags", "+qscale"), ("global_quality", "236")])),
        VideoCodec::UtVideo => Ok(own(&[("pred", "median")])),
        VideoCodec::H264Nvenc | VideoCodec::HevcNvenc => nvenc(request),
    }
}

fn refuse_unused(codec: VideoCodec, request: &EncodeRequest) -> Result<()> {
    let unused = if request.crf.is_some() {
        "--crf"
    } else if request.preset.is_some() {
        "--preset"
    } else {
        return Ok(());
    };
    Err(ActorError::Usage(format!("codec {codec} has no {unused}; leave it out or choose h264, hevc, vp9 or av1")))
}

fn x264(request: &EncodeRequest, hdr: &HdrInfo, limited_range: bool) -> Result<Vec<(String, String)>> {
    let preset = named_preset(request, "veryfast")?;
    let lookahead = match preset {
        "ultrafast" | "superfast" => 0,
        "veryfast" => 10,
        _ => LOOKAHEAD_FRAMES_MAX,
    };
    let mut params = format!("rc-lookahead={lookahead}:sync-lookahead=0:lookahead-threads=1:open-gop=0");
    if limited_range {
        // x264 writes a limited range only along with something else of the video signal type.
        params += ":videoformat=component";
    }
    if let Some(mastering) = hdr.mastering.as_ref().and_then(mastering_text) {
        params += &format!(":mastering-display={mastering}");
    }
    if let Some(light) = hdr.content_light {
        params += &format!(":cll={},{}", light.max_cll, light.max_fall);
    }
    Ok(pairs([
        ("preset", preset.to_owned()),
        ("crf", crf(request, 18.0, 51.0, true)?),
        ("forced-idr", "1".to_owned()),
        ("x264-params", params),
    ]))
}

fn x265(request: &EncodeRequest, hdr: &HdrInfo, limited_range: bool) -> Result<Vec<(String, String)>> {
    let preset = named_preset(request, "fast")?;
    let lookahead = match preset {
        "ultrafast" => 5,
        "superfast" => 10,
        "veryfast" | "faster" | "fast" => 15,
        _ => LOOKAHEAD_FRAMES_MAX,
    };
    // Its information message names the processor, so it has to go.
    let mut params = format!(
        "info=0:pools=none:frame-threads=1:wpp=0:open-gop=0:b-pyramid=1:repeat-headers=0:rc-lookahead={lookahead}:log-level=error"
    );
    if limited_range {
        params += ":range=limited";
    }
    if let Some(mastering) = hdr.mastering.as_ref().and_then(mastering_text) {
        params += &format!(":master-display={mastering}");
    }
    if let Some(light) = hdr.content_light {
        params += &format!(":max-cll={},{}", light.max_cll, light.max_fall);
    }
    Ok(pairs([("preset", preset.to_owned()), ("crf", crf(request, 20.0, 51.0, true)?), ("x265-params", params)]))
}

fn vpx(request: &EncodeRequest) -> Result<Vec<(String, String)>> {
    Ok(pairs([
        ("crf", crf(request, 24.0, 63.0, false)?),
        ("b", "0".to_owned()),
        ("deadline", "good".to_owned()),
        ("cpu-used", speed(request, 4)?.to_string()),
        ("lag-in-frames", "16".to_owned()),
        ("auto-alt-ref", "1".to_owned()),
        ("row-mt", "0".to_owned()),
        ("tile-columns", "0".to_owned()),
        ("tile-rows", "0".to_owned()),
        ("frame-parallel", "0".to_owned()),
    ]))
}

fn aom(request: &EncodeRequest) -> Result<Vec<(String, String)>> {
    Ok(pairs([
        ("crf", crf(request, 24.0, 63.0, false)?),
        ("b", "0".to_owned()),
        ("cpu-used", speed(request, 7)?.to_string()),
        ("lag-in-frames", "16".to_owned()),
        ("row-mt", "0".to_owned()),
        ("tiles", "1x1".to_owned()),
    ]))
}

/// Constant quality without frames that are reordered; the card's seven presets under the names of the others.
fn nvenc(request: &EncodeRequest) -> Result<Vec<(String, String)>> {
    const LEVELS: [&str; PRESETS.len()] = ["p1", "p1", "p2", "p3", "p4", "p4", "p5", "p6", "p7", "p7"];
    let preset = named_preset(request, "medium")?;
    let place = PRESETS.iter().position(|known| *known == preset).expect("a known preset");
    Ok(pairs([
        ("preset", LEVELS[place].to_owned()),
        ("rc", "vbr".to_owned()),
        ("cq", crf(request, 20.0, 51.0, true)?),
        ("b", "0".to_owned()),
        ("bf", "0".to_owned()),
    ]))
}

fn pairs<const N: usize>(pairs: [(&str, String); N]) -> Vec<(String, String)> {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

fn named_preset<'a>(request: &'a EncodeRequest, default: &'a str) -> Result<&'a str> {
    let preset = request.preset.as_deref().unwrap_or(default);
    if PRESETS.contains(&preset) {
        return Ok(preset);
    }
    Err(ActorError::Usage(format!("preset {preset:?} is not known; use one of {}", PRESETS.join(", "))))
}

/// Maps the same preset names to the 0 (best) to 8 (fastest) of the AOM family, which may be given as a number too.
fn speed(request: &EncodeRequest, default: u8) -> Result<u8> {
    let Some(preset) = request.preset.as_deref() else { return Ok(default) };
    if let Some(place) = PRESETS.iter().position(|known| *known == preset) {
        return Ok(8u8.saturating_sub(place as u8));
    }
    preset.parse().ok().filter(|speed| *speed <= 8).ok_or_else(|| {
        ActorError::Usage(format!(
            "preset {preset:?} is not known; use 0 (best) to 8 (fastest) or one of {}",
            PRESETS.join(", ")
        ))
    })
}

fn crf(request: &EncodeRequest, default: f32, max: f32, fractions: bool) -> Result<String> {
    let value = request.crf.unwrap_or(default);
    if !(0.0..=max).contains(&value) || (!fractions && value.fract() != 0.0) {
        let kind = if fractions { "a number" } else { "a whole number" };
        return Err(ActorError::Usage(format!(
            "--crf {value} is out of range; this codec takes {kind} from 0 to {max}"
        )));
    }
    Ok(value.to_string())
}

/// Spells a mastering display as both HEVC and H.264 encoders read it: chromaticities in 1/50000, luminance in 1/10000.
fn mastering_text(mastering: &MasteringDisplay) -> Option<String> {
    let ([r, g, b], wp, [min, max]) = (mastering.primaries?, mastering.white_point?, mastering.luminance?);
    let scaled = |value: Rational, unit: f64| (value.as_f64() * unit).round().max(0.0) as u64;
    let point = |p: [Rational; 2]| format!("({},{})", scaled(p[0], 50_000.0), scaled(p[1], 50_000.0));
    let luminance = format!("({},{})", scaled(max, 10_000.0), scaled(min, 10_000.0));
    Some(format!("G{}B{}R{}WP{}L{luminance}", point(g), point(b), point(r), point(wp)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mastering_display_is_spelled_in_encoder_units() {
        let p = |x: i32, y: i32| [Rational::new(x, 50_000), Rational::new(y, 50_000)];
        let mastering = MasteringDisplay {
            primaries: Some([p(35_400, 14_600), p(8_500, 39_850), p(6_550, 2_300)]),
            white_point: Some(p(15_635, 16_450)),
            luminance: Some([Rational::new(1, 10_000), Rational::new(1000, 1)]),
        };
        let text = mastering_text(&mastering).unwrap();
        assert_eq!(text, "G(8500,39850)B(6550,2300)R(35400,14600)WP(15635,16450)L(10000000,1)");
        assert_eq!(mastering_text(&MasteringDisplay { luminance: None, ..mastering }), None);
    }

    #[test]
    fn presets_mean_the_same_direction_everywhere() {
        let request = |preset: &str| EncodeRequest { preset: Some(preset.to_owned()), ..EncodeRequest::default() };
        assert_eq!(speed(&request("ultrafast"), 4).unwrap(), 8);
        assert_eq!(speed(&request("placebo"), 4).unwrap(), 0);
        assert_eq!(speed(&request("3"), 4).unwrap(), 3);
        assert!(speed(&request("9"), 4).is_err());
        assert!(named_preset(&request("3"), "fast").is_err());
    }

    #[test]
    fn quality_is_checked_per_codec() {
        let request = |crf| EncodeRequest { crf: Some(crf), ..EncodeRequest::default() };
        let check = |codec, value, ok| {
            assert_eq!(
                choose(codec, &request(value), &HdrInfo::default(), false, false).is_ok(),
                ok,
                "{codec} {value}"
            );
        };
        check(VideoCodec::H264, 17.5, true);
        check(VideoCodec::H264, 52.0, false);
        check(VideoCodec::Vp9, 52.0, true);
        check(VideoCodec::Vp9, 17.5, false);
        check(VideoCodec::Av1, f32::NAN, false);
        check(VideoCodec::Ffv1, 10.0, false);
    }
}
