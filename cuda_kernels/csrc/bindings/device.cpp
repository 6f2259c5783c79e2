// What the bindings ask of the CUDA runtime, which is linked statically: the wheel needs none beside torch's own.
#include <cuda_runtime_api.h>

#include <array>
#include <atomic>

#include "../launchers/device.h"

namespace {
constexpr int most_devices = 64;
using Known = std::array<std::atomic<int>, most_devices>;

// An attribute of a device, which is asked for once.
int read_attribute(Known& known, cudaDeviceAttr attribute, int device, int* value) {
  const bool kept = device >= 0 && device < most_devices;
  if (kept) {
    *value = known[static_cast<std::size_t>(device)].load(std::memory_order_relaxed);
    if (*value > 0) return 0;
  }
  const cudaError_t error = cudaDeviceGetAttribute(value, attribute, device);
  if (error == cudaSuccess && kept) known[static_cast<std::size_t>(device)].store(*value, std::memory_order_relaxed);
  return static_cast<int>(error);
}

Known multiprocessors{};
Known shared_bytes{};
}  // namespace

extern "C" {

int datahall_multiprocessors(int device, int* count) {
  return read_attribute(multiprocessors, cudaDevAttrMultiProcessorCount, device, count);
}

int datahall_shared_bytes(int device, int* count) {
  return read_attribute(shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device, count);
}

const char* datahall_error_text(int error) { return cudaGetErrorString(static_cast<cudaError_t>(error)); }

}  // extern "C"
