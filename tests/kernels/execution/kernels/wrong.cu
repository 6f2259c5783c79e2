// Kernels with one error each, on the line with `here`; where two lines are named, the other one has `there`.
#include "platform.cuh"

namespace {

__global__ void missing_barrier(const float* x, float* y) {
  __shared__ float tile[64];
  tile[threadIdx.x] = x[threadIdx.x];  // there: missing_barrier
  y[threadIdx.x] = tile[(threadIdx.x + 32) % 64];  // here: missing_barrier
}

__global__ void barrier_only_before(const float* x, float* y) {
  __shared__ float tile[64];
  for (int round = 0; round < 2; ++round) {
    tile[threadIdx.x] = x[threadIdx.x];  // here: barrier_only_before
    __syncthreads();
    y[threadIdx.x] = tile[(threadIdx.x + 32) % 64];  // there: barrier_only_before
  }
}

__global__ void beyond_the_end(const float* x, float* y) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  y[i] = x[i < 100 ? i : 99];  // here: beyond_the_end
}

__global__ void before_the_start(const float* x, float* y) {
  const int i = static_cast<int>(threadIdx.x);
  y[i] = x[i - 1];  // here: before_the_start
}

__global__ void beyond_shared_memory(const float* x, float* y) {
  __shared__ float tile[32];
  __shared__ float other[32];
  float* at = tile;
  at[threadIdx.x + 1] = x[threadIdx.x];  // here: beyond_shared_memory
  other[threadIdx.x] = 0.0f;
  __syncthreads();
  y[threadIdx.x] = tile[threadIdx.x == 0 ? 1 : threadIdx.x] + other[threadIdx.x];
}

__global__ void index_beyond_its_row(const float* x, float* y) {
  __shared__ float tile[2][16];
  tile[threadIdx.x / 16][threadIdx.x % 16] = x[threadIdx.x];
  __syncthreads();
  const int column = static_cast<int>(threadIdx.x) + 16;
  y[threadIdx.x] = threadIdx.x < 16 ? tile[0][column] : 0.0f;  // here: index_beyond_its_row
}

__global__ void beyond_dynamic_shared_memory(const float* x, float* y) {
  auto* tile = datahall::dynamic_shared<float>();
  tile[threadIdx.x] = x[threadIdx.x];  // here: beyond_dynamic_shared_memory
  y[threadIdx.x] = tile[threadIdx.x];
}

__global__ void null_pointer(const float* x, float* y) {
  y[threadIdx.x] = x[threadIdx.x];  // here: null_pointer
}

__global__ void divergent_barrier(const float* x, float* y) {
  if (threadIdx.x >= 48) return;
  y[threadIdx.x] = x[threadIdx.x];
  __syncthreads();  // here: divergent_barrier
}

__global__ void barrier_of_one_branch(const float* x, float* y) {
  if (threadIdx.x < 32) {
    __syncthreads();  // there: barrier_of_one_branch
  } else {
    __syncthreads();  // here: barrier_of_one_branch
  }
  y[threadIdx.x] = x[threadIdx.x];
}

__global__ void barrier_within_a_warp(const float* x, float* y) {
  float value = x[threadIdx.x];
  if (threadIdx.x % 32 < 16) {
    __syncthreads();  // here: barrier_within_a_warp
  } else {
    value = __shfl_xor_sync(0xffffffffu, value, 1);  // there: barrier_within_a_warp
  }
  y[threadIdx.x] = value;
}

__global__ void shuffle_of_an_absent_lane(const float* x, float* y) {
  y[threadIdx.x] = __shfl_down_sync(0xffffffffu, x[threadIdx.x], 1);  // here: shuffle_of_an_absent_lane
}

__global__ void shuffle_after_lanes_ended(const float* x, float* y) {
  if (threadIdx.x >= 20) return;
  y[threadIdx.x] = __shfl_xor_sync(0xffffffffu, x[threadIdx.x], 1);  // here: shuffle_after_lanes_ended
}

__global__ void shuffle_from_outside_the_mask(const float* x, float* y) {
  float value = 0.0f;
  if (threadIdx.x < 16) value = __shfl_sync(0x0000ffffu, x[threadIdx.x], 16);  // here: shuffle_from_outside_the_mask
  y[threadIdx.x] = value;
}

