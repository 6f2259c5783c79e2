// The seam between our kernels and what runs them: the CUDA toolkit, or the CPU execution layer (../execution).
//
// Kernels use, beyond plain C++20, only what both sides have; ../execution/include/cuda_on_cpu.h is the list.
#pragma once

#ifdef __CUDACC__

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>
#include <cuda_runtime.h>

#include <cstddef>

namespace datahall {

// Lets `kernel` have up to `most` bytes of dynamic shared memory on the current device; to be called before each launch,
// since nobody knows on which devices it was. Who does not ask has 48 KiB, of static and dynamic shared memory together.
//
// `most` is what the device has room for, and not what one launch wants: another thread may be about to launch the same
// kernel with more.
template <typename... Parameters>
int allow_shared(void (*kernel)(Parameters...), std::size_t most) {
  return cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                              static_cast<int>(most));
}

// Starts `kernel` on `stream`; 0, or the cudaError_t that says why it was not started.
template <typename... Parameters, typename... Arguments>
int launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, std::size_t shared_bytes, void* stream,
           Arguments... arguments) {
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = static_cast<cudaStream_t>(stream);
  return cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...);
}

// Sets `bytes` bytes at `to` to zero, in the order of `stream`.
inline int clear(void* to, std::size_t bytes, void* stream) {
  return cudaMemsetAsync(to, 0, bytes, static_cast<cudaStream_t>(stream));
}

// The block's dynamic shared memory, aligned to 16 bytes. One array for all types: a kernel divides it itself.
template <typename T>
__device__ __forceinline__ T* dynamic_shared() {
  extern __shared__ __align__(16) unsigned char datahall_dynamic_shared[];
  return reinterpret_cast<T*>(datahall_dynamic_shared);
}

}  // namespace datahall

#else

#include "cuda_on_cpu.h"

#endif
