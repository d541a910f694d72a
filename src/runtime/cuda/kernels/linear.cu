// Matrix products of any size, type and alignment, without tensor cores: LinearArguments. Few rows that can have it better
// go to skinny.cu, many to cuBLASLt.
#include "general.cuh"

// Weights in the type of the model.
struct Stored {
    const T *weight;
    int k;

    DEVICE float at(int64 row, int column) const { return to_float(weight[row * k + column]); }
};

extern "C" __global__ void __launch_bounds__(LINEAR_THREADS) linear_any(const __grid_constant__ LinearArguments a) {
    release_next();
    await_previous();
    any_product(a, Stored{(const T *)a.weight, a.k});
}