__global__ void not_in_its_own_mask(const float* x, float* y) {
  float value = 0.0f;
  if (threadIdx.x < 16) value = __shfl_sync(0x00007fffu, x[threadIdx.x], 0);  // here: not_in_its_own_mask
  y[threadIdx.x] = value;
}

__global__ void race_within_a_warp(const float* x, float* y) {
  __shared__ float tile[32];
  tile[threadIdx.x] = x[threadIdx.x];  // there: race_within_a_warp
  y[threadIdx.x] = tile[threadIdx.x ^ 1];  // here: race_within_a_warp
}

__global__ void shuffle_as_barrier(const float* x, float* y) {
  __shared__ float tile[32];
  tile[threadIdx.x] = x[threadIdx.x];  // there: shuffle_as_barrier
  const float other = __shfl_xor_sync(0xffffffffu, x[threadIdx.x], 1);
  y[threadIdx.x] = tile[threadIdx.x ^ 1] + other;  // here: shuffle_as_barrier
}

__global__ void uninitialised_shared_memory(const float* x, float* y) {
  __shared__ float tile[64];
  if (threadIdx.x != 5) tile[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  y[threadIdx.x] = tile[threadIdx.x];  // here: uninitialised_shared_memory
}

__global__ void uninitialised_output(const float* x, float* y) {
  y[threadIdx.x] += x[threadIdx.x];  // here: uninitialised_output
}

__global__ void misaligned_vector(const float* x, float* y) {
  const float4 all = *reinterpret_cast<const float4*>(x + 1);  // here: misaligned_vector
  y[threadIdx.x] = all.x + all.y + all.z + all.w;
}

__global__ void write_to_an_input(const float* x, float* y) {
  const_cast<float*>(x)[threadIdx.x] = 0.0f;  // here: write_to_an_input
  y[threadIdx.x] = 0.0f;
}

__global__ void blocks_write_the_same(const float* x, float* y) {
  y[threadIdx.x] = x[blockIdx.x];  // here: blocks_write_the_same
}

__global__ void block_reads_what_another_wrote(const float* x, float* y) {
  y[blockIdx.x * 64 + threadIdx.x] = x[threadIdx.x];  // there: block_reads_what_another_wrote
  if (blockIdx.x == 1) y[64] += y[threadIdx.x];  // here: block_reads_what_another_wrote
}

// As last_block_sum in right.cu, but for the fence.
__global__ void no_fence(const float* x, float* y) {
  auto* done = reinterpret_cast<unsigned*>(y + 8);
  __shared__ bool is_last;
  if (threadIdx.x == 0) {
    y[blockIdx.x] = x[blockIdx.x];  // there: no_fence
    __threadfence_block();
    is_last = atomicAdd(done, 1u) == gridDim.x - 1;
  }
  __syncthreads();
  if (is_last && threadIdx.x == 1) y[9] = y[0] + y[1];  // here: no_fence
}

__global__ void plain_beside_atomic(const float* x, float* y) {
  if (threadIdx.x == 40) {
    y[0] = x[0];  // here: plain_beside_atomic
  } else {
    atomicAdd(&y[0], x[0]);  // there: plain_beside_atomic
  }
}

__global__ void copy_beyond_the_end(const float* x, float* y) {
  if (threadIdx.x == 0) memcpy(y, x, 4 * 101);  // here: copy_beyond_the_end
}

__global__ void overflowing_index(const float* x, float* y) {
  const int width = 65536;
  const int row = static_cast<int>(threadIdx.x) + 32768;
  const int at = row * width;  // here: overflowing_index
  y[threadIdx.x] = x[at == 0 ? 0 : 1];
}

__global__ void endless(const float*, float* y) {
  while (atomicAdd(&y[0], 0.0f) != 2.0f) {  // here: endless
  }
}

// A sequence that ends, as far as anybody knows, but not for 0.
__global__ void endless_without_access(const float*, float* y) {
  unsigned long long number = threadIdx.x;
  while (number != 1) number = number % 2 == 0 ? number / 2 : 3 * number + 1;  // here: endless_without_access
  y[threadIdx.x] = static_cast<float>(number);
}

__global__ void too_much_shared_memory(const float* x, float* y) {
  __shared__ float tile[12 * 1024 + 1];
  tile[threadIdx.x] = x[threadIdx.x];
  y[threadIdx.x] = tile[threadIdx.x];
}

__global__ void more_shared_memory_than_asked_for(const float* x, float* y) {
  __shared__ float tile[4 * 1024];
  tile[threadIdx.x] = x[threadIdx.x];
  y[threadIdx.x] = tile[threadIdx.x];
}

}  // namespace

