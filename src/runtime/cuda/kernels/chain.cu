// Steps that depend on each other as one launch, for few rows in short types: ChainArguments. All blocks run at once, one on
// each multiprocessor, share out every step and meet before the next.
//
// chain_m8: products of at most eight rows, norms, windows of at most CHAIN_KEYS keys, caches. Only products have many bytes
// to read, and what they read does not depend on the steps before: each warp has a ring in shared memory that takes in its
// part of the weights of all products to come, through norms, attention and barriers. A block's units go to its warps
// in turn, whichever weight rows and product they belong to, and the sums of 16 weight rows are added up through shared
// memory. Before a product a block brings all of x to shared memory, times the norm's weights; as in skinny.cu the norm's
// scale is a factor of the sum. Wants: k a multiple of 8, weights, norms and rows of x 16-byte aligned.
#define CHAIN_THREADS 256
#define CHAIN_WARPS (CHAIN_THREADS / 32)
#define ATTEND_THREADS CHAIN_THREADS
#define ROWS_THREADS CHAIN_THREADS
#include "norm.cuh"
#include "streamed.cuh"
#include "window.cuh"

// Keys of a window.
#define CHAIN_KEYS 8
// Rows of x.
#define CHAIN_ROWS 8
#define TILE_ROWS 16
// What a warp copies and multiplies at a time: neighbouring tiles.
#define UNIT_TILES 2
#define UNIT_COLUMNS (UNIT_TILES * 64)
#define UNIT_BYTES (UNIT_TILES * TILE_BYTES)
// Products of 16 columns in a unit.
#define UNIT_STEPS (UNIT_COLUMNS / 16)
// Of a step's arguments.
#define ARGUMENT_WORDS ((int)sizeof(AttendArguments) / 8)
// Threads that add up an output, and floats from one warp's partial sums to the next: the gap keeps their reads off each
// other's banks.
#define PARTS (CHAIN_THREADS / (TILE_ROWS * CHAIN_ROWS))
#define PARTIAL_FLOATS (CHAIN_ROWS * PARTIAL_STRIDE + 32 / PARTS)

// Places in a block's shared memory.
struct Places {
    unsigned char *units; // [warps][slots][UNIT_BYTES]
    unsigned char *x;
    float *partial; // twice [warps][PARTIAL_FLOATS]
    float *squares; // [warps][CHAIN_ROWS]
    ChainStep *steps;    // [CHAIN_STEPS]; `first` is the block's own
    uint64 *arguments;   // of this step and of the next
    uint64 *full;        // [warps][slots], phases: the unit has come

    DEVICE Places(const ChainArguments &a) {
        unsigned char *shared = dynamic_shared();
        units = shared + (-(uint64)shared & 1023);
        x = units + CHAIN_WARPS * a.slots * UNIT_BYTES;
        partial = (float *)(x + a.x_bytes);
        squares = partial + 2 * CHAIN_WARPS * PARTIAL_FLOATS;
        steps = (ChainStep *)(squares + CHAIN_WARPS * CHAIN_ROWS);
        arguments = (uint64 *)(steps + CHAIN_STEPS);
        full = arguments + 2 * ARGUMENT_WORDS;
    }

    // What streams through the second-level cache has driven them out.
    DEVICE void prefetch_norm(int step) const {
        const ChainStep &p = steps[step];
        int at = threadIdx.x * (128 / (int)sizeof(T));
        if (p.norm && at < p.k) prefetch((const T *)p.norm + at);
    }
};

// The first unit of a group's that the warp has; `turn` counts the block's units before it.
DEVICE int first_column(int turn) {
    return (((int)(threadIdx.x >> 5) - turn) & (CHAIN_WARPS - 1)) * UNIT_COLUMNS;
}
DEVICE int units_of(int k) { return (k + UNIT_COLUMNS - 1) / UNIT_COLUMNS; }

// Bytes from one row of x in shared memory to the next: rows lie in different banks. Zeros follow where k ends in a unit.
DEVICE int x_stride(int k) { return units_of(k) * UNIT_COLUMNS * 2 + 16; }

// The units that the warp has still to copy, of all products in order.
struct Feed {
    const ChainStep *all;
    int steps;
    int step, group, part, turn;
    int row, column, k; // of the next unit
    const TileMap *map;

