// What a kernel may use of CUDA, for g++: names and meanings as in CUDA, run by ../runtime.
//
// A kernel source is compiled as C++ with -fsanitize=thread, for its instrumentation only: each load and store calls
// the runtime with its address first. Anything of CUDA that is not here does not compile, on purpose.
#pragma once

#include <math.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <tuple>

#include "cuda_types.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __restrict__ __restrict
#define __align__(bytes) alignas(bytes)
// Blocks run one after the other on one OS thread. Thread-local for its place alone: the shared arrays of a library are
// its thread-local segment, so that the runtime finds each of them, with its extent, in the symbol table.
#define __shared__ static thread_local

// Constant within a kernel, as far as any one thread can see: the compiler may keep it.
#define threadIdx (::datahall::on_cpu::thread_index())
#define blockIdx (::datahall::on_cpu::block_index())
#define blockDim (::datahall::on_cpu::block_shape())
#define gridDim (::datahall::on_cpu::grid_shape())
#define warpSize 32

enum cudaError_t : int {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorLaunchFailure = 719,
};

namespace datahall::on_cpu {

extern "C" {
// memcpy and its kind are no loads and stores of the source's: these look at all the bytes.
void* datahall_cpu_copy(void* to, const void* from, std::size_t bytes);
void* datahall_cpu_fill(void* to, int value, std::size_t bytes);

uint3 datahall_cpu_thread_index() __attribute__((const));
uint3 datahall_cpu_block_index() __attribute__((const));
uint3 datahall_cpu_block_shape() __attribute__((const));
uint3 datahall_cpu_grid_shape() __attribute__((const));

void datahall_cpu_barrier();
int datahall_cpu_barrier_vote(int how, int predicate);  // 0 or, 1 and, 2 count
void datahall_cpu_warp_barrier(unsigned mask);
void datahall_cpu_fence(int of_device);
// how: 0 from lane `operand`, 1 up, 2 down, 3 xor
unsigned long long datahall_cpu_shuffle(int how, unsigned mask, unsigned long long bits, int operand, int width);
// how: 0 ballot, 1 any, 2 all
unsigned datahall_cpu_vote(int how, unsigned mask, int predicate);
unsigned datahall_cpu_match(unsigned mask, unsigned long long bits, int bytes);
// how: 0 add, 1 max of unsigned, 2 min of unsigned, 3 max of int, 4 min of int
unsigned datahall_cpu_reduce(int how, unsigned mask, unsigned value);
// how: 0 add, 1 add of float, 2 exchange, 3 compare and swap, 4 to 7 max and min, of unsigned and of int
unsigned long long datahall_cpu_atomic(int how, void* at, int bytes, unsigned long long operand,
                                       unsigned long long expected);

void* datahall_cpu_dynamic_shared();
void datahall_cpu_allow_shared(const void* kernel, std::size_t most);
int datahall_cpu_launch(const void* kernel, void (*call)(const void*), const void* arguments,
                        std::size_t arguments_bytes, const unsigned* grid, const unsigned* block,
                        std::size_t shared_bytes);
int datahall_cpu_clear(void* to, std::size_t bytes);
}

__forceinline__ uint3 thread_index() { return datahall_cpu_thread_index(); }
__forceinline__ uint3 block_index() { return datahall_cpu_block_index(); }
__forceinline__ dim3 block_shape() {
  const uint3 shape = datahall_cpu_block_shape();
  return dim3(shape.x, shape.y, shape.z);
}
__forceinline__ dim3 grid_shape() {
  const uint3 shape = datahall_cpu_grid_shape();
  return dim3(shape.x, shape.y, shape.z);
}

template <typename T>
concept Word = (sizeof(T) == 4 || sizeof(T) == 8) && std::is_arithmetic_v<T>;

template <Word T>
__forceinline__ unsigned long long to_bits(T value) {
  if constexpr (sizeof(T) == 4) {
    return __builtin_bit_cast(unsigned, value);
  } else {
    return __builtin_bit_cast(unsigned long long, value);
  }
}

template <Word T>
__forceinline__ T from_bits(unsigned long long bits) {
  if constexpr (sizeof(T) == 4) {
    return __builtin_bit_cast(T, static_cast<unsigned>(bits));
  } else {
    return __builtin_bit_cast(T, bits);
  }
}

}  // namespace datahall::on_cpu

