//! Runs programs on the processor: the kernels' own sources, compiled by a C++ compiler with fibers for threads.

use super::program::{Buffer, Program};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

mod tests;

/// Finds a C++ compiler; without one, what needs it says so and returns.
pub(super) fn compiler() -> Option<String> {
    let named = std::env::var("CXX").ok();
    let names = named.into_iter().chain(["c++", "g++", "clang++"].map(str::to_owned));
    let found = names
        .into_iter()
        .find(|name| Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success()));
    if found.is_none() {
        println!("skipped: no C++ compiler (c++, g++, clang++ or CXX) to emulate CUDA kernels with");
    }
    found
}

/// A compiled program: kernels do not change while sizes and contents may.
pub(super) struct Emulator {
    folder: tempfile::TempDir,
}

impl Emulator {
    /// Compiles the program's kernels.
    pub(super) fn compile(compiler: &str, program: &Program) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("emulator.h", include_str!("emulator.h"));
        write("emulator.cpp", include_str!("emulator.cpp"));
        write("prelude.cuh", super::source::prelude());
        write("kernels.inc", &kernels(program));
        let output = Command::new(compiler)
            .args([
                "-std=c++17",
                "-O1",
                "-ffp-contract=off",
                "-Wall",
                "-Wno-unknown-pragmas",
                "-o",
                "emulator",
                "emulator.cpp",
            ])
            .current_dir(folder.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        Self { folder }
    }

    /// Runs the program with constants and inputs; every other byte begins as NaN. Returns what is in `results`.
    pub(super) fn run(
        &self,
        program: &Program,
        constants: &[Vec<u8>],
        inputs: &[(Buffer, Vec<u8>)],
        results: &[Buffer],
    ) -> Vec<Vec<u8>> {
        let path = |name: &str| self.folder.path().join(name);
        std::fs::write(path("program"), serialize(program, constants, inputs, results)).unwrap();
        let output = Command::new(path("emulator")).args([path("program"), path("result")]).output().unwrap();
        assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
        split(&path("result"), results.iter().map(|buffer| size_of_buffer(program, constants, *buffer)))
    }
}

/// Every kernel in a namespace, its definitions and its file's own taken back after it.
fn kernels(program: &Program) -> String {
    let mut text = String::new();
    for (number, kernel) in program.kernels.iter().enumerate() {
        let body = kernel.body();
        let _ = writeln!(text, "namespace k{number} {{\n{body}\n}}");
        let names = body.lines().filter_map(|line| line.strip_prefix("#define "));
        let names: BTreeSet<&str> = names.filter_map(|line| line.split([' ', '(']).next()).collect();
        names.iter().for_each(|name| writeln!(text, "#undef {name}").unwrap());
    }
    let entries = program.kernels.iter().enumerate().map(|(number, kernel)| format!("k{number}::{}", kernel.entry));
    let entries: Vec<String> = entries.collect();
    let _ = writeln!(text, "static void (*entries[])(const Args) = {{{}}};", entries.join(", "));
    text
}

fn number_of(constants: &[Vec<u8>], buffer: Buffer) -> usize {
    match buffer {
        Buffer::Constant(number) => number,
        Buffer::Work(number) => constants.len() + number,
    }
}

fn size_of_buffer(program: &Program, constants: &[Vec<u8>], buffer: Buffer) -> usize {
    match buffer {
        Buffer::Constant(number) => constants[number].len(),
        Buffer::Work(number) => program.work[number].bytes,
    }
}

/// Writes what `emulator.cpp` reads.
fn serialize(program: &Program, constants: &[Vec<u8>], inputs: &[(Buffer, Vec<u8>)], results: &[Buffer]) -> Vec<u8> {
    fn int(out: &mut Vec<u8>, value: usize) {
        out.extend(i32::try_from(value).unwrap().to_le_bytes());
    }
    fn long(out: &mut Vec<u8>, value: usize) {
        out.extend((value as u64).to_le_bytes());
    }
    let mut out = Vec::new();
    int(&mut out, constants.len() + program.work.len());
    let sizes = constants.iter().map(Vec::len).chain(program.work.iter().map(|work| work.bytes));
    sizes.for_each(|bytes| long(&mut out, bytes));
    let held =
        program.work.iter().enumerate().filter_map(|(at, work)| Some((constants.len() + at, work.contents.as_ref()?)));
    let given = inputs.iter().map(|(buffer, bytes)| (number_of(constants, *buffer), bytes));
    let contents: Vec<_> = constants.iter().enumerate().chain(held).chain(given).collect();
    int(&mut out, contents.len());
    for (number, bytes) in contents {
        int(&mut out, number);
        long(&mut out, bytes.len());
        out.extend(bytes);
    }
    int(&mut out, program.launches.len());
    for launch in &program.launches {
        int(&mut out, launch.kernel);
        launch.grid.iter().for_each(|&value| int(&mut out, value as usize));
        int(&mut out, launch.threads as usize);
        int(&mut out, launch.shared_bytes as usize);
        for pointer in launch.pointers {
            out.extend(pointer.map_or(u64::MAX, |buffer| number_of(constants, buffer) as u64).to_le_bytes());
        }
        launch.ints.iter().for_each(|value| out.extend(value.to_le_bytes()));
        launch.floats.iter().for_each(|value| out.extend(value.to_le_bytes()));
    }
    int(&mut out, results.len());
    results.iter().for_each(|buffer| int(&mut out, number_of(constants, *buffer)));
    out
}

fn split(path: &Path, sizes: impl Iterator<Item = usize>) -> Vec<Vec<u8>> {
    let mut bytes = std::fs::read(path).unwrap();
    let parts = sizes.map(|size| bytes.drain(..size).collect()).collect();
    assert!(bytes.is_empty());
    parts
}
