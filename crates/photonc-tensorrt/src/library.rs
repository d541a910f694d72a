//! Which libraries a vendor consists of. Owns their names and where they are looked for; opens nothing.

use super::target::{Vendor, Version};
use photonc_bundle::places::Wanted;
use std::path::{Path, PathBuf};

static TENSORRT_RTX: Wanted = Wanted {
    name: "TensorRT-RTX",
    file: "libtensorrt_rtx.so",
    major: 1,
    packages: &["tensorrt_rtx_libs"],
    option: "--tensorrt-lib",
    variable: "PHOTONC_TENSORRT_LIB",
    install: "pip install tensorrt-rtx-cu13-libs==1.7.1.116",
};

static TENSORRT: Wanted = Wanted {
    name: "TensorRT",
    file: "libnvinfer.so",
    major: 11,
    packages: &["tensorrt_libs"],
    option: "--tensorrt-lib",
    variable: "PHOTONC_TENSORRT_LIB",
    install: "pip install tensorrt-cu13",
};

/// The main library of a vendor.
#[must_use]
pub fn wanted(vendor: Vendor) -> &'static Wanted {
    match vendor {
        Vendor::TensorrtRtx => &TENSORRT_RTX,
        Vendor::Tensorrt => &TENSORRT,
    }
}

/// A vendor's libraries that can be used together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The vendor.
    pub vendor: Vendor,
    /// Path of the main library, or the name by which the system finds it.
    pub library: PathBuf,
    /// Path of the library that reads ONNX.
    pub parser: PathBuf,
    /// Version of the main library.
    pub version: Version,
}

/// The library that reads ONNX, which belongs to the main library at `main`: beside it, under the same version.
#[must_use]
pub fn parser_of(vendor: Vendor, main: &Path) -> PathBuf {
    let (from, to) = match vendor {
        Vendor::TensorrtRtx => ("libtensorrt_rtx", "libtensorrt_onnxparser_rtx"),
        Vendor::Tensorrt => ("libnvinfer", "libnvonnxparser"),
    };
    let name = main.file_name().map(|name| name.to_string_lossy().replacen(from, to, 1)).unwrap_or_default();
    main.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::parser_of;
    use crate::target::Vendor;
    use std::path::Path;

    #[test]
    fn the_parser_stands_beside_its_library() {
        let main = Path::new("/wheel/libtensorrt_rtx.so.1");
        let parser = parser_of(Vendor::TensorrtRtx, main);
        assert_eq!(parser, Path::new("/wheel/libtensorrt_onnxparser_rtx.so.1"));
        assert_eq!(
            parser_of(Vendor::Tensorrt, Path::new("libnvinfer.so.11")),
            Path::new("libnvonnxparser.so.11")
        );
    }
}
