//! An object of TensorRT's class `IStreamWriter`, laid out as a C++ compiler for Linux does it, that passes an engine on piece
//! by piece. The bindings know the class and nothing that implements it.

use super::builder::Sink;
use photonc_bundle::bundle::BundleError;
use std::ffi::{CStr, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// `InterfaceInfo` of the headers.
#[repr(C)]
struct InterfaceInfo {
    kind: *const c_char,
    major: i32,
    minor: i32,
}

/// The class's functions in their order: those of `IVersionedInterface`, both destructors among them, then `write`.
#[repr(C)]
struct Functions {
    offset_to_top: isize,
    type_info: *const c_void,
    api_language: unsafe extern "C" fn(*const c_void) -> i32,
    interface_info: unsafe extern "C" fn(*const c_void) -> InterfaceInfo,
    destroy: unsafe extern "C" fn(*mut c_void),
    destroy_and_free: unsafe extern "C" fn(*mut c_void),
    write: unsafe extern "C" fn(*mut c_void, *const c_void, i64) -> i64,
}

// SAFETY: the table is constant, and its pointer is null.
unsafe impl Sync for Functions {}

static FUNCTIONS: Functions = Functions {
    offset_to_top: 0,
    type_info: std::ptr::null(),
    api_language,
    interface_info,
    destroy: nothing,
    destroy_and_free: nothing,
    write,
};

const KIND: &CStr = c"IStreamWriter";

/// Where an engine comes out. An object of a C++ class begins with the address of its first function.
#[repr(C)]
pub(super) struct Outlet<'s> {
    functions: *const c_void,
    sink: &'s mut Sink<'s>,
    failed: Option<BundleError>,
}

impl<'s> Outlet<'s> {
    pub(super) fn new(sink: &'s mut Sink<'s>) -> Self {
        Outlet { functions: (&raw const FUNCTIONS.api_language).cast(), sink, failed: None }
    }

    /// The object, for as long as this one is borrowed.
    pub(super) fn object(&mut self) -> *mut c_void {
        (&raw mut *self).cast()
    }

    /// What kept the engine from being taken.
    pub(super) fn failure(self) -> Option<BundleError> {
        self.failed
    }
}

/// `APILanguage::kCPP`.
unsafe extern "C" fn api_language(_: *const c_void) -> i32 {
    0
}

unsafe extern "C" fn interface_info(_: *const c_void) -> InterfaceInfo {
    InterfaceInfo { kind: KIND.as_ptr(), major: 1, minor: 0 }
}

/// The library destroys no writer, which belongs to its caller.
unsafe extern "C" fn nothing(_: *mut c_void) {}

/// Number of bytes taken; less than `length_bytes` ends the build.
unsafe extern "C" fn write(outlet: *mut c_void, bytes: *const c_void, length_bytes: i64) -> i64 {
    let Ok(length) = usize::try_from(length_bytes) else { return -1 };
    if length == 0 {
        return 0;
    }
    // SAFETY: the library calls with the object of `Outlet::object`, borrowed meanwhile, and that many bytes.
    let (outlet, bytes) = unsafe {
        (&mut *outlet.cast::<Outlet<'_>>(), std::slice::from_raw_parts(bytes.cast::<u8>(), length))
    };
    // A panic must not pass through the library; the build then fails for want of a reason.
    match catch_unwind(AssertUnwindSafe(|| (outlet.sink)(bytes))) {
        Ok(Ok(())) => length_bytes,
        Ok(Err(error)) => {
            outlet.failed = Some(error);
            -1
        }
        Err(_) => -1,
    }
}

#[cfg(test)]
mod tests {
    use super::{Functions, Outlet};
    use photonc_bundle::bundle::BundleError;
    use std::ffi::c_void;

    /// Calls `write` as the library does: through the table that the object begins with.
    fn call(outlet: &mut Outlet<'_>, bytes: &[u8]) -> i64 {
        let object = outlet.object();
        let functions = outlet.functions.cast::<*const c_void>();
        // SAFETY: the table's fifth function from there is `write`, and the object is an outlet.
        unsafe {
            let functions = &*functions.sub(2).cast::<Functions>();
            (functions.write)(object, bytes.as_ptr().cast(), i64::try_from(bytes.len()).expect("fits"))
        }
    }

    #[test]
    fn every_piece_arrives_in_order() {
        let mut taken = Vec::new();
        let mut sink = |bytes: &[u8]| {
            taken.extend_from_slice(bytes);
            Ok(())
        };
        let mut outlet = Outlet::new(&mut sink);
        assert_eq!((call(&mut outlet, b"eng"), call(&mut outlet, b""), call(&mut outlet, b"ine")), (3, 0, 3));
        assert!(outlet.failure().is_none());
        assert_eq!(taken, b"engine");
    }

    // The library ends a build whose writer takes less than it was given; the reason must not be lost on the way.
    #[test]
    fn a_full_disk_ends_the_build_with_its_reason() {
        let mut sink = |_: &[u8]| Err(BundleError::OutsideBundle { name: "engine".to_owned() });
        let mut outlet = Outlet::new(&mut sink);
        assert_eq!(call(&mut outlet, b"engine"), -1);
        assert!(matches!(outlet.failure(), Some(BundleError::OutsideBundle { .. })));
    }
}
