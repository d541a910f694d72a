//! The compiler of kernels: NVRTC, found at run time, and units compiled by it or taken from the cache. Owns the options
//! of the compiler and the key of a compiled unit; refuses to load kernels onto a device.

use super::cache::KernelCache;
use super::kernels::HEADERS;
use super::libraries::{self, Cuda, Loaded};
use crate::cuda::launcher::Unit;
use crate::launch::device::DeviceError;
use std::borrow::Cow;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

type Program = *mut c_void;

/// NVRTC's functions, as its header declares them.
#[derive(Clone, Copy)]
struct Functions {
    create: unsafe extern "C" fn(
        *mut Program,
        *const c_char,
        *const c_char,
        c_int,
        *const *const c_char,
        *const *const c_char,
    ) -> c_int,
    destroy: unsafe extern "C" fn(*mut Program) -> c_int,
    compile: unsafe extern "C" fn(Program, c_int, *const *const c_char) -> c_int,
    cubin_size: unsafe extern "C" fn(Program, *mut usize) -> c_int,
    cubin: unsafe extern "C" fn(Program, *mut c_char) -> c_int,
    log_size: unsafe extern "C" fn(Program, *mut usize) -> c_int,
    log: unsafe extern "C" fn(Program, *mut c_char) -> c_int,
    error: unsafe extern "C" fn(c_int) -> *const c_char,
}

/// A loaded NVRTC.
#[derive(Clone)]
pub struct Nvrtc {
    functions: Functions,
    /// Its version, e.g. (13, 0).
    pub version: (i32, i32),
    /// Where it was found.
    pub place: String,
}

/// A compiled source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compiled {
    /// The binary for the device.
    pub cubin: Vec<u8>,
    /// What the compiler had to say.
    pub log: String,
}

impl Nvrtc {
    /// Finds NVRTC.
    ///
    /// # Errors
    /// There is none of at most this major version (that of the driver).
    pub fn find(named: &[PathBuf], most_major: i32) -> Result<Self, DeviceError> {
        libraries::load(Cuda::Nvrtc, named, |loaded| Self::of(loaded, most_major))
    }

    fn of(loaded: Loaded, most_major: i32) -> Result<Self, String> {
        let library = loaded.library;
        macro_rules! symbol {
            ($name:literal) => {
                // SAFETY: the type is that of the function in nvrtc.h; the library is never unloaded.
                *unsafe { library.get(concat!($name, "\0").as_bytes()) }.map_err(|error| error.to_string())?
            };
        }
        let version: unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int = symbol!("nvrtcVersion");
        let (mut major, mut minor) = (0, 0);
        // SAFETY: two integers to write to.
        unsafe { version(&raw mut major, &raw mut minor) };
        if major > most_major {
            return Err(format!(
                "version {major}.{minor}, which is newer than the driver's CUDA {most_major}"
            ));
        }
        // NVRTC opens its other half by its bare name, which fails outside the loader's own folders unless it is there.
        let builtins =
            Path::new(&loaded.place).with_file_name(format!("libnvrtc-builtins.so.{major}.{minor}"));
        if builtins.is_absolute() && builtins.exists() {
            libraries::keep(&builtins)?;
        }
        let functions = Functions {
            create: symbol!("nvrtcCreateProgram"),
            destroy: symbol!("nvrtcDestroyProgram"),
            compile: symbol!("nvrtcCompileProgram"),
            cubin_size: symbol!("nvrtcGetCUBINSize"),
            cubin: symbol!("nvrtcGetCUBIN"),
            log_size: symbol!("nvrtcGetProgramLogSize"),
            log: symbol!("nvrtcGetProgramLog"),
            error: symbol!("nvrtcGetErrorString"),
        };
        Ok(Nvrtc { functions, version: (major, minor), place: loaded.place })
    }

