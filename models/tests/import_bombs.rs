//! Small files that would become large in memory: names, tensors and layers that a file says again and again.

use restyle_models::import::convert;

/// Elements of the storage that every entry refers to; 4 MiB.
const STORAGE_ELEMENTS: u32 = 1 << 20;
/// More memory than a refusal needs, less than the copies would take.
const MEMORY_MAX: u64 = 64 << 20;

/// Converts on this thread, whose memory is counted, and returns the refusal.
fn refusal(bytes: &[u8]) -> String {
    let mut said = String::new();
    let used = allocation_counter::measure(|| said = convert(bytes).unwrap_err().to_string());
    assert!(used.bytes_max < MEMORY_MAX, "{} bytes were held to refuse {} bytes: {said}", used.bytes_max, bytes.len());
    said
}

fn check(bytes: &[u8], says: &str) {
    let said = refusal(bytes);
    assert!(said.contains(says), "{said:?} does not say {says:?}");
    assert!(said.len() < 2000, "the refusal itself is long: {} bytes", said.len());
}

/// A text of a pickle (BINUNICODE).
fn text(said: &str) -> Vec<u8> {
    [b"X", &(said.len() as u32).to_le_bytes()[..], said.as_bytes()].concat()
}

fn int(value: u32) -> Vec<u8> {
    [b"J", &value.to_le_bytes()[..]].concat()
}

/// A pickle of protocol 2 around opcodes.
fn pickle(opcodes: &[Vec<u8>]) -> Vec<u8> {
    [&[0x80, 2][..], &opcodes.concat(), b"."].concat()
}

/// The opcodes of a tensor of `shape` at the front of storage 0.
fn tensor(shape: &[u32]) -> Vec<u8> {
    let tuple = |sides: &[u32]| [vec![b'('], sides.iter().flat_map(|side| int(*side)).collect(), vec![b't']].concat();
    let strides: Vec<u32> = (0..shape.len()).map(|at| shape[at + 1..].iter().product()).collect();
    [
        b"ctorch._utils\n_rebuild_tensor_v2\n(".to_vec(),
        [b"(".to_vec(), text("storage"), b"ctorch\nFloatStorage\n".to_vec(), text("0"), b"tQ".to_vec()].concat(),
        [int(0), tuple(shape), tuple(&strides), b"tR".to_vec()].concat(),
    ]
    .concat()
}

/// A legacy checkpoint whose state dictionary is `dict`, with `keys` as its list of storages and one storage of ones.
fn legacy(dict: &[Vec<u8>], keys: &[Vec<u8>]) -> Vec<u8> {
    let magic = [0x80, 2, 0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, b'.'];
    let (version, system) = (pickle(&[int(1001)]), pickle(&[b"}".to_vec()]));
    let storage = 1.0_f32.to_le_bytes().repeat(STORAGE_ELEMENTS as usize);
    let count = u64::from(STORAGE_ELEMENTS).to_le_bytes();
    [&magic[..], &version, &system, &pickle(dict), &pickle(keys), &count, &storage].concat()
}

/// A dictionary of `names`, each with the tensor that is kept once and recalled.
fn recalled(names: impl Iterator<Item = Vec<u8>>) -> Vec<Vec<u8>> {
    let head = [tensor(&[STORAGE_ELEMENTS]), b"q\x000}(".to_vec()].concat();
    let entries = names.map(|name| [&name[..], b"h\x00"].concat());
    [head].into_iter().chain(entries).chain([b"u".to_vec()]).collect()
}

fn one_key() -> Vec<Vec<u8>> {
    vec![b"](".to_vec(), text("0"), b"e".to_vec()]
}

#[test]
fn one_storage_under_many_names_is_refused() {
    let names = |count: u32| (0..count).map(|number| text(&format!("res{number}.conv1.conv2d.weight")));
    check(&legacy(&recalled(names(100)), &one_key()), "all tensors of a file together may have 67108864 elements");
    check(&legacy(&recalled(names(5000)), &one_key()), "5000 entries, expected at most 4096");
}

#[test]
fn one_storage_under_one_name_again_and_again_is_refused() {
    let names = std::iter::repeat_n(text("conv1.conv2d.weight"), 100);
    check(&legacy(&recalled(names), &one_key()), "tensor conv1.conv2d.weight of shape [1048576] is too large");
}

