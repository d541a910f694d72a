//! Bundles on disk: what may be replaced, what an interrupted export leaves, what opening refuses.

use photonc::bundle::{
    Bundle, BundleWriter, FORMAT, Layout, Manifest, ModelRecord, SourceRecord, WeightRecord, seal,
};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

const WEIGHTS: &str = "onnx/weights/model.safetensors";

/// Where the bytes of the one weight begin.
const DATA: u64 = 8 + 64;

fn manifest() -> Manifest {
    Manifest {
        format: FORMAT,
        photonc: "0".to_owned(),
        source: SourceRecord { files: BTreeMap::new(), dialect: "paper".to_owned() },
        model: ModelRecord {
            config: serde_json::json!({}),
            vocab_size: 8,
            meta_tokens: 4,
            max_tokens: 64,
            remainder: Default::default(),
        },
        precision: "f32".to_owned(),
        protocols: Default::default(),
        graphs: Default::default(),
        onnx: BTreeMap::new(),
        weight_files: BTreeMap::new(),
        weights: BTreeMap::new(),
        widened: BTreeMap::new(),
        quantized: BTreeMap::new(),
        carried: BTreeMap::new(),
    }
}

/// A bundle with one carried file and one weight of two elements.
fn write(target: &Path, replace: bool, text: &str) {
    let writer = BundleWriter::create(target, replace).expect("starts");
    let mut manifest = manifest();
    let carried = writer.put("tokenizer.json", text.as_bytes()).expect("writes");
    manifest.carried.insert("tokenizer.json".to_owned(), carried);
    let header = format!("{:<64}", r#"{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#);
    let mut weights = 64u64.to_le_bytes().to_vec();
    weights.extend(header.as_bytes());
    weights.extend([1.5f32, -2.0].iter().flat_map(|value| value.to_le_bytes()));
    let record = writer.put(WEIGHTS, &weights).expect("writes");
    manifest.weight_files.insert(WEIGHTS.to_owned(), record);
    let weight = WeightRecord {
        file: WEIGHTS.to_owned(),
        tensor: "w".to_owned(),
        dtype: "f32".to_owned(),
        shape: vec![2],
        offset_bytes: DATA,
        length_bytes: 8,
    };
    manifest.weights.insert("w".to_owned(), weight);
    writer.commit(&manifest).expect("commits");
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .expect("lists")
        .map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort_unstable();
    names
}

fn carried(target: &Path) -> String {
    let bundle = Bundle::open(target).expect("opens");
    let (_, bytes) = bundle.carried("tokenizer.json").expect("reads").expect("is carried");
    String::from_utf8(bytes).expect("text")
}

struct Place {
    _directory: tempfile::TempDir,
    parent: PathBuf,
    target: PathBuf,
}

fn place() -> Place {
    let directory = tempfile::tempdir().expect("directory");
    let parent = directory.path().to_owned();
    let target = parent.join("model.bundle");
    Place { _directory: directory, parent, target }
}

#[test]
fn a_bundle_is_read_back_and_equal_input_gives_equal_bytes() {
    let (a, b) = (place(), place());
    for place in [&a, &b] {
        write(&place.target, false, "{}");
        assert_eq!(names(&place.parent), ["model.bundle"]);
    }
    let bundle = Bundle::open(&a.target).expect("opens");
    assert_eq!(bundle.weight("w").expect("reads").as_floats(), Some(&[1.5, -2.0][..]));
    let text = |place: &Place| fs::read(place.target.join(Layout::MANIFEST)).expect("reads");
    assert_eq!(text(&a), text(&b));
}

/// Nobody waits for a pipe or reads a device to its end to learn whether a bundle is there.
#[test]
fn what_is_no_file_is_no_manifest() {
    let Place { parent, target: _, _directory } = place();
    for device in ["/dev/zero", "/dev/tty"] {
        let other = parent.join(device.replace('/', "-"));
        fs::create_dir(&other).expect("creates");
        std::os::unix::fs::symlink(device, other.join(Layout::MANIFEST)).expect("links");
        let error = BundleWriter::create(&other, true).expect_err("is no bundle");
        assert!(error.to_string().contains("not a manifest"), "{error}");
    }
}

#[test]
fn only_a_bundle_given_up_is_replaced() {
    let Place { parent, target, _directory } = place();
    write(&target, false, "old");
    let error = BundleWriter::create(&target, false).expect_err("is there");
    assert!(error.to_string().contains("--force"), "{error}");
    write(&target, true, "new");
    assert_eq!(carried(&target), "new");
    assert_eq!(names(&parent), ["model.bundle"]);

    for (name, reason) in [("notes", "without photon.json"), ("file", "a file"), ("json", "not a manifest")] {
        let other = parent.join(name);
        if name == "file" {
            fs::write(&other, "precious").expect("writes");
        } else {
            fs::create_dir(&other).expect("creates");
            let inside = if name == "json" { Layout::MANIFEST } else { "precious" };
            fs::write(other.join(inside), "[]").expect("writes");
        }
        let error = BundleWriter::create(&other, true).expect_err("is no bundle");
        assert!(error.to_string().contains(reason), "{error}");
        assert!(other.exists());
    }
}

#[test]
fn a_writer_given_up_leaves_the_old_bundle_and_nothing_else() {
    let Place { parent, target, _directory } = place();
    write(&target, false, "old");
    let writer = BundleWriter::create(&target, true).expect("starts");
    writer.put("tokenizer.json", b"half").expect("writes");
    assert_eq!(carried(&target), "old");
    drop(writer);
    assert_eq!(names(&parent), ["model.bundle"]);
    assert_eq!(carried(&target), "old");
}

// A killed run cannot clean up; its lock is free, so the next run does. A living run's directory stays.
#[test]
fn leftovers_of_killed_runs_go_and_living_runs_stay() {
    let Place { parent, target, _directory } = place();
    let abandoned = parent.join(".model.bundle.photonc-new.abc");
    fs::create_dir(&abandoned).expect("creates");
    fs::write(abandoned.join("half"), "half").expect("writes");
    let living = BundleWriter::create(&target, false).expect("starts");
    assert!(!abandoned.exists());
    let second = BundleWriter::create(&target, false).expect("starts");
    assert_eq!(names(&parent).len(), 2);
    drop((living, second));
    assert!(names(&parent).is_empty());
}

// Where directories cannot be exchanged, the old bundle waits under another name; an end in between is put right.
#[test]
fn an_interrupted_swap_is_put_right() {
    let Place { parent, target, _directory } = place();
    write(&target, false, "old");
    fs::rename(&target, parent.join(".model.bundle.photonc-old")).expect("renames");
    drop(BundleWriter::create(&target, true).expect("starts"));
    assert_eq!(carried(&target), "old");
    assert_eq!(names(&parent), ["model.bundle"]);
}

// Between the two renames a reader finds the old bundle where it waits.
#[test]
fn a_reader_between_two_renames_finds_a_bundle() {
    let Place { parent, target, _directory } = place();
    write(&target, false, "old");
    fs::rename(&target, parent.join(".model.bundle.photonc-old")).expect("renames");
    assert!(photonc::bundle::is_bundle(&target));
    assert_eq!(carried(&target), "old");
}

// A folder that could not be renamed is emptied and filled: killed in the first half, it gets its contents back, killed in the
// second, the rest of the new ones. Meanwhile nobody reads a mixture.
#[test]
fn an_interrupted_filling_is_put_right() {
    let Place { target, _directory, .. } = place();
    for (mark, expected) in [(".photonc-old", "old"), (".photonc-moved", "new")] {
        let _ = fs::remove_dir_all(&target);
        write(&target, false, "old");
        let staged = target.join(".photonc-new.x");
        write(&staged, false, "new");
        fs::create_dir(staged.join(mark)).expect("creates");
        // Emptied but for one file, or emptied and filled with one.
        fs::rename(target.join(Layout::MANIFEST), staged.join(mark).join(Layout::MANIFEST)).expect("renames");
        if mark == ".photonc-moved" {
            for name in ["tokenizer.json", "onnx"] {
                fs::rename(target.join(name), staged.join(mark).join(name)).expect("renames");
            }
            fs::rename(staged.join("tokenizer.json"), target.join("tokenizer.json")).expect("renames");
        }
        assert!(message(&target).contains("because it is being replaced"), "{}", message(&target));
        drop(BundleWriter::create(&target, true).expect("starts"));
        assert_eq!(carried(&target), expected);
        assert_eq!(names(&target), ["onnx", Layout::MANIFEST, "tokenizer.json"]);
    }
}

// Somebody else's bundle came after the check: nothing is lost.
#[test]
fn a_bundle_that_came_meanwhile_is_not_replaced() {
    let Place { parent, target, _directory } = place();
    let first = BundleWriter::create(&target, false).expect("starts");
    first.put("tokenizer.json", b"first").expect("writes");
    write(&target, false, "second");
    let error = first.commit(&manifest()).expect_err("is there");
    assert!(error.to_string().contains("a bundle is there already"), "{error}");
    assert_eq!(carried(&target), "second");
    assert_eq!(names(&parent), ["model.bundle"]);
}

// Folders that may not be changed are in nobody's way.
#[test]
fn a_read_only_bundle_is_replaced_and_removed() {
    use std::os::unix::fs::PermissionsExt as _;
    let Place { parent, target, _directory } = place();
    write(&target, false, "old");
    for folder in [target.join("onnx/weights"), target.join("onnx"), target.clone()] {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o555)).expect("sets");
    }
    write(&target, true, "new");
    assert_eq!(carried(&target), "new");
    assert_eq!(names(&parent), ["model.bundle"]);
}

