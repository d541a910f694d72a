//! The emulated device itself: kernels written here run as CUDA says they do, and mistakes in them are found.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a failed test panics")]

#[path = "harness/emulated/mod.rs"]
mod emulated;

use emulated::build::Text;
use emulated::{Emulated, Options, Order};
use half::{bf16, f16};
use photonc::ir::dtype::Dtype;
use photonc::runtime::cuda::launcher::{Launch, Launcher as _, Source, Unit};
use photonc::runtime::launch::device::{Allocation, Device, DeviceError, MatMul, Stream};

const MAIN: Stream = Stream(0);
const SIDE: Stream = Stream(1);

const UNIT: Unit = Unit { source: Source::Rows, dtype: Dtype::F32, size: 0 };

/// Sums each of `rows` rows of 256 with shuffles and shared memory.
const KERNELS: &str = r#"
struct Two { float *out; const float *in; };
struct Half { float *out; const unsigned short *a, *b; int f16; };
struct Count { int *out; int n; int unused; };

extern "C" __global__ void __launch_bounds__(256) row_sum(const __grid_constant__ Two a) {
    __shared__ float sums[8];
    float value = a.in[blockIdx.x * 256 + threadIdx.x];
    for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(0xffffffffu, value, step);
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = value;
    __syncthreads();
    if (threadIdx.x < 8) {
        value = sums[threadIdx.x];
        for (int step = 4; step > 0; step /= 2) value += __shfl_down_sync(0xffu, value, step);
        if (threadIdx.x == 0) a.out[blockIdx.x] = value;
    }
}

// [64, 64] to its transpose, by tiles of 32 with 32 x 8 threads.
#define TRANSPOSE(name, BARRIER)                                                              \
    extern "C" __global__ void __launch_bounds__(256, 2) name(const __grid_constant__ Two a) {\
        float(*tile)[33] = (float(*)[33])photonc_emulated_shared();                           \
        int x = threadIdx.x % 32, y = threadIdx.x / 32;                                       \
        for (int i = y; i < 32; i += 8)                                                       \
            tile[i][x] = a.in[(blockIdx.y * 32 + i) * 64 + blockIdx.x * 32 + x];              \
        BARRIER;                                                                              \
        for (int i = y; i < 32; i += 8)                                                       \
            a.out[(blockIdx.x * 32 + i) * 64 + blockIdx.y * 32 + x] = tile[x][i];             \
    }
TRANSPOSE(transpose, __syncthreads())
TRANSPOSE(transpose_unsafe, (void)0)