    DEVICE void begin(const ChainStep *every, int count) {
        all = every;
        steps = count;
        step = part = turn = 0;
        group = all[0].first;
        open();
    }

    // Goes on to a group that the warp has units of.
    DEVICE void open() {
        while (step < steps) {
            const ChainStep &p = all[step];
            if (!p.map || group * TILE_ROWS >= p.n) {
                if (++step < steps) group = all[step].first;
                continue;
            }
            column = first_column(turn);
            turn += units_of(p.k);
            row = group * TILE_ROWS + part * p.n;
            k = p.k;
            map = p.map;
            if (++part == p.parts) {
                part = 0;
                group += gridDim.x;
            }
            if (column < k) return;
        }
    }

    // One lane copies.
    DEVICE void bring(unsigned char *slot, uint64 *full) {
        if (step == steps) return;
        if ((threadIdx.x & 31) == 0) {
            arrive_and_expect(full, UNIT_BYTES);
#pragma unroll
            for (int i = 0; i < UNIT_TILES; ++i) copy_tile(slot + i * TILE_BYTES, map, row, column + 64 * i, full);
        }
        column += CHAIN_WARPS * UNIT_COLUMNS;
        if (column >= k) open();
    }
};

// A unit and its columns of x as the tensor cores take them.
struct Operands {
    unsigned w[UNIT_STEPS][4];
    unsigned x[UNIT_STEPS / 2][4];
};

struct Chain {
    Places places;
    Feed feed;
    unsigned char *units; // of the warp
    uint64 *full;
    int slots;
    int slot;       // of the next unit
    unsigned round; // how often the ring has come round
    int turn, side;
    int in_tile[4]; // places of what this lane names to load_matrices

    DEVICE Chain(const Places &own, const ChainArguments &a) : places(own), slots(a.slots) {
        int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
        slot = turn = side = 0;
        round = 0;
        units = places.units + warp * slots * UNIT_BYTES;
        full = places.full + warp * slots;
#pragma unroll
        for (int i = 0; i < 4; ++i) in_tile[i] = tile_at((lane & 7) + (lane & 8), 2 * i + (lane >> 4));
        feed.begin(places.steps, a.steps);
#pragma unroll 1
        for (int i = 0; i < slots; ++i) feed.bring(units + i * UNIT_BYTES, full + i);
    }

    // Waits for the next unit; `x` is the lane's place for its first columns.
    DEVICE void take(Operands &o, const unsigned char *x) {
        const unsigned char *unit = units + slot * UNIT_BYTES;
#pragma unroll
        for (int i = 0; i < UNIT_STEPS / 2; ++i) load_matrices(o.x[i], x + 64 * i);
        await_phase(full + slot, round & 1);
#pragma unroll
        for (int i = 0; i < UNIT_STEPS; ++i) load_matrices(o.w[i], unit + i / 4 * TILE_BYTES + in_tile[i % 4]);
        if (++slot == slots) {
            slot = 0;
            ++round;
        }
    }

    DEVICE void multiply_unit(float (&even)[4], float (&odd)[4], const Operands &o) {
#pragma unroll
        for (int i = 0; i < UNIT_STEPS; ++i) {
            const unsigned x[2] = {o.x[i / 2][2 * (i & 1)], o.x[i / 2][2 * (i & 1) + 1]};
            mma_m16n8k16<T>(i & 1 ? odd : even, o.w[i], x);
        }
    }

    // Multiplies the unit in `now` and has the next one on its way to `next` before; whether there is one. `column` and
    // `used` are the columns of x and the slot of the unit in `now`, then of that in `next`.
    DEVICE bool advance(float (&even)[4], float (&odd)[4], const Operands &now, Operands &next, const unsigned char *x, int k,
                        int &column, int &used) {
        int after = slot;
        column += CHAIN_WARPS * UNIT_COLUMNS;
        if (column < k) take(next, x + 2 * column);
        multiply_unit(even, odd, now);
        // All lanes have what the slot held.
        __syncwarp();
        feed.bring(units + used * UNIT_BYTES, full + used);
        used = after;
        return column < k;
    }

