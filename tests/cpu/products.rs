//! Products of the `cpu` device against plain sums in binary64, at odd sizes and addresses, and bit for bit against
//! themselves: alone, among other rows, on more threads, in other instructions.

use half::{bf16, f16};
use photonc::ir::dtype::Dtype;
use photonc::runtime::cpu::device::{Cpu, CpuOptions};
use photonc::runtime::cpu::lanes::Form;
use photonc::runtime::launch::arguments::{CodesArguments, LinearArguments, Rows};
use photonc::runtime::launch::device::{CallTypes, Device, Stream};
use photonc::runtime::launch::plan::Call;
use photonc::runtime::random::uniform;

const STREAM: Stream = Stream(0);

/// Numbers from -1 to 1, one in 50 of them subnormal.
fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let number = |at: usize| 2.0 * uniform(seed, 1, at as u64) - 1.0;
    (0..count).map(|at| if at % 50 == 49 { 1e-40 * number(at) } else { number(at) }).collect()
}

/// Values as a type holds them, and its bytes.
fn held(values: &[f32], dtype: Dtype) -> (Vec<f32>, Vec<u8>) {
    match dtype {
        Dtype::F16 => values
            .iter()
            .map(|value| f16::from_f32(*value))
            .map(|value| (value.to_f32(), value.to_le_bytes()))
            .fold((Vec::new(), Vec::new()), |(mut values, mut all), (value, bytes)| {
                values.push(value);
                all.extend(bytes);
                (values, all)
            }),
        Dtype::Bf16 => values
            .iter()
            .map(|value| bf16::from_f32(*value))
            .map(|value| (value.to_f32(), value.to_le_bytes()))
            .fold((Vec::new(), Vec::new()), |(mut values, mut all), (value, bytes)| {
                values.push(value);
                all.extend(bytes);
                (values, all)
            }),
        _ => (values.to_vec(), values.iter().flat_map(|value| value.to_le_bytes()).collect()),
    }
}

/// A product of one shape on one device.
struct Case {
    dtype: Dtype,
    /// Type of whole weights.
    matrices: Dtype,
    rows: usize,
    k: usize,
    n: usize,
    swiglu: bool,
    norm: bool,
    residual: bool,
    /// int8, int4 or fp8.
    scheme: Option<i32>,
}

/// Its operands, the same for any number of rows.
struct Operands {
    x: (Vec<f32>, Vec<u8>),
    norm: (Vec<f32>, Vec<u8>),
    residual: (Vec<f32>, Vec<u8>),
    weight: (Vec<f32>, Vec<u8>),
    scales: Vec<f32>,
}

impl Case {
    fn operands(&self) -> Operands {
        let weight_rows = if self.swiglu { 2 * self.n } else { self.n };
        let elements = weight_rows * self.k;
        // Codes up to 127 stay about 1, within what f16 can sum.
        let groups = if self.scheme == Some(1) { elements / 32 } else { weight_rows };
        let scales: Vec<f32> = numbers(groups, 5).into_iter().map(|scale| scale / 64.0).collect();
        let weight = match self.scheme {
            None => held(&numbers(elements, 2), self.matrices),
            Some(scheme) => coded(scheme, elements, self.k, &scales),
        };
        Operands {
            x: held(&numbers(self.rows * self.k, 1), self.dtype),
            norm: held(&numbers(self.k, 3), self.dtype),
            residual: held(&numbers(self.rows * self.n, 4), self.dtype),
            weight,
            scales,
        }
    }

    /// The result's bytes of the rows `first ..`, `count` of them.
    fn run(&self, device: &Cpu, first: usize, count: usize) -> Vec<u8> {
        let operands = self.operands();
        let size = self.dtype.size_bytes();
        // Addresses are odd multiples of an element; NaN lies around everything.
        let placed = |bytes: &[u8]| {
            let memory = device.allocate(bytes.len() + 2 * size + 64).expect("room");
            device.fill(STREAM, memory.address, 0xff, memory.bytes).expect("fills");
            device.write(STREAM, memory.address + size as u64, bytes).expect("writes");
            memory
        };
        let at = |memory: &photonc::runtime::launch::device::Allocation| memory.address + size as u64;
        let (x, norm, residual) =
            (placed(&operands.x.1), placed(&operands.norm.1), placed(&operands.residual.1));
        let (weight, scales) = (placed(&operands.weight.1), placed(&held(&operands.scales, Dtype::F32).1));
        let out = placed(&vec![0xff; count * self.n * size]);
        let rows = |base: u64, width: usize| Rows {
            base,
            outer: i64::try_from(width).unwrap(),
            inner: 0,
            split: 1,
            unused: 0,
        };
        let number = |count: usize| i32::try_from(count).unwrap();
        let linear = LinearArguments {
            x: rows(at(&x) + (first * self.k * size) as u64, self.k),
            residual: match self.residual {
                true => rows(at(&residual) + (first * self.n * size) as u64, self.n),
                false => rows(0, 0),
            },
            out: rows(at(&out), self.n),
            norm: if self.norm { at(&norm) } else { 0 },
            weight: at(&weight),
            bias: 0,
            rows: number(count),
            k: number(self.k),
            n: number(self.n),
            mode: i32::from(self.swiglu),
            wide: 0,
            eps: 1e-5,
        };
        let call = match self.scheme {
            None => Call::Linear(linear),
            Some(scheme) => Call::Codes(CodesArguments { linear, scales: at(&scales), scheme, unused: 0 }),
        };
        let types = CallTypes { activations: self.dtype, matrices: self.matrices };
        device.start(STREAM, &device.prepare(&call, types).expect("a kernel")).expect("starts");
        let mut found = vec![0; count * self.n * size];
        device.read(STREAM, at(&out), &mut found).expect("reads");
        found
    }

