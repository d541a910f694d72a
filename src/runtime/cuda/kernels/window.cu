// Attention over a window: AttendArguments.
//
// attend_window_{4,8,16}: at most that many keys in all, as many for every row (lengths is null).
#include "window.cuh"

template <int KEYS> DEVICE void attend_windows(const AttendArguments &a) {
    release_next();
    await_previous();
    attend_window<KEYS>(a, ((int64)blockIdx.x * blockDim.x + threadIdx.x) / LANES);
}

// Blocks that share a multiprocessor with so many keys each.
__device__ constexpr int window_blocks(int keys) {
    return keys * KEY_REGISTERS <= 16 ? 4 : keys * KEY_REGISTERS <= 32 ? 3 : 1;
}
constexpr int BLOCKS_4 = window_blocks(4), BLOCKS_8 = window_blocks(8), BLOCKS_16 = window_blocks(16);

#define WINDOW(name, KEYS, BLOCKS)                                                                                     \
    extern "C" __global__ void __launch_bounds__(ATTEND_THREADS, BLOCKS) name(const __grid_constant__ AttendArguments a) { \
        attend_windows<KEYS>(a);                                                                                        \
    }
WINDOW(attend_window_4, 4, BLOCKS_4)
WINDOW(attend_window_8, 8, BLOCKS_8)
// Wider heads would not fit into registers.
#if PHOTONC_HEAD_DIM <= 128
WINDOW(attend_window_16, 16, BLOCKS_16)
#endif
