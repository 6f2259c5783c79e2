// What the bindings of all ops share: how arguments are looked at and refused, and where a launch goes.
//
// A binding checks the arguments, allocates the outputs and calls the launcher. Schemas, gradients and shapes are in
// Python (datahall_kernels/); the checks say what its checks say, in the same words.
//
// Nothing here waits for the GPU, and workspace comes from torch's allocator: ops can be captured into a CUDA graph.
//
// DATAHALL_BINDINGS_ON_CPU builds the same code for CPU tensors, under the namespace `datahall_bindings`, so that the
// tests can run it without a GPU. Define it for tests only.
#pragma once

#include <dlfcn.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "../launchers/device.h"

#ifdef DATAHALL_BINDINGS_ON_CPU
#define DATAHALL_NAMESPACE datahall_bindings
#define DATAHALL_DISPATCH_KEY CPU
#else
#define DATAHALL_NAMESPACE datahall
#define DATAHALL_DISPATCH_KEY CUDA
#endif

namespace datahall::bindings {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Optional = std::optional<Tensor>;

template <typename... Parts>
[[noreturn]] void refuse(const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  throw std::runtime_error(text.str());
}

// Codes of dtypes.cuh; -1 for a type that the kernels do not know.
inline int code_of(ScalarType type) {
  switch (type) {
    case ScalarType::Float:
      return 0;
    case ScalarType::BFloat16:
      return 1;
    case ScalarType::Half:
      return 2;
    default:
      return -1;
  }
}

inline std::string name_of(ScalarType type) {
  switch (type) {
    case ScalarType::Float:
      return "torch.float32";
    case ScalarType::BFloat16:
      return "torch.bfloat16";
    case ScalarType::Half:
      return "torch.float16";
    case ScalarType::Double:
      return "torch.float64";
    case ScalarType::Float8_e4m3fn:
      return "torch.float8_e4m3fn";
    case ScalarType::Bool:
      return "torch.bool";
    case ScalarType::Byte:
      return "torch.uint8";
    case ScalarType::Char:
      return "torch.int8";
    case ScalarType::Int:
      return "torch.int32";
    case ScalarType::Long:
      return "torch.int64";
    default:
      return "of another type";
  }
}

template <typename Sizes>
std::string list_of(const Sizes& sizes) {
  std::ostringstream text;
  text << '[';
  for (std::size_t i = 0; i < sizes.size(); ++i) text << (i > 0 ? ", " : "") << sizes[i];
  text << ']';
  return text.str();
}

inline std::string device_of(const Tensor& tensor) {
  if (tensor.is_cpu()) return "cpu";
  if (tensor.is_cuda()) return "cuda:" + std::to_string(tensor.get_device_index());
  return "another kind of device";
}

// The checks that every op makes of a tensor; `op` and `name` are the words that a refusal begins with.
inline void check_floating(const char* op, const char* name, const Tensor& tensor) {
  if (code_of(tensor.scalar_type()) < 0) {
    refuse(op, ": ", name, " is ", name_of(tensor.scalar_type()),
           "; it must be float32, bfloat16 or float16 (float64 on the CPU)");
  }
}

inline void check_typed(const char* op, const char* name, const Tensor& tensor, ScalarType type,
                        const char* why = "") {
  if (tensor.scalar_type() != type) {
    refuse(op, ": ", name, " is ", name_of(tensor.scalar_type()), "; it must be ", name_of(type), why);
  }
}

inline void check_shaped(const char* op, const char* name, const Tensor& tensor, const std::vector<int64_t>& shape,
                         const char* why) {
  if (list_of(tensor.sizes()) != list_of(shape)) {
    refuse(op, ": ", name, " has shape ", list_of(tensor.sizes()), "; it must be ", list_of(shape), why);
  }
}

inline void check_contiguous(const char* op, const char* name, const Tensor& tensor) {
  if (!tensor.is_contiguous()) {
    refuse(op, ": ", name, " has strides ", list_of(tensor.strides()), "; it must be contiguous");
  }
}

inline void check_same_device(const char* op, const char* name, const Tensor& tensor, const Tensor& x,
                              const char* x_name = "x") {
  if (device_of(tensor) != device_of(x)) {
    refuse(op, ": ", name, " is on ", device_of(tensor), "; it must be on ", device_of(x), " as ", x_name, " is");
  }
}

// What a launcher returned.
inline void check_launch(const char* op, int error) {
  if (error != 0) refuse(op, ": CUDA error ", error, ": ", datahall_error_text(error));
}

inline const void* read(const Tensor& tensor) { return tensor.const_data_ptr(); }
inline const void* read(const Optional& tensor) { return tensor.has_value() ? tensor->const_data_ptr() : nullptr; }
inline const float* read_floats(const Tensor& tensor) { return static_cast<const float*>(tensor.const_data_ptr()); }
inline void* write(const Tensor& tensor) { return tensor.numel() > 0 ? tensor.mutable_data_ptr() : nullptr; }
inline float* write_floats(const Tensor& tensor) { return static_cast<float*>(write(tensor)); }

#ifdef DATAHALL_BINDINGS_ON_CPU

struct OnDevice {
  explicit OnDevice(const Tensor&) {}
  void* stream = nullptr;
  int multiprocessors = 4;
};

#else

using CurrentStream = AOTITorchError (*)(int32_t device, void** stream);

// It is in libtorch_cuda.so, which a torch without CUDA does not have; the library must load there all the same.
inline CurrentStream find_current_stream() {
  void* library = dlopen("libtorch_cuda.so", RTLD_LAZY | RTLD_NOLOAD);
  void* found = library == nullptr ? nullptr : dlsym(library, "aoti_torch_get_current_cuda_stream");
  if (found == nullptr) refuse("datahall: torch's CUDA library is not loaded, but there is a CUDA tensor");
  return reinterpret_cast<CurrentStream>(found);
}

// Makes the tensor's device the current one while it lives.
struct OnDevice {
  explicit OnDevice(const Tensor& x) : guard(x.get_device_index()) {
    static const CurrentStream current_stream = find_current_stream();
    const int device = x.get_device_index();
    if (current_stream(device, &stream) != AOTI_TORCH_SUCCESS) refuse("datahall: no current stream of cuda:", device);
    const int error = datahall_multiprocessors(device, &multiprocessors);
    if (error != 0) refuse("datahall: CUDA error ", error, ": ", datahall_error_text(error));
  }
  torch::stable::accelerator::DeviceGuard guard;
  void* stream = nullptr;
  int multiprocessors = 0;
};

#endif

}  // namespace datahall::bindings