    // Products of the next group of weight rows with x, of which `x` is the lane's place; the warp's share.
    DEVICE void multiply_group(float (&sums)[4], const unsigned char *x, int k) {
        int column = first_column(turn), used = slot;
        turn += units_of(k);
        if (column >= k) return;
        float odd[4] = {};
        Operands one, other;
        take(one, x + 2 * column);
        while (advance(sums, odd, one, other, x, k, column, used) && advance(sums, odd, other, one, x, k, column, used)) {
        }
#pragma unroll
        for (int i = 0; i < 4; ++i) sums[i] += odd[i];
    }

    // Two rows of x and two stretches of each at a time.
    DEVICE void bring_x(const LinearArguments &a) {
        constexpr int STRETCH = CHAIN_THREADS * PER_WIDE;
        int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, stride = x_stride(a.k), end = units_of(a.k) * UNIT_COLUMNS;
        for (int m = 0; m < a.rows; m += 2) {
            float squares[2] = {};
            for (int first = threadIdx.x * PER_WIDE; first < end; first += 2 * STRETCH) {
                Wide x[2][2], norm[2];
#pragma unroll
                for (int i = 0; i < 2; ++i) {
                    int at = first + i * STRETCH;
#pragma unroll
                    for (int r = 0; r < 2; ++r)
                        x[r][i] = at < a.k && m + r < a.rows ? load16(row_of(a.x, m + r) + at) : zero_wide();
                    if (a.norm) norm[i] = at < a.k ? load16((const T *)a.norm + at) : zero_wide();
                }
#pragma unroll
                for (int i = 0; i < 2; ++i)
#pragma unroll
                    for (int r = 0; r < 2; ++r) {
                        int at = first + i * STRETCH;
                        Wide value = a.norm ? normed(x[r][i], norm[i], squares[r]) : x[r][i];
                        if (at < end && m + r < a.rows) store16(places.x + (m + r) * stride + at * 2, value);
                    }
            }
            if (a.norm)
#pragma unroll
                for (int r = 0; r < 2; ++r) {
                    float sum = lanes_sum<32>(squares[r]);
                    if (lane == 0 && m + r < a.rows) places.squares[warp * CHAIN_ROWS + m + r] = sum;
                }
        }
        __syncthreads();
    }

    // Adds up the warps' sums of a group: the results of thread PARTS * q are of row q / TILE_ROWS of x and row
    // q % TILE_ROWS of the weights. The two sides take turns, so that one barrier is enough.
    DEVICE float add_warps(const float (&sums)[4]) {
        int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane >> 2, t = lane & 3;
        int q = threadIdx.x / PARTS, part = threadIdx.x % PARTS;
        float *all = places.partial + side * CHAIN_WARPS * PARTIAL_FLOATS, *own = all + warp * PARTIAL_FLOATS;
        side ^= 1;
#pragma unroll
        for (int i = 0; i < 4; ++i) own[(2 * t + (i & 1)) * PARTIAL_STRIDE + g + 8 * (i >> 1)] = sums[i];
        __syncthreads();
        float value = 0.0f;
#pragma unroll
        for (int w = 0; w < CHAIN_WARPS; w += PARTS)
            value += all[(w + part) * PARTIAL_FLOATS + q / TILE_ROWS * PARTIAL_STRIDE + q % TILE_ROWS];
        return lanes_sum<PARTS>(value);
    }

    // The norm's factor of a row.
    DEVICE float scale_of(int row, const LinearArguments &a) {
        float sum = 0.0f;
#pragma unroll
        for (int w = 0; w < CHAIN_WARPS; ++w) sum += places.squares[w * CHAIN_ROWS + row];
        return fast_rsqrt(sum / (float)a.k + a.eps) * (1.0f / NORM_SHIFT);
    }

    DEVICE void product(const LinearArguments &a, const ChainStep &p) {
        if (p.first * TILE_ROWS >= p.n) return;
        int lane = threadIdx.x & 31, m = threadIdx.x / PARTS / TILE_ROWS;
        bool storing = threadIdx.x % PARTS == 0 && m < a.rows;
        bring_x(a);
        // Rows that are not there repeat the last one; their products are not stored.
        const unsigned char *x = places.x + min(lane & 7, a.rows - 1) * x_stride(p.k) + 16 * (lane >> 3);
        float scale = a.norm ? scale_of(min(m, a.rows - 1), a) : 1.0f;
        for (int group = p.first; group * TILE_ROWS < p.n; group += gridDim.x) {
            int column = group * TILE_ROWS + threadIdx.x / PARTS % TILE_ROWS;
            bool mine = storing && column < p.n;
            // Asked for before the sum.
            float added = mine && a.bias ? to_float(((const T *)a.bias)[column]) : 0.0f;
            if (mine && a.residual.base) added += to_float(row_of(a.residual, m)[column]);
            float sums[4] = {}, ups[4] = {};
            multiply_group(sums, x, p.k);
            if (p.parts == 2) multiply_group(ups, x, p.k);
            float value = add_warps(sums) * scale;
            if (p.parts == 2) value = silu(value) * (add_warps(ups) * scale);
            if (mine) store_output(a, m, column, value + added);
        }
    }
};