#[test]
fn names_that_lead_out_are_refused() {
    let Place { target, _directory, .. } = place();
    let writer = BundleWriter::create(&target, false).expect("starts");
    for name in ["../evil", "/evil", "a/../../evil", ""] {
        assert!(writer.put(name, b"").is_err(), "{name}");
    }
    drop(writer);
    write(&target, false, "x");
    edit(&target, "\"file\": \"tokenizer.json\"", "\"file\": \"../../tokenizer.json\"");
    assert!(message(&target).contains("is not a path inside the bundle"));
}

fn edit(target: &Path, from: &str, to: &str) {
    let path = target.join(Layout::MANIFEST);
    let text = fs::read_to_string(&path).expect("reads");
    assert!(text.contains(from), "{text}");
    // As whoever changes more than a bit would do it: the hash of the manifest is that of the new one.
    let body = text.replace(from, to);
    let body = body.rsplit_once("  \"blake3\"").expect("is sealed").0.trim_end().trim_end_matches(',');
    fs::write(&path, seal(&format!("{body}\n}}"))).expect("writes");
}

fn message(target: &Path) -> String {
    Bundle::open(target).expect_err("refused").to_string()
}

#[test]
fn damaged_bundles_are_refused_with_the_file_and_the_reason() {
    let Place { target, _directory, parent } = place();
    assert!(message(&parent).contains("so it is not a bundle"));
    let fresh = || {
        let _ = fs::remove_dir_all(&target);
        write(&target, false, "x");
    };
    fresh();
    edit(&target, "\"format\": 2", "\"format\": 999");
    assert!(message(&target).contains("bundle format 999"));
    fresh();
    fs::write(target.join("tokenizer.json"), "y").expect("writes");
    assert!(message(&target).contains("tokenizer.json: contents differ"));
    fresh();
    File::options().write(true).open(target.join(WEIGHTS)).expect("opens").set_len(4).expect("cuts");
    assert!(message(&target).contains("4 bytes where 80 were expected"));
    fresh();
    edit(&target, "\"offset_bytes\": 72", "\"offset_bytes\": 70");
    assert!(
        message(&target)
            .contains("weight `w`: 8 bytes at 70, `onnx/weights/model.safetensors` has it in 8 bytes at 72")
    );
    fresh();
    edit(&target, "\"length_bytes\": 8", "\"length_bytes\": 80000000000");
    assert!(message(&target).contains("weight `w`"));
    fresh();
    edit(&target, "\"bytes\": 1,", "\"bytes\": 2,");
    assert!(message(&target).contains("tokenizer.json: 1 bytes where 2 were expected"));
    fresh();
    edit(&target, "\"max_tokens\": 64", "\"max_tokens\": 3");
    assert!(message(&target).contains("`max_tokens` is 3, a meta-context alone has 4"));
    fresh();
    edit(&target, "\"config\": {}", "\"config\": \"none\"");
    assert!(message(&target).contains("`model.config` is no object"));
    fresh();
    let manifest = target.join(Layout::MANIFEST);
    let text = fs::read_to_string(&manifest).expect("reads");
    fs::write(&manifest, text.replace("\"max_tokens\": 64", "\"max_tokens\": 65")).expect("writes");
    assert!(message(&target).contains("photon.json: was changed after it was written"));
}

