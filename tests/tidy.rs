//! The invariants of docs/ARCHITECTURE.md that a program can check.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust source file of the project, tests and benches included.
fn sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> =
        ["src", "engine", "models", "actors", "tests", "benches", "examples"].map(|f| root().join(f)).into();
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            let path = entry.path();
            if path.is_dir() && path.file_name().is_some_and(|n| n != "target") {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    assert!(found.len() > 20, "the walk found only {} files", found.len());
    found
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().to_string_lossy().into_owned()
}

/// The text of a file up to its unit tests, comment lines left out.
fn code_of(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    let code = text.split("\n#[cfg(test)]\nmod tests").next().unwrap();
    code.lines().filter(|l| !l.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// Direct dependencies of a member, without development ones.
fn dependencies(member: &str) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let package = metadata["packages"].as_array().unwrap().iter().find(|p| p["name"] == member).unwrap();
    package["dependencies"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|d| d["kind"] != "dev")
        .map(|d| d["name"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn dependencies_point_one_way() {
    let (engine, models, actors) =
        (dependencies("restyle-engine"), dependencies("restyle-models"), dependencies("restyle-actors"));
    for (member, found, banned) in [
        (
            "engine",
            &engine,
            &["restyle-models", "restyle-actors", "restyle", "candle-core", "ffmpeg-next", "opendal"][..],
        ),
        ("models", &models, &["restyle-engine", "restyle-actors", "restyle", "ffmpeg-next", "opendal", "actix"][..]),
        ("actors", &actors, &["restyle", "candle-core", "candle-nn", "actix"][..]),
        (
            "root",
            &dependencies("restyle"),
            &["candle-core", "candle-nn", "ffmpeg-next", "ffmpeg-sys-next", "opendal", "actix"][..],
        ),
    ] {
        for name in banned {
            assert!(!found.contains(*name), "{member} depends on {name}");
        }
    }
}

#[test]
fn actix_is_named_under_supervise_only() {
    for path in sources().iter().filter(|p| relative(p).starts_with("engine/src")) {
        if !relative(path).starts_with("engine/src/supervise") {
            assert!(!code_of(path).contains("actix"), "{} names actix", relative(path));
        }
    }
}

#[test]
fn actix_web_is_named_under_the_http_interface_only() {
    for path in sources().iter().filter(|p| relative(p).starts_with("src/")) {
        if !relative(path).starts_with("src/serve/http") {
            assert!(!code_of(path).contains("actix"), "{} names actix", relative(path));
        }
    }
}

#[test]
fn unsafe_stays_in_kernels_the_card_and_ffmpeg() {
    for path in sources() {
        let name = relative(&path);
        let places = ["models/src/kernels", "models/src/cuda/machine.rs", "actors/src/ffmpeg", "tests/tidy.rs"];
        let allowed = places.iter().any(|place| name.starts_with(place));
        if !allowed {
            let code = code_of(&path);
            assert!(!code.contains("unsafe {") && !code.contains("unsafe fn"), "{name} holds unsafe code");
        }
    }
}

#[test]
fn files_hold_one_idea() {
    for path in sources() {
        let name = relative(&path);
        assert!(!name.ends_with("/util.rs") && !name.ends_with("/utils.rs") && !name.ends_with("/common.rs"), "{name}");
        if name.contains("/src/") || name.starts_with("src/") {
            let lines = std::fs::read_to_string(&path)
                .unwrap()
                .split("\n#[cfg(test)]\nmod tests")
                .next()
                .unwrap()
                .lines()
                .count();
            assert!(lines <= 500, "{name} has {lines} lines without its tests");
        }
    }
}

#[test]
fn tests_are_neither_ignored_nor_empty() {
    for path in sources().iter().filter(|p| relative(p) != "tests/tidy.rs") {
        let code = std::fs::read_to_string(path).unwrap();
        for banned in ["#[ignore", "todo!(", "unimplemented!(", "assert!(true)"] {
            assert!(!code.contains(banned), "{} holds {banned}", relative(path));
        }
    }
}