DEVICE void chain_window(const AttendArguments &a) {
    int units = a.rows * a.kv_heads;
    // Neighbours go to different multiprocessors; a warp whose first lanes have nothing to do has nothing to do.
    for (int base = blockIdx.x; base < units; base += gridDim.x * (CHAIN_THREADS / LANES)) {
        int of_warp = base + (int)(threadIdx.x / 32 * (32 / LANES) * gridDim.x);
        if (of_warp < units) attend_window<CHAIN_KEYS>(a, base + (int)(threadIdx.x / LANES * gridDim.x));
    }
}

// Copies what the blocks need to know of the steps.
DEVICE void prepare(const Places &places, const ChainArguments &a) {
    constexpr int WORDS = sizeof(ChainStep) / 8;
    for (int i = threadIdx.x; i < a.steps * WORDS; i += CHAIN_THREADS) ((uint64 *)places.steps)[i] = ((const uint64 *)a.step)[i];
    for (int i = threadIdx.x; i < CHAIN_WARPS * a.slots; i += CHAIN_THREADS) begin_phases(places.full + i, 1);
    phases_begun();
    __syncthreads();
    for (int s = threadIdx.x; s < a.steps; s += CHAIN_THREADS) {
        int first = (int)blockIdx.x - places.steps[s].first;
        places.steps[s].first = first < 0 ? first + (int)gridDim.x : first;
    }
    if (threadIdx.x < ARGUMENT_WORDS) places.arguments[threadIdx.x] = places.steps[0].arguments[threadIdx.x];
    __syncthreads();
}

DEVICE void run_step(Chain &chain, const ChainStep &step, const uint64 *arguments) {
    if (step.kind == CHAIN_LINEAR) {
        chain.product(*(const LinearArguments *)arguments, step);
    } else if (step.kind == CHAIN_NORM) {
        const NormArguments &n = *(const NormArguments *)arguments;
        for (int r = blockIdx.x; r < n.rows; r += gridDim.x) {
            if (wide_norm(n))
                norm_row<PER_WIDE>(n, r);
            else
                norm_row<1>(n, r);
        }
    } else {
        const AttendArguments &t = *(const AttendArguments *)arguments;
        if (step.kind == CHAIN_WINDOW)
            chain_window(t);
        else
            for (int pair = blockIdx.x; pair < t.rows * t.kv_heads; pair += gridDim.x) attend_pair<1>(t, pair);
    }
}

extern "C" __global__ void __launch_bounds__(CHAIN_THREADS, 1) chain_m8(const __grid_constant__ ChainArguments a) {
    Places places(a);
    prepare(places, a);
    Chain chain(places, a);
    await_previous();
    for (int s = 0; s < a.steps; ++s) {
        bool more = s + 1 < a.steps;
        uint64 word = 0;
        if (more) {
            places.prefetch_norm(s + 1);
            if (threadIdx.x < ARGUMENT_WORDS) word = places.steps[s + 1].arguments[threadIdx.x];
        }
        run_step(chain, places.steps[s], places.arguments + (s & 1) * ARGUMENT_WORDS);
        if (!more) break;
        if (threadIdx.x < ARGUMENT_WORDS) places.arguments[((s + 1) & 1) * ARGUMENT_WORDS + threadIdx.x] = word;
        __syncthreads();
        if (threadIdx.x == 0) {
            count_in(a.barrier);
            wait_for_count(a.barrier, (uint64)(s + 1) * gridDim.x);
        }
        __syncthreads();
    }
    // The last to leave has everything as it was.
    if (threadIdx.x == 0 && atomicAdd(a.barrier + 1, (uint64)1) == gridDim.x - 1) a.barrier[0] = a.barrier[1] = 0;
}