// One bit of the weights changes tokens without any other sign.
#[test]
fn a_flipped_bit_of_the_weights_is_refused_on_opening() {
    let Place { target, _directory, .. } = place();
    write(&target, false, "x");
    File::options()
        .write(true)
        .open(target.join(WEIGHTS))
        .expect("opens")
        .write_at(&[9], DATA)
        .expect("writes");
    assert!(message(&target).contains("model.safetensors: contents differ from the manifest (BLAKE3"));
    let bundle = Bundle::open_unverified(&target).expect("hashes of weights are not compared");
    assert!(bundle.verify_weights().expect_err("differs").to_string().contains("BLAKE3"));
}

// A pipe would be waited for, a device has no end; neither is a file of a bundle.
#[cfg(target_os = "linux")]
#[test]
fn what_is_no_file_is_refused_and_not_waited_for() {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    for name in [Layout::MANIFEST, "tokenizer.json", WEIGHTS] {
        for kind in ["pipe", "device", "folder"] {
            let Place { target, _directory, .. } = place();
            write(&target, false, "x");
            let path = target.join(name);
            fs::remove_file(&path).expect("removes");
            match kind {
                "pipe" => mknodat(CWD, &path, FileType::Fifo, Mode::RUSR, 0).expect("makes a pipe"),
                "device" => std::os::unix::fs::symlink("/dev/zero", &path).expect("links"),
                _ => fs::create_dir(&path).expect("creates"),
            }
            let found = message(&target);
            assert!(found.contains("not a regular file") && found.contains(name), "{name} {kind}: {found}");
        }
    }
}

