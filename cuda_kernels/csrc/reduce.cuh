// Sums over the threads that share a row, always in the same order: equal inputs give equal bits.
#pragma once

#include "platform.cuh"

namespace datahall {

inline constexpr int warp_size = 32;
inline constexpr unsigned whole_warp = 0xffffffffu;
inline constexpr int most_warps = 1024 / warp_size;

__device__ __forceinline__ float warp_sum(float value) {
#pragma unroll
  for (int distance = warp_size / 2; distance > 0; distance /= 2) {
    value += __shfl_xor_sync(whole_warp, value, distance);
  }
  return value;
}

// The greater of two; NaN if one is.
__device__ __forceinline__ float greater(float one, float other) { return one > other || one != one ? one : other; }

__device__ __forceinline__ float warp_most(float value) {
#pragma unroll
  for (int distance = warp_size / 2; distance > 0; distance /= 2) {
    value = greater(value, __shfl_xor_sync(whole_warp, value, distance));
  }
  return value;
}

// Sums of `count` values at a time over the threads of a row: those of one warp, or of the whole block.
//
// Every thread that shares the row calls `sum` equally often. Two sets of slots take turns, so that one barrier a call
// is enough: a thread that writes a set again has passed the barrier of the call between, before which all had read it.
template <int count, bool row_is_warp>
class RowSum {
 public:
  struct Slots {
    float of[2][most_warps][count];
  };

  __device__ __forceinline__ explicit RowSum(Slots& slots) : slots_(slots) {}

  __device__ __forceinline__ void sum(float (&values)[count]) {
#pragma unroll
    for (int i = 0; i < count; ++i) values[i] = warp_sum(values[i]);
    if constexpr (!row_is_warp) {
      auto& slots = slots_.of[turn_];
      turn_ ^= 1;
      if (threadIdx.x % warp_size == 0) {
#pragma unroll
        for (int i = 0; i < count; ++i) slots[threadIdx.x / warp_size][i] = values[i];
      }
      __syncthreads();
      const int warps = static_cast<int>(blockDim.x) / warp_size;
#pragma unroll
      for (int i = 0; i < count; ++i) values[i] = 0.0f;
      for (int warp = 0; warp < warps; ++warp) {
#pragma unroll
        for (int i = 0; i < count; ++i) values[i] += slots[warp][i];
      }
    }
  }

 private:
  Slots& slots_;
  int turn_ = 0;
};

// The greatest value of the threads of a block; NaN if one is: a loss of bad logits is to be NaN.
//
// Once per block: its slots are not used again.
class RowMost {
 public:
  struct Slots {
    float of[most_warps];
  };

  __device__ __forceinline__ explicit RowMost(Slots& slots) : slots_(slots) {}

  __device__ __forceinline__ float of(float value) {
    value = warp_most(value);
    if (threadIdx.x % warp_size == 0) slots_.of[threadIdx.x / warp_size] = value;
    __syncthreads();
    const int warps = static_cast<int>(blockDim.x) / warp_size;
    float most = slots_.of[0];
    for (int warp = 1; warp < warps; ++warp) most = greater(most, slots_.of[warp]);
    return most;
  }

 private:
  Slots& slots_;
};

}  // namespace datahall
