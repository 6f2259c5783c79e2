// Kernels that are right: nothing may be reported of them, in any order of blocks and threads.
#include "platform.cuh"

namespace {

__device__ float warp_sum(float value) {
  for (int distance = 16; distance > 0; distance /= 2) value += __shfl_xor_sync(0xffffffffu, value, distance);
  return value;
}

__device__ float block_sum(float value) {
  __shared__ float of_warp[32];
  value = warp_sum(value);
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = value;
  __syncthreads();
  const unsigned warps = blockDim.x / 32;
  return warp_sum(threadIdx.x % 32 < warps ? of_warp[threadIdx.x % 32] : 0.0f);
}

template <typename T>
__global__ void sum_rows(const T* x, float* y, int width) {
  float sum = 0.0f;
  for (int column = static_cast<int>(threadIdx.x); column < width; column += static_cast<int>(blockDim.x)) {
    sum += static_cast<float>(x[blockIdx.x * static_cast<unsigned>(width) + static_cast<unsigned>(column)]);
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) y[blockIdx.x] = sum;
}

__global__ void transpose(const float* x, float* y, int rows, int columns) {
  __shared__ float tile[32][33];
  const int column = static_cast<int>(blockIdx.x * 32 + threadIdx.x);
  const int first = static_cast<int>(blockIdx.y * 32);
  for (int i = static_cast<int>(threadIdx.y); i < 32; i += static_cast<int>(blockDim.y)) {
    if (first + i < rows && column < columns) tile[i][threadIdx.x] = x[(first + i) * columns + column];
  }
  __syncthreads();
  const int row = first + static_cast<int>(threadIdx.x);
  for (int i = static_cast<int>(threadIdx.y); i < 32; i += static_cast<int>(blockDim.y)) {
    const int to = static_cast<int>(blockIdx.x) * 32 + i;
    if (row < rows && to < columns) y[to * rows + row] = tile[threadIdx.x][i];
  }
}

__global__ void histogram(const int* x, unsigned* counts, long long n, int bins) {
  auto* mine = datahall::dynamic_shared<unsigned>();
  for (int bin = static_cast<int>(threadIdx.x); bin < bins; bin += static_cast<int>(blockDim.x)) mine[bin] = 0;
  __syncthreads();
  const long long stride = static_cast<long long>(gridDim.x) * blockDim.x;
  for (long long i = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += stride) {
    atomicAdd(&mine[x[i]], 1u);
  }
  __syncthreads();
  for (int bin = static_cast<int>(threadIdx.x); bin < bins; bin += static_cast<int>(blockDim.x)) {
    atomicAdd(&counts[bin], mine[bin]);
  }
}

// The block that comes last adds up what all have found.
__global__ void last_block_sum(const float* x, float* partial, unsigned* done, float* y, int n) {
  float sum = 0.0f;
  const int stride = static_cast<int>(gridDim.x * blockDim.x);
  for (int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x); i < n; i += stride) sum += x[i];
  sum = block_sum(sum);
  __shared__ bool is_last;
  if (threadIdx.x == 0) {
    partial[blockIdx.x] = sum;
    __threadfence();
    is_last = atomicAdd(done, 1u) == gridDim.x - 1;
  }
  __syncthreads();
  if (!is_last) return;
  float all = 0.0f;
  for (unsigned i = threadIdx.x; i < gridDim.x; i += blockDim.x) all += partial[i];
  all = block_sum(all);
  if (threadIdx.x == 0) *y = all;
}

__global__ void scale(const float4* x, float4* y, float factor, long long n) {
  const long long stride = static_cast<long long>(gridDim.x) * blockDim.x;
  for (long long i = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x; i < n; i += stride) {
    const float4 all = x[i];
    y[i] = make_float4(all.x * factor, all.y * factor, all.z * factor, all.w * factor);
  }
}

// Lanes hand on through shared memory, with __syncwarp alone.
__global__ void rotate_in_warp(const int* x, int* y) {
  __shared__ int handed[64];
  const unsigned thread = threadIdx.x;
  for (int round = 0; round < 3; ++round) {
    handed[thread] = x[thread] + round;
    __syncwarp();
    y[thread] = handed[thread / 32 * 32 + (thread + 1) % 32];
    __syncwarp();
  }
}