// As the cache of a model hub keeps them: every file is a link into a folder of contents.
#[test]
fn a_bundle_of_links_is_a_bundle() {
    let Place { target, parent, _directory } = place();
    write(&target, false, "x");
    let contents = parent.join("blobs");
    fs::create_dir(&contents).expect("creates");
    for (at, name) in [Layout::MANIFEST, "tokenizer.json", WEIGHTS].into_iter().enumerate() {
        fs::rename(target.join(name), contents.join(at.to_string())).expect("moves");
        std::os::unix::fs::symlink(contents.join(at.to_string()), target.join(name)).expect("links");
    }
    assert_eq!(carried(&target), "x");
    assert_eq!(Bundle::open(&target).expect("opens").weight("w").expect("reads").shape, [2]);
}

// What was opened is read, whatever stands there by now; a path tells the difference.
#[test]
fn a_reader_keeps_the_bundle_it_opened() {
    let Place { target, _directory, .. } = place();
    write(&target, false, "old");
    let bundle = Bundle::open(&target).expect("opens");
    bundle.in_place().expect("nothing has happened");
    write(&target, true, "new");
    let (_, bytes) = bundle.carried("tokenizer.json").expect("reads").expect("is carried");
    assert_eq!(bytes, b"old");
    assert_eq!(bundle.weight("w").expect("reads").as_floats(), Some(&[1.5, -2.0][..]));
    let error = bundle.in_place().expect_err("is another").to_string();
    assert!(error.contains("was replaced or changed while in use"), "{error}");
}

// Written over where it stands, a file is neither the old one nor the new one.
#[test]
fn a_file_that_changes_while_in_use_is_refused() {
    let Place { target, _directory, .. } = place();
    write(&target, false, "x");
    let bundle = Bundle::open(&target).expect("opens");
    let file = File::options().write(true).open(target.join(WEIGHTS)).expect("opens");
    file.write_at(&[9], DATA).expect("writes");
    file.set_modified(std::time::SystemTime::UNIX_EPOCH).expect("sets the time");
    let error = bundle.weight("w").expect_err("has changed").to_string();
    assert!(error.contains("was replaced or changed while in use"), "{error}");
}

// The copy shows every byte once, in order, and stops where the check refuses or the source ends early.
#[test]
fn copies_are_whole_checked_and_hashed() {
    let Place { target, parent, _directory } = place();
    let path = parent.join("source");
    let bytes: Vec<u8> = (0..20_000_003u32).map(|i| (i % 251) as u8).collect();
    File::create(&path).expect("creates").write_all(&bytes).expect("writes");
    let source = File::open(&path).expect("opens");
    let writer = BundleWriter::create(&target, false).expect("starts");
    let seen = std::sync::Mutex::new((0u64, 0u64));
    let mut file = writer.file("weights/copy").expect("starts");
    file.copy(&source, &path, bytes.len() as u64, |offset, piece| {
        let mut seen = seen.lock().expect("lock");
        assert_eq!(seen.0, offset);
        seen.0 += piece.len() as u64;
        seen.1 += piece.iter().map(|byte| u64::from(*byte)).sum::<u64>();
        Ok(())
    })
    .expect("copies");
    let record = file.finish().expect("finishes");
    assert_eq!(record.blake3, photonc::bundle::Blake3::of(&bytes));
    assert_eq!(record.bytes, bytes.len() as u64);
    assert_eq!(fs::read(writer.staged("weights/copy").expect("inside")).expect("reads"), bytes);
    let sum: u64 = bytes.iter().map(|byte| u64::from(*byte)).sum();
    assert_eq!(seen.into_inner().expect("lock"), (bytes.len() as u64, sum));

    let mut cut = writer.file("weights/cut").expect("starts");
    let error = cut.copy(&source, &path, bytes.len() as u64 + 1, |_, _| Ok(())).expect_err("is shorter");
    assert!(error.to_string().contains("20000003 bytes where 20000004 were expected"), "{error}");
}