// out [16, 8] = a [16, 16] b [8, 16]^T by one warp.
extern "C" __global__ void product(const __grid_constant__ Half p) {
    int g = threadIdx.x / 4, t = threadIdx.x % 4;
    auto pair = [](const unsigned short *m, int row, int column) {
        return m[row * 16 + column] | (unsigned)m[row * 16 + column + 1] << 16;
    };
    unsigned a[4] = {pair(p.a, g, 2 * t), pair(p.a, g + 8, 2 * t), pair(p.a, g, 2 * t + 8), pair(p.a, g + 8, 2 * t + 8)};
    unsigned b[2] = {pair(p.b, g, 2 * t), pair(p.b, g, 2 * t + 8)};
    float d[4] = {};
    p.f16 ? mma_m16n8k16_f16(d, a, b, d) : mma_m16n8k16_bf16(d, a, b, d);
    for (int i = 0; i < 4; i++) p.out[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = d[i];
}

// Copies 256 floats through shared memory in the background; waits for them or does not.
template <bool WAITS> __device__ void background(const Two &a) {
    __shared__ __align__(16) float staged[256];
    cp_async(staged + 4 * threadIdx.x, a.in + 4 * threadIdx.x, 16, 16);
    cp_async_commit();
    if (WAITS) cp_async_wait(0);
    __syncthreads();
    for (int i = 0; i < 4; i++) a.out[threadIdx.x + 64 * i] = staged[threadIdx.x + 64 * i];
}
extern "C" __global__ void background_copy(const __grid_constant__ Two a) { background<true>(a); }
extern "C" __global__ void background_unwaited(const __grid_constant__ Two a) { background<false>(a); }

extern "C" __global__ void count(const __grid_constant__ Count a) {
    unsigned odd = __ballot_sync(0xffffffffu, threadIdx.x % 2);
    if (threadIdx.x % 32 == 0) atomicAdd(a.out, __popc(odd));
    if (__all_sync(0xffffffffu, 1) && !__any_sync(0xffffffffu, 0)) atomicMax(a.out + 1, (int)(blockIdx.x * blockDim.x + threadIdx.x));
}

extern "C" __global__ void unset_shared(const __grid_constant__ Two a) {
    __shared__ float left[64];
    a.out[threadIdx.x] = left[threadIdx.x];
    left[threadIdx.x] = 1.0f;
}

extern "C" __global__ void diverges(const __grid_constant__ Two a) {
    if (threadIdx.x < 32) __syncthreads();
}
extern "C" __global__ void diverges_in_warp(const __grid_constant__ Two a) {
    if (threadIdx.x % 32 < 16) a.out[0] = __shfl_sync(0xffffffffu, 1.0f, 0);
}
extern "C" __global__ void writes_after(const __grid_constant__ Two a) { a.out[60 + threadIdx.x] = 1.0f; }
extern "C" __global__ void reads_far(const __grid_constant__ Two a) { a.out[0] = a.in[1 << 20]; }
extern "C" __global__ void misaligned(const __grid_constant__ Two a) {
    *(float4 *)(a.out + 1) = *(const float4 *)a.in;
}
extern "C" __global__ void outside_array(const __grid_constant__ Two a) {
    __shared__ float small[32];
    small[threadIdx.x] = 1.0f;
    a.out[0] = small[0];
}
extern "C" __global__ void writes_after_shared(const __grid_constant__ Two a) {
    ((float *)photonc_emulated_shared())[16 + threadIdx.x] = 0.0f;
}
extern "C" __global__ void endless(const __grid_constant__ Two a) {
    volatile float deep[16384];
    deep[threadIdx.x] = 1.0f;
    if (a.in) endless(a);
    a.out[0] = deep[0];
}
"#;

fn text(_unit: Unit) -> Text {
    Text {
        name: "kernels.cu".to_owned(),
        source: KERNELS.to_owned(),
        headers: Vec::new(),
        macros: Vec::new(),
    }
}

fn device(order: Order) -> Emulated {
    Emulated::new(Options::new(order), Box::new(text))
}

fn bytes<T: Copy>(values: &[T]) -> &[u8] {
    // SAFETY: plain numbers, read as bytes.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), std::mem::size_of_val(values)) }
}

fn upload<T: Copy>(device: &Emulated, values: &[T]) -> Allocation {
    let memory = device.allocate(std::mem::size_of_val(values)).expect("room");
    device.write(MAIN, memory.address, bytes(values)).expect("written");
    device.synchronize().expect("written");
    memory
}

fn floats(device: &Emulated, from: &Allocation) -> Vec<f32> {
    let mut read = vec![0; from.bytes];
    device.read(MAIN, from.address, &mut read).expect("read");
    read.chunks_exact(4).map(|four| f32::from_ne_bytes([four[0], four[1], four[2], four[3]])).collect()
}

/// Launches a kernel whose arguments are two addresses.
fn launch(
    device: &Emulated,
    stream: Stream,
    name: &str,
    (grid, threads, shared_bytes): ([u32; 3], u32, u32),
    arguments: &[u64],
) -> Result<(), DeviceError> {
    let function = device.function(UNIT, name)?;
    let launch = Launch { function, grid, threads, shared_bytes, arguments: bytes(arguments) };
    device.launch(stream, &launch)
}

fn noise(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    std::iter::repeat_with(next).take(count).collect()
}

/// Runs a kernel that is wrong, on 64 floats each; what is said of it.
fn complaint(name: &str, threads: u32, shared_bytes: u32) -> String {
    let device = device(Order::Immediate);
    let input = upload(&device, &noise(64, 1));
    let out = device.allocate(240).expect("room");
    let arguments = [out.address, input.address];
    let done = launch(&device, MAIN, name, ([1, 1, 1], threads, shared_bytes), &arguments);
    let error = done.expect_err("a report").to_string();
    assert_eq!(device.synchronize().expect_err("stays failed").to_string(), error);
    error
}

#[test]
fn rows_are_summed_with_shuffles_and_shared_memory() {
    let device = device(Order::Immediate);
    let values = noise(256 * 40, 2);
    let input = upload(&device, &values);
    let out = device.allocate(40 * 4).expect("room");
    launch(&device, MAIN, "row_sum", ([40, 1, 1], 256, 0), &[out.address, input.address]).expect("launched");
    for (row, sum) in values.chunks(256).zip(floats(&device, &out)) {
        let expected: f64 = row.iter().map(|value| f64::from(*value)).sum();
        assert!((expected - f64::from(sum)).abs() < 1e-4, "{sum} for {expected}");
    }
}

#[test]
fn a_tile_is_transposed_through_dynamic_shared_memory() {
    let device = device(Order::Immediate);
    let values = noise(64 * 64, 3);
    let input = upload(&device, &values);
    let out = device.allocate(64 * 64 * 4).expect("room");
    launch(&device, MAIN, "transpose", ([2, 2, 1], 256, 32 * 33 * 4), &[out.address, input.address])
        .expect("launched");
    let found = floats(&device, &out);
    assert!((0..64 * 64).all(|i| found[i] == values[i % 64 * 64 + i / 64]));
}

/// Without the barrier some warp reads what another has not written yet, which is NaN.
#[test]
fn a_missing_barrier_shows_in_the_result() {
    let device = device(Order::Immediate);
    let input = upload(&device, &noise(64 * 64, 3));
    let out = device.allocate(64 * 64 * 4).expect("room");
    launch(&device, MAIN, "transpose_unsafe", ([2, 2, 1], 256, 32 * 33 * 4), &[out.address, input.address])
        .expect("launched");
    assert!(floats(&device, &out).iter().any(|value| value.is_nan()));
}

#[test]
fn fragments_of_the_matrix_product_are_those_of_the_ptx_isa() {
    for f16_type in [false, true] {
        let narrow = |value: &f32| {
            if f16_type { f16::from_f32(*value).to_bits() } else { bf16::from_f32(*value).to_bits() }
        };
        let wide = |bits: u16| {
            if f16_type { f16::from_bits(bits).to_f64() } else { bf16::from_bits(bits).to_f64() }
        };
        let device = device(Order::Immediate);
        let a: Vec<u16> = noise(16 * 16, 4).iter().map(narrow).collect();
        let b: Vec<u16> = noise(8 * 16, 5).iter().map(narrow).collect();
        let (left, right) = (upload(&device, &a), upload(&device, &b));
        let out = device.allocate(16 * 8 * 4).expect("room");
        let arguments = [out.address, left.address, right.address, u64::from(f16_type)];
        launch(&device, MAIN, "product", ([1, 1, 1], 32, 0), &arguments).expect("launched");
        for (i, found) in floats(&device, &out).into_iter().enumerate() {
            let (row, column) = (i / 8, i % 8);
            let sum: f64 = (0..16).map(|k| wide(a[row * 16 + k]) * wide(b[column * 16 + k])).sum();
            assert_eq!(found, sum as f32, "row {row} column {column}");
        }
    }
}

/// Copies in the background happen as late as the kernel allows.
#[test]
fn a_background_copy_is_there_only_after_waiting() {
    let device = device(Order::Immediate);
    let values = noise(256, 6);
    let input = upload(&device, &values);
    let out = device.allocate(1024).expect("room");
    launch(&device, MAIN, "background_copy", ([1, 1, 1], 64, 0), &[out.address, input.address])
        .expect("launched");
    assert_eq!(floats(&device, &out), values);
    launch(&device, MAIN, "background_unwaited", ([1, 1, 1], 64, 0), &[out.address, input.address])
        .expect("launched");
    assert!(floats(&device, &out).iter().all(|value| value.is_nan()));
}

/// Blocks on several threads of the host share memory, so atomics must be atomic.
#[test]
fn votes_and_atomics_count_over_many_blocks() {
    let device = device(Order::Immediate);
    let out = upload(&device, &[0i32, 0]);
    launch(&device, MAIN, "count", ([500, 1, 1], 128, 0), &[out.address, 0]).expect("launched");
    let mut read = [0; 8];
    device.read(MAIN, out.address, &mut read).expect("read");
    assert_eq!(read, *bytes(&[500i32 * 64, 500 * 128 - 1]));
}

#[test]
fn shared_memory_and_fresh_memory_hold_nothing_of_use() {
    let device = device(Order::Immediate);
    let out = device.allocate(4 * 64).expect("room");
    assert!(floats(&device, &out).iter().all(|value| value.is_nan()));
    for _ in 0..2 {
        launch(&device, MAIN, "unset_shared", ([3, 1, 1], 64, 0), &[out.address, 0]).expect("launched");
        assert!(floats(&device, &out).iter().all(|value| value.is_nan()));
    }
}

#[test]
fn mistakes_of_kernels_are_reported() {
    let reports = [
        ("diverges", 64, 0, "a barrier that not all threads reach"),
        ("diverges_in_warp", 32, 0, "waits in __shfl_sync at kernels.cu:"),
        ("writes_after", 4, 0, "wrote next to an allocation of 240 bytes"),
        ("writes_after", 5, 0, "access outside device and shared memory"),
        ("reads_far", 1, 0, "access outside device and shared memory"),
        ("misaligned", 1, 0, "access to misaligned address"),
        ("outside_array", 64, 0, "is outside the array"),
        ("writes_after_shared", 8, 64, "wrote outside its dynamic shared memory"),
        ("endless", 1, 0, "beyond the stack"),
        ("row_sum", 512, 0, "512 threads of a block, expected 1 to 256"),
    ];
    for (name, threads, shared_bytes, expected) in reports {
        let found = std::panic::catch_unwind(|| complaint(name, threads, shared_bytes));
        let found = found.unwrap_or_else(|_| "no report".to_owned());
        assert!(found.contains(expected), "{name}: expected `{expected}`, found `{found}`");
    }
}

#[test]
fn an_unknown_kernel_and_wrong_arguments_are_reported() {
    let device = device(Order::Immediate);
    let unknown = device.function(UNIT, "row_product").expect_err("a report").to_string();
    assert!(unknown.contains("no kernel `row_product`, found row_sum, transpose"), "{unknown}");
    let large = launch(&device, MAIN, "count", ([1, 1, 1], 32, 300 << 10), &[0, 0]).expect_err("a report");
    assert!(large.to_string().contains("307200 bytes of shared memory"), "{large}");
    let short =
        launch(&device, MAIN, "row_sum", ([1, 1, 1], 256, 0), &[0]).expect_err("a report").to_string();
    assert!(short.contains("arguments of 8 bytes, expected 16"), "{short}");
}

#[test]
fn products_honour_types_strides_bias_and_residual() {
    let device = device(Order::Immediate);
    let (m, n, k) = (5, 7, 33);
    for (dtype, out_dtype) in [(Dtype::F32, Dtype::F32), (Dtype::Bf16, Dtype::Bf16), (Dtype::F16, Dtype::F32)]
    {
        let typed = |values: &[f32]| -> Vec<u8> {
            let one = |value: &f32| match dtype {
                Dtype::Bf16 => bf16::from_f32(*value).to_ne_bytes().to_vec(),
                Dtype::F16 => f16::from_f32(*value).to_ne_bytes().to_vec(),
                _ => value.to_ne_bytes().to_vec(),
            };
            values.iter().flat_map(one).collect()
        };
        let exact = |values: &[f32], at: usize| match dtype {
            Dtype::Bf16 => bf16::from_f32(values[at]).to_f64(),
            Dtype::F16 => f16::from_f32(values[at]).to_f64(),
            _ => f64::from(values[at]),
        };
        let (x, w, bias, sum) = (noise(m * 40, 7), noise(n * k, 8), noise(n, 9), noise(m * 9, 10));
        let (dx, dw, db) =
            (upload(&device, &typed(&x)), upload(&device, &typed(&w)), upload(&device, &typed(&bias)));
        let out = upload(&device, &if out_dtype == dtype { typed(&sum) } else { vec![0; m * 9 * 4] });
        let residual = if out_dtype == dtype { out.address } else { 0 };
        let product = MatMul {
            m,
            n,
            k,
            dtype,
            out_dtype,
            x: dx.address,
            x_stride: 40,
            weight: dw.address,
            bias: if out_dtype == dtype { db.address } else { 0 },
            residual,
            residual_stride: 9,
            out: out.address,
            out_stride: 9,
        };
        device.matmul(MAIN, &product).expect("done");
        for row in 0..m {
            for column in 0..n {
                let dot: f64 = (0..k).map(|i| exact(&x, row * 40 + i) * exact(&w, column * k + i)).sum();
                let added = if residual == 0 { 0.0 } else { exact(&sum, row * 9 + column) };
                let shift = if product.bias == 0 { 0.0 } else { exact(&bias, column) };
                let expected = dot + shift + added;
                // SAFETY: inside `out`.
                let found = unsafe { emulated::product::load(out.address, row * 9 + column, out_dtype) };
                let unit = if out_dtype == Dtype::Bf16 { 1.0 / 256.0 } else { 1e-5 };
                assert!(
                    (expected - f64::from(found)).abs() <= unit * expected.abs().max(1.0),
                    "{found} for {expected}"
                );
            }
        }
    }
}

#[test]
fn products_that_no_device_has_are_refused() {
    let device = device(Order::Immediate);
    let memory = device.allocate(1024).expect("room");
    let at = memory.address;
    let good = MatMul {
        m: 2,
        n: 2,
        k: 4,
        dtype: Dtype::Bf16,
        out_dtype: Dtype::Bf16,
        x: at,
        x_stride: 4,
        weight: at + 256,
        bias: 0,
        residual: 0,
        residual_stride: 0,
        out: at + 512,
        out_stride: 2,
    };
    device.matmul(MAIN, &good).expect("a product");
    let bad = [
        MatMul { dtype: Dtype::I64, out_dtype: Dtype::I64, ..good },
        MatMul { dtype: Dtype::F32, ..good },
        MatMul { out_dtype: Dtype::F32, bias: at, ..good },
        MatMul { out_dtype: Dtype::F32, residual: at, residual_stride: 2, ..good },
        MatMul { x_stride: 3, ..good },
        MatMul { out_stride: 1, ..good },
        MatMul { residual: at, residual_stride: 1, ..good },
        MatMul { k: 0, ..good },
    ];
    for product in bad {
        assert!(device.matmul(MAIN, &product).is_err(), "{product:?}");
    }
    let beyond = device.matmul(MAIN, &MatMul { m: 200, ..good }).expect_err("a report").to_string();
    assert!(beyond.contains("of an allocation of 1024"), "{beyond}");
}

/// One stream doubles what another has written; with the wait always right, without it wrong for some order.
#[test]
fn mixed_order_follows_events_and_shows_where_one_is_missing() {
    let run = |seed: u64, waits: bool| {
        let device = device(Order::Mixed(seed));
        let ones = upload(&device, &[1.0f32; 256]);
        let sums = device.allocate(8).expect("room");
        let first = sums.address;
        let second = device.allocate(4).expect("room");
        launch(&device, MAIN, "row_sum", ([1, 1, 1], 256, 0), &[first, ones.address]).expect("entered");
        let ready = device.record(MAIN).expect("recorded");
        if waits {
            device.wait(SIDE, ready).expect("waits");
        }
        device.copy(SIDE, first, second.address, 4).expect("entered");
        let copied = device.record(SIDE).expect("recorded");
        device.finish(copied).expect("finished");
        floats(&device, &second)[0]
    };
    assert!((0..32).all(|seed| run(seed, true) == 256.0));
    assert!((0..32).any(|seed| run(seed, false).is_nan()));
}

#[test]
fn a_recording_with_branches_replays_and_must_be_joined() {
    for seed in 0..8 {
        let device = device(Order::Mixed(seed));
        let ones = upload(&device, &[1.0f32; 256]);
        let (a, b, c) = (upload(&device, &[0.0f32]), upload(&device, &[0.0f32]), upload(&device, &[0.0f32]));
        device.take_traffic();
        device.begin_recording(MAIN).expect("begun");
        launch(&device, MAIN, "row_sum", ([1, 1, 1], 256, 0), &[a.address, ones.address]).expect("recorded");
        let fork = device.record(MAIN).expect("recorded");
        device.wait(SIDE, fork).expect("joins");
        device.copy(SIDE, a.address, b.address, 4).expect("recorded");
        let join = device.record(SIDE).expect("recorded");
        device.fill(MAIN, c.address, 0, 4).expect("recorded");
        device.wait(MAIN, join).expect("joins");
        device.copy(MAIN, b.address, c.address, 4).expect("recorded");
        assert!(device.read(MAIN, a.address, &mut [0; 4]).is_err(), "reads while recording");
        let recording = device.end_recording(MAIN).expect("joined");
        assert_eq!(device.take_traffic().launches, 0);
        assert_eq!(floats(&device, &c)[0], 0.0);
        for _ in 0..3 {
            device.fill(MAIN, c.address, 0xff, 4).expect("entered");
            device.replay(MAIN, &recording).expect("replayed");
        }
        assert_eq!(floats(&device, &c)[0], 256.0);
        let traffic = device.take_traffic();
        assert_eq!((traffic.launches, traffic.replays, traffic.written_bytes), (3, 3, 0));

        device.begin_recording(MAIN).expect("begun");
        let fork = device.record(MAIN).expect("recorded");
        device.wait(SIDE, fork).expect("joins");
        device.copy(SIDE, a.address, b.address, 4).expect("recorded");
        let error = device.end_recording(MAIN).expect_err("not joined").to_string();
        assert!(error.contains("stream 1 was not joined to stream 0"), "{error}");
    }
}

/// Recordings made on one stream share its workspace, so they must not run on two at once.
#[test]
fn recordings_that_share_a_workspace_must_not_run_at_once() {
    let run = |seed: u64, own_streams: bool| {
        let device = device(Order::Mixed(seed));
        let x = upload(&device, &[1.0f32; 16]);
        let outs = [upload(&device, &[0.0f32; 4]), upload(&device, &[0.0f32; 4])];
        let streams = [MAIN, if own_streams { SIDE } else { MAIN }];
        let product = |at: usize| MatMul {
            m: 2,
            n: 2,
            k: 4,
            dtype: Dtype::F32,
            out_dtype: Dtype::F32,
            x: x.address,
            x_stride: 4,
            weight: x.address,
            bias: 0,
            residual: 0,
            residual_stride: 0,
            out: outs[at].address,
            out_stride: 2,
        };
        device.matmul(MAIN, &product(0)).expect("loads its kernel");
        let recordings = [0, 1].map(|at: usize| {
            device.begin_recording(streams[at]).expect("begun");
            for _ in 0..4 {
                device.matmul(streams[at], &product(at)).expect("recorded");
            }
            device.end_recording(streams[at]).expect("ended")
        });
        let replayed = device.replay(MAIN, &recordings[0]).and_then(|()| device.replay(SIDE, &recordings[1]));
        replayed.and_then(|()| device.synchronize())
    };
    assert!((0..16).all(|seed| run(seed, true).is_ok()));
    let found = (0..16).find_map(|seed| run(seed, false).err()).expect("a report").to_string();
    assert!(found.contains("use the workspace of stream 0 at once"), "{found}");
}

/// A library loads the kernel of a kind of product when it comes first, and a recording must not load anything.
#[test]
fn the_first_product_of_its_kind_cannot_be_recorded() {
    let device = device(Order::Immediate);
    let memory = upload(&device, &[1.0f32; 512]);
    let at = memory.address;
    let product = MatMul {
        m: 2,
        n: 2,
        k: 4,
        dtype: Dtype::F32,
        out_dtype: Dtype::F32,
        x: at,
        x_stride: 4,
        weight: at + 256,
        bias: 0,
        residual: 0,
        residual_stride: 0,
        out: at + 512,
        out_stride: 2,
    };
    device.matmul(MAIN, &product).expect("outside a recording");
    device.begin_recording(MAIN).expect("begun");
    device.matmul(MAIN, &product).expect("known");
    device.matmul(MAIN, &MatMul { out: at + 1024, ..product }).expect("of the same kind");
    let other = MatMul { out: at + 516, ..product };
    let error = device.matmul(MAIN, &other).expect_err("aligned otherwise").to_string();
    assert!(error.contains("the first of its kind"), "{error}");
}

#[test]
fn page_locked_memory_is_filled_late_and_must_live_until_then() {
    let device = device(Order::Mixed(1));
    let values = upload(&device, &[1.0f32, 2.0]);
    let mut host = device.allocate_host(16).expect("room");
    device.read_later(MAIN, values.address + 4, &mut *host, 8, 4).expect("entered");
    let read = device.record(MAIN).expect("recorded");
    device.finish(read).expect("finished");
    assert_eq!(host.bytes()[8..12], 2.0f32.to_ne_bytes());
    assert!(device.read_later(MAIN, values.address, &mut *host, 14, 4).is_err(), "beyond its end");
    let last = (0..64).find_map(|_| {
        let mut host = device.allocate_host(4).ok()?;
        device.read_later(MAIN, values.address, &mut *host, 0, 4).ok()?;
        drop(host);
        device.synchronize().err()
    });
    assert!(last.expect("a report").to_string().contains("was freed before"));
}

#[test]
fn memory_is_limited_and_given_back() {
    let mut options = Options::new(Order::Immediate);
    options.properties.memory_bytes = 4096;
    let device = Emulated::new(options, Box::new(text));
    let held = device.allocate(3000).expect("room");
    let error = device.allocate(2000).expect_err("no room");
    assert_eq!(error, DeviceError::OutOfMemory { bytes: 2000, free: 4096 - 3072 });
    drop(held);
    assert_eq!(device.allocated(), (0, 0));
    assert!(device.allocate(4096).is_ok());
}

/// Every kernel of the program builds for the CPU, so that none is left out of tests by accident.
#[test]
fn the_programs_own_kernels_build() {
    let device = Emulated::new(Options::new(Order::Immediate), Box::new(emulated::program_text));
    for source in Source::ALL {
        let size = match source {
            _ if source.of_heads() => 56,
            Source::Skinny => 8,
            _ => 0,
        };
        for dtype in [Dtype::F32, Dtype::Bf16] {
            if source != Source::Skinny || dtype != Dtype::F32 {
                device.load_units(&[Unit { source, dtype, size }]).expect("builds");
            }
        }
    }
}
