//! Files that a user names for a result and that are no bundle. Owns what may become of what stands there: devices and pipes are
//! written to, links are followed, files of others are left as they are, and no file is ever seen half written.

use super::report::path_text;
use super::{Failure, stdout};
use crate::staging::{Begun, undisturbed};
use rustix::fs::{FlockOperation, OFlags, flock};
use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Bytes of a file, at most, by which it is known whose it is.
const PART_BYTES: u64 = 64 << 10;
/// Last line of pictures that photonc draws.
const PICTURE_MARK: &str = "<!-- drawn by photonc -->\n";
/// How long a pipe without a reader is waited for.
const READER_COMES_WITHIN: Duration = Duration::from_secs(3);
/// Links that are followed.
const MOST_LINKS: usize = 40;

/// What is written, and so which files may be written over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A safetensors file whose one tensor is `logits`.
    Logits,
    /// An SVG picture.
    Picture,
    /// Anything: the user said that the file may go.
    Anything,
}

/// Where a path leads.
#[derive(Debug)]
pub enum Destination {
    /// To standard output.
    Stdout,
    /// To a device or a pipe, which is written to as it is.
    Stream(PathBuf),
    /// To a file, or to where one will be, links followed.
    File(PathBuf, Option<Metadata>),
}

/// A file that will be written whole. Dropping it leaves what was there.
#[derive(Debug)]
pub struct Output {
    path: PathBuf,
    kind: Kind,
    way: Way,
}

#[derive(Debug)]
enum Way {
    Stdout,
    Stream(File),
    Aside(Aside),
    /// The file itself, where it has several names or nothing may be made beside it.
    InPlace(File),
}

/// A locked file beside the target, which takes its place.
#[derive(Debug)]
struct Aside {
    target: PathBuf,
    path: PathBuf,
    file: File,
    /// Whether it is still beside.
    waits: bool,
    _begun: Begun,
}

impl Output {
    /// Makes sure that `path` can be written, before the work; `what` is its name in errors: `the plot`.
    pub fn claim(path: &Path, kind: Kind, what: &str) -> Result<Self, Failure> {
        let failed = |cause: &dyn std::fmt::Display| refused(path, what, cause);
        let way = match destination(path).map_err(|error| failed(&error))? {
            Destination::Stdout => Way::Stdout,
            Destination::Stream(stream) => Way::Stream(open_stream(&stream).map_err(|error| failed(&error))?),
            Destination::File(target, there) => {
                let foreign = there.is_some() && !kind.owns(&target).map_err(|error| failed(&error))?;
                if foreign {
                    let cause =
                        "is there already and was not written for this; photonc replaces only its own files";
                    return Err(failed(&cause));
                }
                Way::to(target, there).map_err(|error| failed(&told(error)))?
            }
        };
        Ok(Output { path: path.to_owned(), kind, way })
    }

    /// Writes the contents.
    pub fn write(self, bytes: &[u8], what: &str) -> Result<(), Failure> {
        let Output { path, kind, way } = self;
        let mark = if kind == Kind::Picture { PICTURE_MARK.as_bytes() } else { &[] };
        way.write(bytes, mark).map_err(|error| refused(&path, what, &error))
    }
}

fn refused(path: &Path, what: &str, cause: &dyn std::fmt::Display) -> Failure {
    let title = format!("{what} cannot be written");
    Failure::input(&title, &format_args!("{}: {cause}", path.display()))
        .help("make room or name another file")
}

impl Kind {
    /// Whether a file is of this kind, or empty.
    fn owns(self, path: &Path) -> io::Result<bool> {
        if self == Kind::Anything {
            return Ok(true);
        }
        let mut file = File::open(path)?;
        let bytes = file.metadata()?.len();
        if self == Kind::Picture {
            file.seek(SeekFrom::Start(bytes.saturating_sub(PICTURE_MARK.len() as u64)))?;
        }
        let mut part = Vec::new();
        file.take(PART_BYTES).read_to_end(&mut part)?;
        Ok(bytes == 0
            || match self {
                Kind::Logits => holds_logits(&part),
                Kind::Picture => part == PICTURE_MARK.as_bytes(),
                Kind::Anything => true,
            })
    }
}

