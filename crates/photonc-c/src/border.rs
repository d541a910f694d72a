//! What every function does at the border: panics become statuses, errors are kept as text for the thread, structures are read
//! and written by the size that the caller knows.

use photonc_core::api::{Error, ErrorKind};
use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What became of a call.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum photonc_status {
    /// It is done.
    PHOTONC_OK = 0,
    /// A checkpoint or a bundle cannot be read, or is not what it says.
    PHOTONC_CHECKPOINT_ERROR = 1,
    /// What was asked for cannot be met.
    PHOTONC_REFUSED = 2,
    /// A library, a device or a graph failed.
    PHOTONC_BACKEND_ERROR = 3,
    /// The work was cancelled, or the model was closed.
    PHOTONC_CANCELLED = 4,
    /// An argument is null where it may not be, no UTF-8, or of a size that this version does not know.
    PHOTONC_ARGUMENT_ERROR = 5,
    /// The caller's memory is too small; how much is needed has been written.
    PHOTONC_TOO_SMALL = 6,
    /// A bug of photonc.
    PHOTONC_INTERNAL_ERROR = 7,
}

use photonc_status as Status;

/// Why a call failed.
pub struct Failed {
    status: Status,
    message: String,
}

impl Failed {
    /// An argument that cannot be read.
    pub fn argument(message: impl Into<String>) -> Self {
        Failed { status: Status::PHOTONC_ARGUMENT_ERROR, message: message.into() }
    }

    /// Memory of the caller that has room for `room` where `needed` are.
    pub fn too_small(what: &str, needed: usize, room: usize) -> Self {
        let message = format!("{what}: {needed} are needed, and there is room for {room}");
        Failed { status: Status::PHOTONC_TOO_SMALL, message }
    }
}

impl From<Error> for Failed {
    fn from(Error { kind, message }: Error) -> Self {
        let status = match kind {
            ErrorKind::Checkpoint => Status::PHOTONC_CHECKPOINT_ERROR,
            ErrorKind::Refused => Status::PHOTONC_REFUSED,
            ErrorKind::Backend => Status::PHOTONC_BACKEND_ERROR,
            ErrorKind::Cancelled => Status::PHOTONC_CANCELLED,
            ErrorKind::Internal => Status::PHOTONC_INTERNAL_ERROR,
        };
        Failed { status, message }
    }
}

thread_local! {
    static LAST: RefCell<CString> = RefCell::default();
}

/// Why the last call of this thread failed, in UTF-8; empty if none has. It stays until this thread's next call that fails.
#[unsafe(no_mangle)]
pub extern "C" fn photonc_last_error() -> *const c_char {
    LAST.try_with(|last| last.borrow().as_ptr()).unwrap_or(c"".as_ptr())
}

/// Text without the zero bytes that C cannot hold.
pub fn c_text(text: &str) -> CString {
    CString::new(text.replace('\0', "\u{fffd}")).expect("invariant: the zero bytes are replaced")
}

/// Does the work of a call: what goes wrong is kept for [`photonc_last_error`], a panic too.
pub fn call(work: impl FnOnce() -> Result<(), Failed>) -> photonc_status {
    let done = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|payload| {
        let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default();
        let message = format!("photonc panicked, which is a bug of it: {text}");
        Err(Failed { status: Status::PHOTONC_INTERNAL_ERROR, message })
    });
    match done {
        Ok(()) => Status::PHOTONC_OK,
        Err(Failed { status, message }) => {
            // A thread that ends has nobody who asks.
            let _gone = LAST.try_with(|last| *last.borrow_mut() = c_text(&message));
            status
        }
    }
}

/// Frees something; a panic on the way ends here.
pub fn free<T>(pointer: *mut T) {
    if pointer.is_null() {
        return;
    }
    // SAFETY: handles are boxes that `give` made, and the header says that each is freed once.
    let owned = unsafe { Box::from_raw(pointer) };
    let _panicked = catch_unwind(AssertUnwindSafe(move || drop(owned)));
}

/// Hands a value to the caller, who frees it.
///
/// # Safety
/// `out` is null or can be written.
pub unsafe fn give<T>(out: *mut *mut T, value: T) -> Result<(), Failed> {
    // SAFETY: the caller's promise.
    unsafe { put(out, Box::into_raw(Box::new(value))) }
}

/// Writes a value where the caller wants it.
///
/// # Safety
/// `out` is null or can be written.
pub unsafe fn put<T>(out: *mut T, value: T) -> Result<(), Failed> {
    if out.is_null() {
        return Err(Failed::argument("an out-parameter is null"));
    }
    // SAFETY: it is not null, so it can be written.
    unsafe { out.write(value) };
    Ok(())
}

/// A handle of the caller's.
///
/// # Safety
/// `pointer` is null or a handle that lives for `'a`.
pub unsafe fn handle<'a, T>(what: &str, pointer: *const T) -> Result<&'a T, Failed> {
    // SAFETY: the caller's promise.
    unsafe { pointer.as_ref() }.ok_or_else(|| Failed::argument(format!("{what} is null")))
}