    /// Compiles a source to a binary.
    ///
    /// # Errors
    /// The compiler's words.
    pub fn compile(
        &self,
        name: &str,
        text: &str,
        headers: &[(&str, &str)],
        options: &[String],
    ) -> Result<Compiled, String> {
        let c = |text: &str| CString::new(text).map_err(|_| format!("a zero byte in {name}"));
        let (name, text) = (c(name)?, c(text)?);
        let names: Vec<CString> = headers.iter().map(|(name, _)| c(name)).collect::<Result<_, _>>()?;
        let texts: Vec<CString> = headers.iter().map(|(_, text)| c(text)).collect::<Result<_, _>>()?;
        let options: Vec<CString> = options.iter().map(|option| c(option)).collect::<Result<_, _>>()?;
        let pointers = |strings: &[CString]| strings.iter().map(|text| text.as_ptr()).collect::<Vec<_>>();
        let (names, texts, options) = (pointers(&names), pointers(&texts), pointers(&options));
        let count = |length: usize| c_int::try_from(length).map_err(|_| "too many strings".to_owned());
        let f = &self.functions;
        let mut program = std::ptr::null_mut();
        // SAFETY: strings end with zero and outlive the calls; the arrays have the lengths given with them; buffers have
        // the sizes that NVRTC asked for; the program is destroyed once, on every way out, by `Owned`.
        unsafe {
            let made = (f.create)(
                &raw mut program,
                text.as_ptr(),
                name.as_ptr(),
                count(headers.len())?,
                texts.as_ptr(),
                names.as_ptr(),
            );
            self.check("nvrtcCreateProgram", made)?;
            let program = Owned(self, program);
            let compiled = (f.compile)(program.1, count(options.len())?, options.as_ptr());
            let log = self.bytes(program.1, f.log_size, f.log)?;
            let log = String::from_utf8_lossy(&log).trim_end_matches('\0').trim_end().to_owned();
            if compiled != 0 {
                let reason = self.check("nvrtcCompileProgram", compiled).err().unwrap_or_default();
                return Err(if log.is_empty() { reason } else { log });
            }
            Ok(Compiled { cubin: self.bytes(program.1, f.cubin_size, f.cubin)?, log })
        }
    }

    /// # Safety
    /// `size` and `get` are a pair of NVRTC's for this program.
    unsafe fn bytes(
        &self,
        program: Program,
        size: unsafe extern "C" fn(Program, *mut usize) -> c_int,
        get: unsafe extern "C" fn(Program, *mut c_char) -> c_int,
    ) -> Result<Vec<u8>, String> {
        let mut length = 0;
        // SAFETY: the buffer has the size that NVRTC asks for.
        unsafe {
            self.check("a size asked of NVRTC", size(program, &raw mut length))?;
            let mut bytes = vec![0u8; length];
            self.check("a result asked of NVRTC", get(program, bytes.as_mut_ptr().cast()))?;
            Ok(bytes)
        }
    }

    fn check(&self, call: &str, status: c_int) -> Result<(), String> {
        if status == 0 {
            return Ok(());
        }
        // SAFETY: NVRTC gives a string that lives as long as the library.
        let words = unsafe { CStr::from_ptr((self.functions.error)(status)) };
        Err(format!("{call}: {}", words.to_string_lossy()))
    }
}

/// A program that is destroyed when dropped.
struct Owned<'a>(&'a Nvrtc, Program);

impl Drop for Owned<'_> {
    fn drop(&mut self) {
        // SAFETY: made by `nvrtcCreateProgram`, destroyed here alone.
        unsafe { (self.0.functions.destroy)(&raw mut self.1) };
    }
}

/// Compiles units for one kind of device.
#[derive(Clone)]
pub struct Compiler {
    /// The compiler.
    pub nvrtc: Nvrtc,
    /// Where compiled units are kept.
    pub cache: KernelCache,
    /// Compute capability times ten.
    pub sm: u32,
    /// A folder to read the sources from instead of those built in, for work on kernels.
    pub sources: Option<PathBuf>,
}

/// Variable that names a folder of sources to compile instead of those built in.
const SOURCES_VARIABLE: &str = "PHOTONC_CUDA_KERNELS";