// Calls of these in kernel sources go to the runtime, and so do those that the compiler makes of them.
extern "C" {
void* memcpy(void*, const void*, std::size_t) noexcept __asm__("datahall_cpu_copy");
void* memmove(void*, const void*, std::size_t) noexcept __asm__("datahall_cpu_copy");
void* memset(void*, int, std::size_t) noexcept __asm__("datahall_cpu_fill");
}

// Barriers and fences

__forceinline__ void __syncthreads() { datahall::on_cpu::datahall_cpu_barrier(); }
__forceinline__ int __syncthreads_or(int predicate) {
  return datahall::on_cpu::datahall_cpu_barrier_vote(0, predicate != 0);
}
__forceinline__ int __syncthreads_and(int predicate) {
  return datahall::on_cpu::datahall_cpu_barrier_vote(1, predicate != 0);
}
__forceinline__ int __syncthreads_count(int predicate) {
  return datahall::on_cpu::datahall_cpu_barrier_vote(2, predicate != 0);
}
__forceinline__ void __syncwarp(unsigned mask = 0xffffffffu) { datahall::on_cpu::datahall_cpu_warp_barrier(mask); }
__forceinline__ void __threadfence() { datahall::on_cpu::datahall_cpu_fence(1); }
__forceinline__ void __threadfence_block() { datahall::on_cpu::datahall_cpu_fence(0); }

// Exchange within a warp

template <datahall::on_cpu::Word T>
__forceinline__ T __shfl_sync(unsigned mask, T value, int lane, int width = 32) {
  using namespace datahall::on_cpu;
  return from_bits<T>(datahall_cpu_shuffle(0, mask, to_bits(value), lane, width));
}
template <datahall::on_cpu::Word T>
__forceinline__ T __shfl_up_sync(unsigned mask, T value, unsigned distance, int width = 32) {
  using namespace datahall::on_cpu;
  return from_bits<T>(datahall_cpu_shuffle(1, mask, to_bits(value), static_cast<int>(distance), width));
}
template <datahall::on_cpu::Word T>
__forceinline__ T __shfl_down_sync(unsigned mask, T value, unsigned distance, int width = 32) {
  using namespace datahall::on_cpu;
  return from_bits<T>(datahall_cpu_shuffle(2, mask, to_bits(value), static_cast<int>(distance), width));
}
template <datahall::on_cpu::Word T>
__forceinline__ T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32) {
  using namespace datahall::on_cpu;
  return from_bits<T>(datahall_cpu_shuffle(3, mask, to_bits(value), lanes, width));
}
__forceinline__ unsigned __ballot_sync(unsigned mask, int predicate) {
  return datahall::on_cpu::datahall_cpu_vote(0, mask, predicate != 0);
}
__forceinline__ int __any_sync(unsigned mask, int predicate) {
  return static_cast<int>(datahall::on_cpu::datahall_cpu_vote(1, mask, predicate != 0));
}
__forceinline__ int __all_sync(unsigned mask, int predicate) {
  return static_cast<int>(datahall::on_cpu::datahall_cpu_vote(2, mask, predicate != 0));
}
template <datahall::on_cpu::Word T>
__forceinline__ unsigned __match_any_sync(unsigned mask, T value) {
  using namespace datahall::on_cpu;
  return datahall_cpu_match(mask, to_bits(value), sizeof(T));
}
__forceinline__ unsigned __reduce_add_sync(unsigned mask, unsigned value) {
  return datahall::on_cpu::datahall_cpu_reduce(0, mask, value);
}
__forceinline__ int __reduce_add_sync(unsigned mask, int value) {
  return static_cast<int>(datahall::on_cpu::datahall_cpu_reduce(0, mask, static_cast<unsigned>(value)));
}
__forceinline__ unsigned __reduce_max_sync(unsigned mask, unsigned value) {
  return datahall::on_cpu::datahall_cpu_reduce(1, mask, value);
}
__forceinline__ int __reduce_max_sync(unsigned mask, int value) {
  return static_cast<int>(datahall::on_cpu::datahall_cpu_reduce(3, mask, static_cast<unsigned>(value)));
}
__forceinline__ unsigned __reduce_min_sync(unsigned mask, unsigned value) {
  return datahall::on_cpu::datahall_cpu_reduce(2, mask, value);
}
__forceinline__ int __reduce_min_sync(unsigned mask, int value) {
  return static_cast<int>(datahall::on_cpu::datahall_cpu_reduce(4, mask, static_cast<unsigned>(value)));
}