#[test]
fn a_long_text_that_is_recalled_is_refused() {
    // Each recall of the kept name would copy it.
    let long = "n".repeat(1 << 20);
    let kept = [text(&long), b"q\x010".to_vec()].concat();
    let mut dict = vec![kept.clone()];
    dict.extend(recalled(std::iter::repeat_n(b"h\x01".to_vec(), 4000)));
    check(&legacy(&dict, &one_key()), "a name of 1048576 bytes");
    let mut globals = vec![kept.clone()];
    globals.extend(std::iter::repeat_n(b"h\x01h\x01\x93".to_vec(), 4000));
    check(&legacy(&globals, &one_key()), "names something of Python with more than 256 bytes");
    let mut keys = vec![kept, b"](".to_vec()];
    keys.extend(std::iter::repeat_n(b"h\x01".to_vec(), 5000));
    keys.push(b"e".to_vec());
    let dict = [b"}(".to_vec(), text("conv1.conv2d.weight"), tensor(&[1]), b"u".to_vec()];
    check(&legacy(&dict, &keys), "5000 storages, expected at most 4096");
}

#[test]
fn a_tensor_of_many_dimensions_is_refused() {
    let dict = [b"}(".to_vec(), text("conv1.conv2d.weight"), tensor(&[1; 9]), b"u".to_vec()];
    check(&legacy(&dict, &one_key()), "at most 8 sizes");
}

/// A field of a protobuf message with bytes as its content.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut len = bytes.len();
    while len >= 0x80 {
        out.push(len as u8 | 0x80);
        len >>= 7;
    }
    out.push(len as u8);
    [&out, bytes].concat()
}

/// A weight of `sides`, each said in a field of its own, of zeros in single precision.
fn initializer(name: &str, sides: &[u8], elements: usize) -> Vec<u8> {
    let dims = sides.iter().flat_map(|side| [1 << 3, *side]).collect::<Vec<_>>();
    field(5, &[&dims, &[2 << 3, 1][..], &field(8, name.as_bytes()), &field(9, &vec![0; 4 * elements])].concat())
}

fn node(operation: &str, inputs: usize) -> Vec<u8> {
    let inputs: Vec<u8> = (0..inputs).flat_map(|_| field(1, b"w")).collect();
    field(1, &[inputs, field(4, operation.as_bytes())].concat())
}

/// A graph of so many convolutions, each with its norm but the last, all of one initializer of `elements`.
fn graph(convolutions: usize, elements: usize) -> Vec<u8> {
    let nodes = [node("Conv", 3).repeat(convolutions), node("InstanceNormalization", 3).repeat(convolutions - 1)];
    // 64 by 64 by 64 and so on: a side fits into one byte.
    let sides: Vec<u8> = std::iter::repeat_n(64, elements.ilog(64) as usize).collect();
    model(&[nodes.concat(), initializer("w", &sides, elements)].concat())
}

fn model(graph: &[u8]) -> Vec<u8> {
    [vec![1 << 3, 8], field(7, graph), field(8, b"")].concat()
}

#[test]
fn one_initializer_of_many_layers_is_refused() {
    check(&graph(100_000, 64), "more than 16384 nodes or tensors");
    check(&graph(6 + 2 * 65, 64), "65 residual blocks, expected at most 64");
    check(&graph(6 + 2 * 64, 64 * 64 * 64), "all tensors of a file together may have 67108864 elements");
}

#[test]
fn a_graph_of_many_tensors_is_refused() {
    let tensors: Vec<u8> = (0..20_000).flat_map(|number| initializer(&number.to_string(), &[], 1)).collect();
    check(&model(&tensors), "more than 16384 nodes or tensors");
}

#[test]
fn a_node_of_many_inputs_is_refused() {
    check(&model(&node("Concat", 1_000_000)), "more than 64 inputs");
}

#[test]
fn a_shape_of_many_sides_is_refused() {
    let tensor = initializer("w", &vec![1; 4_000_000], 1);
    check(&model(&tensor), "tensor w has 4 bytes, not those of its shape");
}