/// The folder that `PHOTONC_CUDA_KERNELS` names.
pub(super) fn named_sources() -> Option<PathBuf> {
    std::env::var_os(SOURCES_VARIABLE).filter(|value| !value.is_empty()).map(PathBuf::from)
}

impl Compiler {
    /// Options for a unit; `None` for an element type that no kernel has.
    #[must_use]
    pub fn options(&self, unit: Unit) -> Option<Vec<String>> {
        let mut options = vec![format!("--gpu-architecture=sm_{}", self.sm), "--std=c++17".to_owned()];
        options.extend(unit.macros()?);
        Some(options)
    }

    /// The binary of a unit, from the cache if it is there; where it came from does not change it.
    ///
    /// # Errors
    /// It does not compile.
    pub fn cubin(&self, unit: Unit) -> Result<Vec<u8>, DeviceError> {
        let failed = |message: String| DeviceError::Compile { unit: shown(unit), message };
        let options = self.options(unit).ok_or_else(|| failed(format!("no kernels for {}", unit.dtype)))?;
        let (major, minor) = self.nvrtc.version;
        let version = format!("NVRTC {major}.{minor}");
        let name = unit.source.name();
        let text = self.text(name, unit.source.text()).map_err(failed)?;
        let mut headers = Vec::with_capacity(HEADERS.len());
        for (name, text) in HEADERS {
            headers.push((name, self.text(name, text).map_err(failed)?));
        }
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, text)| (*name, &**text)).collect();
        let mut parts = vec![version.as_str(), name, &*text];
        parts.extend(headers.iter().flat_map(|(name, text)| [*name, *text]));
        parts.extend(options.iter().map(String::as_str));
        let key = KernelCache::key(&parts);
        if let Some(cubin) = self.cache.read(&key) {
            return Ok(cubin);
        }
        let compiled = self.nvrtc.compile(name, &text, &headers, &options).map_err(failed)?;
        self.cache.write(&key, &compiled.cubin);
        Ok(compiled.cubin)
    }

    /// A source or header: built in, or from the folder that stands for them.
    fn text(&self, name: &str, built_in: &'static str) -> Result<Cow<'static, str>, String> {
        let Some(folder) = &self.sources else { return Ok(Cow::Borrowed(built_in)) };
        let path = folder.join(name);
        let read = std::fs::read_to_string(&path);
        read.map(Cow::Owned).map_err(|error| format!("{} ({SOURCES_VARIABLE}): {error}", path.display()))
    }

    /// The binaries of several units, in their order, compiled by as many threads as there are cores.
    ///
    /// # Errors
    /// One does not compile.
    pub fn cubins(&self, units: &[Unit]) -> Result<Vec<Vec<u8>>, DeviceError> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let next = AtomicUsize::new(0);
        let work = || {
            let mut made = Vec::new();
            while let Some((at, unit)) = {
                let at = next.fetch_add(1, Ordering::Relaxed);
                units.get(at).map(|unit| (at, unit))
            } {
                made.push((at, self.cubin(*unit)));
            }
            made
        };
        let mut made = std::thread::scope(|scope| {
            let threads: Vec<_> = (1..cores.min(units.len())).map(|_| scope.spawn(work)).collect();
            let mut made = work();
            // A thread that panicked leaves its units out, which `zip` below would misplace: they are compiled again.
            made.extend(threads.into_iter().filter_map(|thread| thread.join().ok()).flatten());
            made
        });
        made.sort_by_key(|(at, _)| *at);
        if made.len() < units.len() {
            return units.iter().map(|unit| self.cubin(*unit)).collect();
        }
        made.into_iter().map(|(_, cubin)| cubin).collect()
    }
}

/// A unit in words, e.g. `attention.cu for bf16, size 56`.
pub(super) fn shown(unit: Unit) -> String {
    let width = if unit.size == 0 { String::new() } else { format!(", size {}", unit.size) };
    format!("{} for {}{width}", unit.source.name(), unit.dtype)
}