    /// The result in binary64, and how large its terms are.
    fn expected(&self) -> Vec<(f64, f64)> {
        let Operands { x, norm, residual, weight, .. } = self.operands();
        let mut all = Vec::new();
        for r in 0..self.rows {
            let row: Vec<f64> = x.0[r * self.k..][..self.k].iter().map(|value| f64::from(*value)).collect();
            let mean = row.iter().map(|value| value * value).sum::<f64>() / self.k as f64;
            let factor = if self.norm { 1.0 / (mean + 1e-5).sqrt() } else { 1.0 };
            let dot = |n: usize| {
                let terms = row.iter().enumerate().map(|(k, value)| {
                    let scaled = if self.norm { value * f64::from(norm.0[k]) * factor } else { *value };
                    scaled * f64::from(weight.0[n * self.k + k])
                });
                terms.fold((0.0, 0.0), |(sum, size): (f64, f64), term| (sum + term, size + term.abs()))
            };
            for n in 0..self.n {
                let (mut value, mut size) = dot(n);
                if self.swiglu {
                    let (up, up_size) = dot(self.n + n);
                    value = value / (1.0 + (-value).exp()) * up;
                    size = (size + 1.0) * (up_size + 1.0);
                }
                if self.residual {
                    value += f64::from(residual.0[r * self.n + n]);
                    size += 1.0;
                }
                all.push((value, size));
            }
        }
        all
    }
}

/// Random codes of `elements` elements in rows of `k`, and what they stand for.
fn coded(scheme: i32, elements: usize, k: usize, scales: &[f32]) -> (Vec<f32>, Vec<u8>) {
    use photonc::ir::attr::Scheme;
    let kind = [Scheme::Int8, Scheme::Int4, Scheme::Fp8][usize::try_from(scheme).unwrap()];
    let code = |at: usize| ((uniform(7, 0, at as u64) * 256.0) as u8) & 0xbf;
    let bytes: Vec<u8> = (0..kind.code_bytes(elements)).map(code).collect();
    let value = |at: usize| {
        let (code, scale) = match kind {
            Scheme::Int4 => (bytes[at / 2] >> (4 * (at % 2)) & 0xf, scales[at / 32]),
            Scheme::Int8 | Scheme::Fp8 => (bytes[at], scales[at / k]),
        };
        kind.decode(code, scale) as f32
    };
    ((0..elements).map(value).collect(), bytes)
}

fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    let own = [Dtype::F32, Dtype::Bf16, Dtype::F16].map(|dtype| (dtype, dtype));
    for (dtype, matrices) in own.into_iter().chain([(Dtype::F32, Dtype::Bf16), (Dtype::F32, Dtype::F16)]) {
        for (rows, k, n) in [(1, 1, 1), (3, 15, 5), (7, 17, 33), (13, 64, 31), (140, 33, 9), (2, 100, 70)] {
            let kinds = [(false, false, true), (true, true, false), (false, true, true)];
            for (swiglu, norm, residual) in kinds {
                all.push(Case { dtype, matrices, rows, k, n, swiglu, norm, residual, scheme: None });
            }
            for scheme in 0..3 {
                let k = if scheme == 1 { k.next_multiple_of(32) } else { k };
                let scheme = Some(scheme);
                all.push(Case {
                    dtype,
                    matrices,
                    rows,
                    k,
                    n,
                    swiglu: n > 8,
                    norm: n > 5,
                    residual: false,
                    scheme,
                });
            }
        }
    }
    all
}

fn cpu(threads: usize, form: Form) -> Cpu {
    let options = CpuOptions { threads: Some(threads), form: Some(form), poison: true };
    Cpu::new(&options).expect("a processor")
}

#[test]
fn products_are_those_of_plain_sums() {
    let device = cpu(2, Form::best());
    for case in cases() {
        let name = format!("{:?} {:?} {:?}", case.dtype, case.scheme, (case.rows, case.k, case.n));
        let found = case.run(&device, 0, case.rows);
        let found: Vec<f32> = match case.dtype {
            Dtype::F16 => {
                found.chunks(2).map(|bytes| f16::from_le_bytes([bytes[0], bytes[1]]).to_f32()).collect()
            }
            Dtype::Bf16 => {
                found.chunks(2).map(|bytes| bf16::from_le_bytes([bytes[0], bytes[1]]).to_f32()).collect()
            }
            _ => found.chunks(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect(),
        };
        // A rounding for each element of a sum, those of the operand and of the result.
        let epsilon = match case.dtype {
            Dtype::F16 => 2f64.powi(-9),
            Dtype::Bf16 => 2f64.powi(-6),
            _ => 2f64.powi(-20),
        };
        for (found, (expected, size)) in found.iter().zip(case.expected()) {
            let allowed = epsilon * (size + 1.0);
            assert!((f64::from(*found) - expected).abs() <= allowed, "{name}: {found}, expected {expected}");
        }
    }
}

// One order of every sum: tokens depend neither on the batch nor on the machine's threads and instructions.
#[test]
fn a_row_is_the_same_alone_among_others_and_in_every_form() {
    let device = cpu(1, Form::best());
    for case in cases() {
        let name = format!("{:?} {:?} {:?}", case.dtype, case.scheme, (case.rows, case.k, case.n));
        let all = case.run(&device, 0, case.rows);
        let each = all.len() / case.rows;
        for row in [0, case.rows / 2, case.rows - 1] {
            let alone = case.run(&device, row, 1);
            assert!(alone == all[row * each..][..each], "row {row} of {name}");
        }
        for form in Form::usable() {
            for threads in [1, 3] {
                let found = case.run(&cpu(threads, form), 0, case.rows);
                assert!(found == all, "{name} in {form:?} on {threads} threads");
            }
        }
    }
}