/// A text of the caller's.
///
/// # Safety
/// `pointer` is null or a text that ends with a zero byte and lives for `'a`.
pub unsafe fn text<'a>(what: &str, pointer: *const c_char) -> Result<&'a str, Failed> {
    if pointer.is_null() {
        return Err(Failed::argument(format!("{what} is null")));
    }
    // SAFETY: it is not null, so it is a text.
    let bytes = unsafe { CStr::from_ptr(pointer) };
    bytes.to_str().map_err(|_| Failed::argument(format!("{what} is no UTF-8")))
}

/// The same where null stands for nothing.
///
/// # Safety
/// As [`text`].
pub unsafe fn text_or_none<'a>(what: &str, pointer: *const c_char) -> Result<Option<&'a str>, Failed> {
    // SAFETY: the caller's promise.
    if pointer.is_null() { Ok(None) } else { unsafe { text(what, pointer) }.map(Some) }
}

/// Elements of the caller's.
///
/// # Safety
/// `pointer` is null, or `count` elements stand there and live for `'a`.
pub unsafe fn list<'a, T>(what: &str, pointer: *const T, count: usize) -> Result<&'a [T], Failed> {
    match (count, pointer.is_null()) {
        (0, _) => Ok(&[]),
        (_, true) => {
            Err(Failed::argument(format!("{what} is null, and {count} elements are said to be there")))
        }
        // SAFETY: it is not null, so the elements are there.
        (_, false) => Ok(unsafe { std::slice::from_raw_parts(pointer, count) }),
    }
}

/// Writes elements into the caller's memory, and how many there are.
///
/// # Safety
/// `out` is null or has room for `capacity` elements; `count` is null or can be written.
pub unsafe fn fill<T: Copy>(
    what: &str,
    values: &[T],
    (out, capacity): (*mut T, usize),
    count: *mut usize,
) -> Result<(), Failed> {
    // SAFETY: the caller's promise.
    unsafe { put(count, values.len()) }?;
    if values.len() > capacity {
        return Err(Failed::too_small(what, values.len(), capacity));
    }
    if !values.is_empty() {
        if out.is_null() {
            return Err(Failed::argument(format!("the memory for {what} is null")));
        }
        // SAFETY: there is room for `capacity`, which is no less; memory of ours and the caller's do not overlap.
        unsafe { std::ptr::copy_nonoverlapping(values.as_ptr(), out, values.len()) };
    }
    Ok(())
}

/// A structure that begins with its size.
///
/// # Safety
/// The type has the layout of C, begins with a `u32`, and any bytes of its other fields are values of theirs.
pub unsafe trait Versioned: Copy {}

/// A structure of the caller's over `base`, which has what the caller's version lacks; null is `base`.
///
/// # Safety
/// `pointer` is null, or as many bytes stand there as the first of its fields says.
pub unsafe fn read<T: Versioned>(what: &str, pointer: *const T, base: T) -> Result<T, Failed> {
    if pointer.is_null() {
        return Ok(base);
    }
    let known = size_of::<T>();
    // SAFETY: the type begins with its size, which stands there.
    let size = unsafe { pointer.cast::<u32>().read_unaligned() } as usize;
    if size < size_of::<u32>() {
        return Err(Failed::argument(format!(
            "struct_size of {what} is {size}: initialise it with its function"
        )));
    }
    let mut read = base;
    // SAFETY: `size` bytes stand there; no more than `known` of them are written, and any bytes are values of the type.
    let rest = unsafe {
        let bytes = std::slice::from_raw_parts(pointer.cast::<u8>(), size);
        let taken = size.min(known);
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), (&raw mut read).cast::<u8>(), taken);
        &bytes[taken..]
    };
    match rest.iter().all(|byte| *byte == 0) {
        true => Ok(read),
        false => Err(Failed::argument(format!("{what} has fields of a later version that are set"))),
    }
}

/// Writes a structure as far as the caller knows it; its size stays the caller's.
///
/// # Safety
/// `out` is null, or as many bytes can be written there as the first of its fields says.
pub unsafe fn write<T: Versioned>(what: &str, value: &T, out: *mut T) -> Result<(), Failed> {
    if out.is_null() {
        return Err(Failed::argument(format!("{what} is null")));
    }
    let head = size_of::<u32>();
    // SAFETY: the type begins with its size, which stands there.
    let size = unsafe { out.cast::<u32>().read_unaligned() } as usize;
    if size < head {
        return Err(Failed::argument(format!(
            "struct_size of {what} is {size}, expected sizeof of its type"
        )));
    }
    let taken = size.min(size_of::<T>());
    // SAFETY: `size` bytes can be written there, of which those behind the size are, as far as the type goes.
    unsafe {
        let from = std::ptr::from_ref(value).cast::<u8>().add(head);
        std::ptr::copy_nonoverlapping(from, out.cast::<u8>().add(head), taken - head);
    }
    Ok(())
}