/// Whether that is the header of a safetensors file with the tensor `logits` alone.
fn holds_logits(head: &[u8]) -> bool {
    let Some((length, rest)) = head.split_first_chunk() else { return false };
    let header = usize::try_from(u64::from_le_bytes(*length)).ok().and_then(|length| rest.get(..length));
    let header = header.and_then(|text| serde_json::from_slice::<serde_json::Value>(text).ok());
    header.and_then(|header| Some(header.as_object()?.keys().all(|name| name == "logits"))).unwrap_or(false)
}

impl Way {
    fn to(target: PathBuf, there: Option<Metadata>) -> io::Result<Self> {
        if there.as_ref().is_some_and(|meta| meta.nlink() > 1) {
            return in_place(&target).map(Way::InPlace);
        }
        match aside(&target) {
            Ok((path, file)) => {
                let _begun = Begun::file(path.clone());
                if let Some(there) = there {
                    // As it was; where that cannot be, as a new file of the user's.
                    let _ = file.set_permissions(Permissions::from_mode(there.mode() & 0o7777));
                    let _ = std::os::unix::fs::fchown(&file, Some(there.uid()), Some(there.gid()));
                }
                Ok(Way::Aside(Aside { target, path, file, waits: true, _begun }))
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock || is_full_or_fails(&error) => Err(error),
            Err(_) if there.is_some() => in_place(&target).map(Way::InPlace),
            Err(error) => Err(error),
        }
    }

    fn write(self, bytes: &[u8], mark: &[u8]) -> io::Result<()> {
        match self {
            Way::Stdout => stdout::bytes(&[bytes, mark].concat()),
            Way::Stream(mut stream) => stream.write_all(bytes).and_then(|()| stream.write_all(mark)),
            Way::InPlace(file) => over(file, bytes, mark),
            Way::Aside(aside) => aside.write(bytes, mark),
        }
    }
}

impl Aside {
    fn write(mut self, bytes: &[u8], mark: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.file.write_all(mark)?;
        self.file.sync_all()?;
        match undisturbed(|| fs::rename(&self.path, &self.target)) {
            Ok(()) => {
                self.waits = false;
                Ok(())
            }
            // Something is mounted on the file alone.
            Err(error) if matches!(error.kind(), ErrorKind::ResourceBusy | ErrorKind::CrossesDevices) => {
                over(in_place(&self.target)?, bytes, mark)
            }
            Err(error) => Err(error),
        }
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if self.waits {
            // Work that failed leaves nothing; what cannot be removed is taken over by the next run.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Whether a device or the process has no room, or the device fails: what is written over there may be lost.
fn is_full_or_fails(error: &io::Error) -> bool {
    use rustix::io::Errno;
    matches!(
        Errno::from_io_error(error),
        Some(Errno::NOSPC | Errno::DQUOT | Errno::IO | Errno::MFILE | Errno::NFILE)
    )
}

/// Writes over a file from its beginning.
fn over(mut file: File, bytes: &[u8], mark: &[u8]) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(bytes)?;
    file.write_all(mark)?;
    file.sync_all()
}

/// A fresh, locked file beside `target`; one that an interrupted run left is taken over.
fn aside(target: &Path) -> io::Result<(PathBuf, File)> {
    let mut name = std::ffi::OsString::from(".");
    name.push(target.file_name().unwrap_or_default());
    name.push(".photonc-part");
    let path = target.with_file_name(name);
    let file = locked(&path, OpenOptions::new().write(true).create(true))?;
    match file.set_len(0) {
        Ok(()) => Ok((path, file)),
        Err(error) => {
            // It is this run's alone, by its lock.
            let _ = fs::remove_file(&path);
            Err(error)
        }
    }
}

fn in_place(target: &Path) -> io::Result<File> {
    locked(target, OpenOptions::new().write(true))
}

/// Opens a file and keeps others out for as long as it is open.
///
/// # Errors
/// The system's; `WouldBlock` where another run writes it.
pub fn locked(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let no_follow = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or(0);
    loop {
        let file = options.custom_flags(no_follow).open(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(ErrorKind::WouldBlock.into()),
            // A file system without locks.
            Err(_) => return Ok(file),
        }
        // The one who had it may have moved it away.
        match fs::symlink_metadata(path) {
            Ok(there) if same(&there, &file.metadata()?) => return Ok(file),
            _ => {}
        }
    }
}

/// In words for people where it is about a lock.
pub fn told(error: io::Error) -> io::Error {
    match error.kind() {
        ErrorKind::WouldBlock => io::Error::other("another run is writing it"),
        _ => error,
    }
}

/// Whether both are one file.
pub fn same(one: &Metadata, other: &Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

/// Opens a device or a pipe for writing. A pipe that nobody reads is waited for a while.
///
/// # Errors
/// The system's; `TimedOut` where nobody comes to read.
pub fn open_stream(path: &Path) -> io::Result<File> {
    let is_pipe = fs::metadata(path)?.file_type().is_fifo();
    let flags = OFlags::NOCTTY | if is_pipe { OFlags::NONBLOCK } else { OFlags::empty() };
    let mut options = OpenOptions::new();
    options.append(true).custom_flags(i32::try_from(flags.bits()).unwrap_or(0));
    let began = Instant::now();
    let stream = loop {
        match options.open(path) {
            Err(error)
                if rustix::io::Errno::from_io_error(&error) == Some(rustix::io::Errno::NXIO) && is_pipe =>
            {
                if began.elapsed() > READER_COMES_WITHIN {
                    return Err(io::Error::new(ErrorKind::TimedOut, "is a pipe that nobody reads"));
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            opened => break opened?,
        }
    };
    let flags = rustix::fs::fcntl_getfl(&stream)?;
    rustix::fs::fcntl_setfl(&stream, flags - OFlags::NONBLOCK)?;
    Ok(stream)
}

/// Follows a path.
///
/// # Errors
/// It leads to a folder, a disk, or nowhere.
pub fn destination(path: &Path) -> io::Result<Destination> {
    let there = match fs::metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let target = followed(path)?;
            let folder = target.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
            return match folder.is_dir() && target.file_name().is_some() && !path_text(path).ends_with('/') {
                true => Ok(Destination::File(target, None)),
                false => Err(error),
            };
        }
        Err(error) => return Err(error),
    };
    if there.is_dir() {
        return Err(ErrorKind::IsADirectory.into());
    }
    if there.file_type().is_block_device() {
        return Err(io::Error::other("is a disk, and what is on it is not photonc's"));
    }
    let stdout = rustix::stdio::stdout();
    let is_stdout = rustix::fs::fstat(stdout)
        .is_ok_and(|stdout| (stdout.st_dev, stdout.st_ino) == (there.dev(), there.ino()));
    if is_stdout {
        return Ok(Destination::Stdout);
    }
    if !there.is_file() || of_a_process(path) {
        return Ok(Destination::Stream(path.to_owned()));
    }
    Ok(Destination::File(path.canonicalize()?, Some(there)))
}

/// Where the links of a path that leads to nothing yet end.
fn followed(path: &Path) -> io::Result<PathBuf> {
    let mut target = path.to_owned();
    for _ in 0..MOST_LINKS {
        match target.read_link() {
            Ok(aim) => target = target.parent().unwrap_or(Path::new("")).join(aim),
            Err(_) => return Ok(target),
        }
    }
    Err(io::Error::other("too many links"))
}

/// Whether a path is a process's own name for a file that is open, as `/dev/fd/3`: it is written to where it stands.
fn of_a_process(path: &Path) -> bool {
    let mut link = path.to_owned();
    for _ in 0..MOST_LINKS {
        let folder = link.parent().and_then(|folder| folder.canonicalize().ok());
        if folder.is_some_and(|folder| folder.starts_with("/proc")) {
            return true;
        }
        match link.read_link() {
            Ok(aim) => link = link.parent().unwrap_or(Path::new("")).join(aim),
            Err(_) => return false,
        }
    }
    false
}