// All of the votes and exchanges of a warp, one row of y each.
__global__ void exchanges(const int* x, int* y) {
  const int lane = static_cast<int>(threadIdx.x);
  const unsigned all = 0xffffffffu;
  const int mine = x[lane];
  int row = 0;
  const auto put = [&](int value) { y[32 * row++ + lane] = value; };
  put(__shfl_sync(all, mine, 3));
  put(__shfl_sync(all, mine, 5, 8));
  put(__shfl_up_sync(all, mine, 2));
  put(__shfl_up_sync(all, mine, 3, 8));
  put(__shfl_down_sync(all, mine, 2));
  put(__shfl_down_sync(all, mine, 3, 8));
  put(__shfl_xor_sync(all, mine, 5));
  put(__shfl_xor_sync(all, mine, 9, 8));
  put(static_cast<int>(__ballot_sync(all, mine % 3 == 0)));
  put(__any_sync(all, mine == 7));
  put(__all_sync(all, mine >= 0));
  put(static_cast<int>(__match_any_sync(all, mine % 5)));
  put(__reduce_add_sync(all, mine));
  put(__reduce_max_sync(all, -mine));
  put(static_cast<int>(__reduce_min_sync(all, static_cast<unsigned>(mine) + 1u)));
  put(__syncthreads_or(mine == 7));
  put(__syncthreads_and(mine >= 1));
  put(__syncthreads_count(mine % 3 == 0));
  const unsigned half = lane < 16 ? 0x0000ffffu : 0xffff0000u;
  put(__shfl_sync(half, mine, lane < 16 ? 15 : 16));
  put(static_cast<int>(__shfl_sync(all, static_cast<double>(mine) + 0.5, 4)));
  put(static_cast<int>(__shfl_xor_sync(all, (static_cast<long long>(mine) << 32) + mine, 1) >> 32));
}

struct Tensor {
  const float* from;
  float* to;
  long long count;
};

__global__ void double_all(const Tensor* tensors) {
  const Tensor tensor = tensors[blockIdx.x];
  for (long long i = threadIdx.x; i < tensor.count; i += blockDim.x) tensor.to[i] = 2.0f * tensor.from[i];
}

__device__ __forceinline__ void all_wait() { __syncthreads(); }

// One barrier at two places of the code, as unrolling a loop makes them.
__global__ void meet_at_one_line(int* y) {
  const int thread = static_cast<int>(threadIdx.x);
  if (thread < 32) {
    y[thread] = 1;
    all_wait();
  } else {
    y[thread] = 2;
    all_wait();
  }
}

}  // namespace

extern "C" {

int double_all_of(const Tensor* tensors, long long count) {
  return datahall::launch(double_all, dim3(static_cast<unsigned>(count)), dim3(32), 0, nullptr, tensors);
}

int sum_rows_of_float(const float* x, float* y, long long rows, long long width, long long threads) {
  return datahall::launch(sum_rows<float>, dim3(static_cast<unsigned>(rows)), dim3(static_cast<unsigned>(threads)), 0,
                          nullptr, x, y, static_cast<int>(width));
}

int sum_rows_of_bfloat16(const __nv_bfloat16* x, float* y, long long rows, long long width, long long threads) {
  return datahall::launch(sum_rows<__nv_bfloat16>, dim3(static_cast<unsigned>(rows)),
                          dim3(static_cast<unsigned>(threads)), 0, nullptr, x, y, static_cast<int>(width));
}

int transpose_of(const float* x, float* y, long long rows, long long columns) {
  const dim3 grid(static_cast<unsigned>((columns + 31) / 32), static_cast<unsigned>((rows + 31) / 32));
  return datahall::launch(transpose, grid, dim3(32, 8), 0, nullptr, x, y, static_cast<int>(rows),
                          static_cast<int>(columns));
}

int histogram_of(const int* x, unsigned* counts, long long n, long long bins) {
  const int error = datahall::clear(counts, static_cast<std::size_t>(bins) * sizeof(unsigned), nullptr);
  if (error != 0) return error;
  return datahall::launch(histogram, dim3(7), dim3(96), static_cast<std::size_t>(bins) * sizeof(unsigned), nullptr, x,
                          counts, n, static_cast<int>(bins));
}

int last_block_sum_of(const float* x, float* partial, unsigned* done, float* y, long long n, long long blocks) {
  const int error = datahall::clear(done, sizeof(unsigned), nullptr);
  if (error != 0) return error;
  return datahall::launch(last_block_sum, dim3(static_cast<unsigned>(blocks)), dim3(64), 0, nullptr, x, partial, done,
                          y, static_cast<int>(n));
}

int scale_of(const float4* x, float4* y, float factor, long long n, long long blocks) {
  return datahall::launch(scale, dim3(static_cast<unsigned>(blocks)), dim3(128), 0, nullptr, x, y, factor, n);
}

int rotate_in_warp_of(const int* x, int* y) {
  return datahall::launch(rotate_in_warp, dim3(1), dim3(64), 0, nullptr, x, y);
}

int meet_at_one_line_of(int* y) { return datahall::launch(meet_at_one_line, dim3(1), dim3(64), 0, nullptr, y); }

int exchanges_of(const int* x, int* y) { return datahall::launch(exchanges, dim3(1), dim3(32), 0, nullptr, x, y); }

}  // extern "C"
