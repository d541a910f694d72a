//! What a device reaches at best: bytes copied and read a second, operations a second of a large product. Owns how they
//! are measured, so that a share of them means the same everywhere: buffers far larger than any cache, the median of
//! several runs after a first one, times by the device's own events.

use super::arguments::ReadArguments;
use super::bound_plan::start;
use super::device::{Device, DeviceError, MatMul, Stream};
use super::plan::Call;
use photonc_graph::ir::dtype::Dtype;

const STREAM: Stream = Stream(0);

/// Measured runs of each; the median counts.
const RUNS: usize = 7;

/// Blocks of `read_words` at most: what its launch gives any device.
const MOST_BLOCKS: usize = 1 << 16;

/// Sizes of what is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RooflineSizes {
    /// Bytes read, and bytes copied.
    pub bytes: usize,
    /// Rows, columns and inner size of the product.
    pub edge: usize,
}

impl RooflineSizes {
    /// 2 GiB and a product of edge 8192, or what an eighth of the free memory has room for.
    #[must_use]
    pub fn for_free(free_bytes: usize) -> Self {
        let room = free_bytes / 8;
        let mut edge = 8192;
        // Three matrices of at most four bytes an element.
        while edge > 64 && 12 * edge * edge > room {
            edge /= 2;
        }
        RooflineSizes { bytes: (room / 4096 * 4096).clamp(4096, 2 << 30), edge }
    }

    /// As much as a model's weights: a processor reads what its caches hold much faster than what they do not.
    #[must_use]
    pub fn for_weights(self, weight_bytes: usize) -> Self {
        let bytes = (weight_bytes / 4096 * 4096).clamp(4096, self.bytes.max(4096));
        RooflineSizes { bytes, ..self }
    }
}

/// What a device reaches at best.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Roofline {
    /// Bytes copied a second, read and written ones counted.
    pub copy_bytes_per_s: f64,
    /// Bytes read a second.
    pub read_bytes_per_s: f64,
    /// Operations a second of a product with operands of `dtype`, accumulated in f32.
    pub product_flops: f64,
    /// Type of the product's operands.
    pub dtype: Dtype,
}

impl Roofline {
    /// Measures a device on which nothing else runs: of products its own peak, where it can say, and else a large one.
    ///
    /// # Errors
    /// No room, or the device failed.
    pub fn measure(device: &dyn Device, dtype: Dtype, sizes: RooflineSizes) -> Result<Self, DeviceError> {
        let bytes = sizes.bytes / 16 * 16;
        let (from, to) = (device.allocate(bytes)?, device.allocate(bytes)?);
        device.fill(STREAM, from.address, 0, bytes)?;
        let copy = median_seconds(device, &|| device.copy(STREAM, from.address, to.address, bytes))?;
        let sums = device.allocate(MOST_BLOCKS * 8)?;
        let words = i64::try_from(bytes / 16).unwrap_or(i64::MAX);
        let arguments = ReadArguments { data: from.address, out: sums.address, words };
        let read = median_seconds(device, &|| start(device, STREAM, dtype, &Call::Read(arguments)))?;
        drop((from, to, sums));
        let edge = sizes.edge as f64;
        let product_flops = match device.peak_flops() {
            Some(flops) => flops,
            None => 2.0 * edge * edge * edge / product_seconds(device, dtype, sizes.edge)?,
        };
        Ok(Roofline {
            copy_bytes_per_s: 2.0 * bytes as f64 / copy,
            read_bytes_per_s: bytes as f64 / read,
            product_flops,
            dtype,
        })
    }
}

fn product_seconds(device: &dyn Device, dtype: Dtype, edge: usize) -> Result<f64, DeviceError> {
    let bytes = edge * edge * dtype.size_bytes();
    let [x, weight, out] = [device.allocate(bytes)?, device.allocate(bytes)?, device.allocate(bytes)?];
    // Numbers whose bits are as mixed as those of activations: a GPU multiplies few different ones with less power, and
    // so 13 % faster. Rows begin at different places of one sequence.
    let sequence = photonc_graph::ir::bytes::bytes_of(dtype, &mixed(2 * edge));
    let row_bytes = edge * dtype.size_bytes();
    for (matrix, stride) in [(&x, 31), (&weight, 57)] {
        for at in 0..edge {
            let start = at * stride % edge * dtype.size_bytes();
            let to = matrix.address + (at * row_bytes) as u64;
            device.write(STREAM, to, &sequence[start..start + row_bytes])?;
        }
    }
    let product = MatMul {
        m: edge,
        n: edge,
        k: edge,
        dtype,
        out_dtype: dtype,
        x: x.address,
        x_stride: edge,
        weight: weight.address,
        bias: 0,
        residual: 0,
        residual_stride: 0,
        out: out.address,
        out_stride: edge,
    };
    median_seconds(device, &|| start(device, STREAM, dtype, &Call::MatMul(product)))
}

/// Numbers in [-1, 1) by a linear congruential generator.
fn mixed(count: usize) -> Vec<f64> {
    let mut state = 1u64;
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        f64::from((state >> 40) as u32) / f64::from(1u32 << 23) - 1.0
    };
    (0..count).map(next).collect()
}

/// Seconds of device time of one run, the median of several after one that counts for nothing.
fn median_seconds(
    device: &dyn Device,
    run: &dyn Fn() -> Result<(), DeviceError>,
) -> Result<f64, DeviceError> {
    run()?;
    let mut spans = Vec::with_capacity(RUNS);
    for _ in 0..RUNS {
        let from = device.record(STREAM)?;
        run()?;
        spans.push((from, device.record(STREAM)?));
    }
    device.synchronize()?;
    let times = spans.into_iter().map(|(from, to)| device.elapsed_ms(from, to));
    let mut times = times.collect::<Result<Vec<f32>, _>>()?;
    times.sort_by(f32::total_cmp);
    let median = times.get(RUNS / 2).copied().unwrap_or(0.0);
    if median > 0.0 {
        return Ok(f64::from(median) / 1e3);
    }
    Err(DeviceError::Call {
        call: "measuring",
        message: "the run took no time that events can tell".to_owned(),
    })
}