// Atomics: each returns what was there before.

namespace datahall::on_cpu {
template <typename T>
concept Integer = std::is_same_v<T, int> || std::is_same_v<T, unsigned> || std::is_same_v<T, unsigned long long>;

template <Integer T>
__forceinline__ T atomic(int how, T* at, T operand, T expected = 0) {
  return from_bits<T>(datahall_cpu_atomic(how, at, sizeof(T), to_bits(operand), to_bits(expected)));
}
template <typename T>
inline constexpr int signed_order = std::is_signed_v<T> ? 2 : 0;
}  // namespace datahall::on_cpu

__forceinline__ float atomicAdd(float* at, float value) {
  using namespace datahall::on_cpu;
  return from_bits<float>(datahall_cpu_atomic(1, at, sizeof(float), to_bits(value), 0));
}
#define DATAHALL_ATOMICS_OF(T)                                                                              \
  __forceinline__ T atomicAdd(T* at, T value) { return datahall::on_cpu::atomic(0, at, value); }            \
  __forceinline__ T atomicExch(T* at, T value) { return datahall::on_cpu::atomic(2, at, value); }           \
  __forceinline__ T atomicCAS(T* at, T expected, T value) {                                                 \
    return datahall::on_cpu::atomic(3, at, value, expected);                                                \
  }                                                                                                         \
  __forceinline__ T atomicMax(T* at, T value) {                                                             \
    return datahall::on_cpu::atomic(4 + datahall::on_cpu::signed_order<T>, at, value);                      \
  }                                                                                                         \
  __forceinline__ T atomicMin(T* at, T value) {                                                             \
    return datahall::on_cpu::atomic(5 + datahall::on_cpu::signed_order<T>, at, value);                      \
  }
DATAHALL_ATOMICS_OF(int)
DATAHALL_ATOMICS_OF(unsigned)
DATAHALL_ATOMICS_OF(unsigned long long)
#undef DATAHALL_ATOMICS_OF
__forceinline__ float atomicExch(float* at, float value) {
  using namespace datahall::on_cpu;
  return from_bits<float>(datahall_cpu_atomic(2, at, sizeof(float), to_bits(value), 0));
}

// Loads and stores with a hint for the cache

template <typename T>
__forceinline__ T __ldg(const T* from) {
  return *from;
}
template <typename T>
__forceinline__ T __ldcs(const T* from) {
  return *from;
}
template <typename T>
__forceinline__ void __stcs(T* to, T value) {
  *to = value;
}

#include "cuda_arithmetic.h"
#include "cuda_small_floats.h"

namespace datahall {

// As in ../../csrc/platform.cuh: what a kernel may have of dynamic shared memory, if it is more than is had unasked.
template <typename... Parameters>
int allow_shared(void (*kernel)(Parameters...), std::size_t most) {
  on_cpu::datahall_cpu_allow_shared(reinterpret_cast<const void*>(kernel), most);
  return cudaSuccess;
}

// Runs `kernel` to its end; 0, cudaErrorInvalidConfiguration, or cudaErrorLaunchFailure if anything is to be reported.
template <typename... Parameters, typename... Arguments>
int launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, std::size_t shared_bytes, void* /* stream */,
           Arguments... arguments) {
  struct Call {
    void (*kernel)(Parameters...);
    std::tuple<Parameters...> arguments;
  };
  const Call call{kernel, {static_cast<Parameters>(arguments)...}};
  const auto run = [](const void* what) {
    const auto& self = *static_cast<const Call*>(what);
    std::apply(self.kernel, self.arguments);
  };
  const unsigned grid_shape[3] = {grid.x, grid.y, grid.z};
  const unsigned block_shape[3] = {block.x, block.y, block.z};
  return on_cpu::datahall_cpu_launch(reinterpret_cast<const void*>(kernel), run, &call, sizeof call, grid_shape,
                                     block_shape, shared_bytes);
}

inline int clear(void* to, std::size_t bytes, void* /* stream */) { return on_cpu::datahall_cpu_clear(to, bytes); }

template <typename T>
__device__ __forceinline__ T* dynamic_shared() {
  return static_cast<T*>(on_cpu::datahall_cpu_dynamic_shared());
}

}  // namespace datahall
