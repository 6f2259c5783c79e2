// What the bindings ask of the CUDA runtime, which is linked statically: the wheel needs none beside torch's own.
#include <cuda_runtime_api.h>

#include <array>
#include <atomic>

#include "../launchers/device.h"

namespace {
constexpr int most_devices = 64;
std::array<std::atomic<int>, most_devices> known{};
}  // namespace

extern "C" {

int datahall_multiprocessors(int device, int* count) {
  const bool kept = device >= 0 && device < most_devices;
  if (kept) {
    *count = known[static_cast<std::size_t>(device)].load(std::memory_order_relaxed);
    if (*count > 0) return 0;
  }
  const cudaError_t error = cudaDeviceGetAttribute(count, cudaDevAttrMultiProcessorCount, device);
  if (error == cudaSuccess && kept) known[static_cast<std::size_t>(device)].store(*count, std::memory_order_relaxed);
  return static_cast<int>(error);
}

const char* datahall_error_text(int error) { return cudaGetErrorString(static_cast<cudaError_t>(error)); }

}  // extern "C"