#define LAUNCHER(kernel, blocks, threads, shared_bytes)                                           \
  extern "C" int launch_##kernel(const float* x, float* y) {                                      \
    return datahall::launch(kernel, dim3 blocks, dim3 threads, shared_bytes, nullptr, x, y);      \
  }
LAUNCHER(missing_barrier, (1), (64), 0)
LAUNCHER(barrier_only_before, (1), (64), 0)
LAUNCHER(beyond_the_end, (2), (64), 0)
LAUNCHER(before_the_start, (1), (64), 0)
LAUNCHER(beyond_shared_memory, (1), (32), 0)
LAUNCHER(index_beyond_its_row, (1), (32), 0)
LAUNCHER(beyond_dynamic_shared_memory, (1), (64), 252)
LAUNCHER(null_pointer, (1), (64), 0)
LAUNCHER(divergent_barrier, (1), (64), 0)
LAUNCHER(barrier_of_one_branch, (1), (64), 0)
LAUNCHER(barrier_within_a_warp, (1), (64), 0)
LAUNCHER(shuffle_of_an_absent_lane, (1), (20), 0)
LAUNCHER(shuffle_after_lanes_ended, (1), (32), 0)
LAUNCHER(shuffle_from_outside_the_mask, (1), (32), 0)
LAUNCHER(not_in_its_own_mask, (1), (32), 0)
LAUNCHER(race_within_a_warp, (1), (32), 0)
LAUNCHER(shuffle_as_barrier, (1), (32), 0)
LAUNCHER(uninitialised_shared_memory, (1), (64), 0)
LAUNCHER(uninitialised_output, (1), (64), 0)
LAUNCHER(misaligned_vector, (1), (64), 0)
LAUNCHER(write_to_an_input, (1), (64), 0)
LAUNCHER(blocks_write_the_same, (2), (64), 0)
LAUNCHER(block_reads_what_another_wrote, (2), (32), 0)
LAUNCHER(plain_beside_atomic, (1), (64), 0)
LAUNCHER(copy_beyond_the_end, (1), (32), 0)
LAUNCHER(overflowing_index, (1), (2), 0)
LAUNCHER(endless, (1), (32), 0)
LAUNCHER(endless_without_access, (1), (32), 0)
LAUNCHER(too_much_shared_memory, (1), (32), 0)
LAUNCHER(more_shared_memory_than_asked_for, (1), (32), 32 * 1024 + 4)

extern "C" int launch_no_fence(const float* x, float* y) {
  const int error = datahall::clear(y, 100 * sizeof(float), nullptr);
  return error != 0 ? error : datahall::launch(no_fence, dim3(2), dim3(32), 0, nullptr, x, y);
}

#define SHAPE(name, grid, block, shared_bytes)                                                    \
  extern "C" int launch_##name(const float* x, float* y) {                                        \
    return datahall::launch(null_pointer, dim3 grid, dim3 block, shared_bytes, nullptr, x, y);    \
  }
SHAPE(no_blocks, (0), (32), 0)
SHAPE(too_many_threads, (1), (1025), 0)
SHAPE(too_many_threads_together, (1), (32, 33), 0)
SHAPE(too_deep_a_block, (1), (1, 1, 65), 0)
SHAPE(too_high_a_grid, (1, 65536), (32), 0)
SHAPE(too_much_dynamic_shared_memory, (1), (32), 48 * 1024 + 1)

extern "C" int launch_too_much_asked_for(const float* x, float* y) {
  const int error = datahall::allow_shared(too_much_shared_memory, 227 * 1024 + 1);
  return error != 0 ? error : datahall::launch(too_much_shared_memory, dim3(1), dim3(32), 0, nullptr, x, y);
}
