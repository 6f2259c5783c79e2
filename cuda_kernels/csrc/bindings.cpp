// The ops of namespace `datahall` for CUDA tensors, on torch's stable ABI: arguments are checked, outputs allocated, the
// launcher called. Schemas, gradients and shapes are in Python (datahall_kernels/ops.py); the checks say what
// datahall_kernels/checks.py says, in the same words.
//
// Nothing here waits for the GPU, and workspace comes from torch's allocator: ops can be captured into a CUDA graph.
//
// DATAHALL_BINDINGS_ON_CPU builds the same code for CPU tensors, under the namespace `datahall_bindings`, so that the
// tests can run it without a GPU. Define it for tests only.
#define PY_SSIZE_T_CLEAN
#include <Python.h>
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

#include "launchers.h"

#ifdef DATAHALL_BINDINGS_ON_CPU
#define DATAHALL_NAMESPACE datahall_bindings
#define DATAHALL_DISPATCH_KEY CPU
#else
#define DATAHALL_NAMESPACE datahall
#define DATAHALL_DISPATCH_KEY CUDA
#endif

namespace {

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
int code_of(ScalarType type) {
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

std::string name_of(ScalarType type) {
  switch (type) {
    case ScalarType::Float:
      return "torch.float32";
    case ScalarType::BFloat16:
      return "torch.bfloat16";
    case ScalarType::Half:
      return "torch.float16";
    case ScalarType::Double:
      return "torch.float64";
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

std::string device_of(const Tensor& tensor) {
  if (tensor.is_cpu()) return "cpu";
  if (tensor.is_cuda()) return "cuda:" + std::to_string(tensor.get_device_index());
  return "another kind of device";
}

// x and what follows from it: the checks of one op's arguments against it.
class Arguments {
 public:
  Arguments(const char* op, const Tensor& x) : op_(op), x_(x), type_(x.scalar_type()) {
    if (code_of(type_) < 0) {
      refuse(op, ": x is ", name_of(type_), "; it must be float32, bfloat16 or float16 (float64 on the CPU)");
    }
    if (x.dim() < 1 || x.size(x.dim() - 1) == 0) {
      refuse(op, ": x has shape ", list_of(x.sizes()), "; its last dimension must be at least 1 wide");
    }
    contiguous("x", x);
    width = x.size(x.dim() - 1);
    rows = x.numel() / width;
    dtype = code_of(type_);
    weight_dtype = dtype;
  }

  void like_x(const char* name, const Tensor& tensor) const {
    if (list_of(tensor.sizes()) != list_of(x_.sizes())) {
      refuse(op_, ": ", name, " has shape ", list_of(tensor.sizes()), "; it must be x's, ", list_of(x_.sizes()));
    }
    if (tensor.scalar_type() != type_) {
      refuse(op_, ": ", name, " is ", name_of(tensor.scalar_type()), "; it must be ", name_of(type_), " as x is");
    }
    same_device(name, tensor);
    contiguous(name, tensor);
  }

  void like_x(const char* name, const Optional& tensor) const {
    if (tensor.has_value()) like_x(name, *tensor);
  }

  void weight_and_bias(const Optional& weight, const Optional& bias) {
    scale("weight", weight);
    scale("bias", bias);
    if (weight.has_value() && bias.has_value() && weight->scalar_type() != bias->scalar_type()) {
      refuse(op_, ": bias is ", name_of(bias->scalar_type()), "; it must be ", name_of(weight->scalar_type()),
             " as weight is");
    }
  }

  void statistic(const char* name, const Tensor& tensor) const {
    if (tensor.dim() != 1 || tensor.size(0) != rows) {
      refuse(op_, ": ", name, " has shape ", list_of(tensor.sizes()), "; it must be [", rows, "], one per row of x");
    }
    if (tensor.scalar_type() != ScalarType::Float) {
      refuse(op_, ": ", name, " is ", name_of(tensor.scalar_type()), "; it must be torch.float32");
    }
    same_device(name, tensor);
    contiguous(name, tensor);
  }

  Tensor new_statistic() const { return torch::stable::new_empty(x_, {rows}, ScalarType::Float); }
  Tensor new_like_x() const { return torch::stable::new_empty(x_, x_.sizes()); }

  // Of a parameter; 0 elements where it is not wanted, or there is none.
  Tensor new_gradient(const Optional& parameter, bool wanted) const {
    if (!wanted || !parameter.has_value()) return torch::stable::new_empty(x_, {0});
    return torch::stable::new_empty(*parameter, {width});
  }

  void check(int error) const {
    if (error != 0) refuse(op_, ": CUDA error ", error, ": ", datahall_error_text(error));
  }

  long long rows = 0;
  long long width = 0;
  int dtype = 0;
  int weight_dtype = 0;

 private:
  void scale(const char* name, const Optional& tensor) {
    if (!tensor.has_value()) return;
    if (tensor->dim() != 1 || tensor->size(0) != width) {
      refuse(op_, ": ", name, " has shape ", list_of(tensor->sizes()), "; it must be [", width,
             "], x's last dimension");
    }
    if (tensor->scalar_type() != type_ && tensor->scalar_type() != ScalarType::Float) {
      refuse(op_, ": ", name, " is ", name_of(tensor->scalar_type()), "; it must be ", name_of(type_),
             " as x is, or float32");
    }
    same_device(name, *tensor);
    contiguous(name, *tensor);
    weight_dtype = code_of(tensor->scalar_type());
  }

  void same_device(const char* name, const Tensor& tensor) const {
    if (device_of(tensor) != device_of(x_)) {
      refuse(op_, ": ", name, " is on ", device_of(tensor), "; it must be on ", device_of(x_), " as x is");
    }
  }

  void contiguous(const char* name, const Tensor& tensor) const {
    if (!tensor.is_contiguous()) {
      refuse(op_, ": ", name, " has strides ", list_of(tensor.strides()), "; it must be contiguous");
    }
  }

  const char* op_;
  const Tensor& x_;
  ScalarType type_;
};

const void* read(const Tensor& tensor) { return tensor.const_data_ptr(); }
const void* read(const Optional& tensor) { return tensor.has_value() ? tensor->const_data_ptr() : nullptr; }
const float* read_floats(const Tensor& tensor) { return static_cast<const float*>(tensor.const_data_ptr()); }
void* write(const Tensor& tensor) { return tensor.numel() > 0 ? tensor.mutable_data_ptr() : nullptr; }
float* write_floats(const Tensor& tensor) { return static_cast<float*>(write(tensor)); }

#ifdef DATAHALL_BINDINGS_ON_CPU

struct OnDevice {
  explicit OnDevice(const Tensor&) {}
  void* stream = nullptr;
  int multiprocessors = 1;
};

#else

using CurrentStream = AOTITorchError (*)(int32_t device, void** stream);

// It is in libtorch_cuda.so, which a torch without CUDA does not have; the library must load there all the same.
CurrentStream find_current_stream() {
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

std::tuple<Tensor, Tensor> rms_norm(const Tensor& x, const Optional& weight, double epsilon) {
  Arguments a("rms_norm", x);
  a.weight_and_bias(weight, std::nullopt);
  const OnDevice on(x);
  Tensor y = a.new_like_x(), rstd = a.new_statistic();
  a.check(datahall_rms_norm_forward(read(x), nullptr, read(weight), write(y), nullptr, write_floats(rstd), a.rows,
                                    a.width, static_cast<float>(epsilon), a.dtype, a.weight_dtype, on.stream));
  return {y, rstd};
}

std::tuple<Tensor, Tensor, Tensor> add_rms_norm(const Tensor& x, const Tensor& residual, const Optional& weight,
                                                double epsilon) {
  Arguments a("add_rms_norm", x);
  a.like_x("residual", residual);
  a.weight_and_bias(weight, std::nullopt);
  const OnDevice on(x);
  Tensor y = a.new_like_x(), summed = a.new_like_x(), rstd = a.new_statistic();
  a.check(datahall_rms_norm_forward(read(x), read(residual), read(weight), write(y), write(summed),
                                    write_floats(rstd), a.rows, a.width, static_cast<float>(epsilon), a.dtype,
                                    a.weight_dtype, on.stream));
  return {y, summed, rstd};
}

std::tuple<Tensor, Tensor> rms_norm_backward(const Tensor& dy, const Optional& dsummed, const Tensor& x,
                                             const Optional& weight, const Tensor& rstd, bool weight_gradient) {
  Arguments a("rms_norm_backward", x);
  a.like_x("dy", dy);
  a.like_x("dsummed", dsummed);
  a.weight_and_bias(weight, std::nullopt);
  a.statistic("rstd", rstd);
  const OnDevice on(x);
  const bool wanted = weight_gradient && weight.has_value();
  const int partials = datahall_norm_partials(a.rows, a.width, on.multiprocessors);
  const Tensor partial =
      torch::stable::new_empty(x, {wanted ? partials : 0, a.width}, ScalarType::Float);
  Tensor dx = a.new_like_x(), dweight = a.new_gradient(weight, wanted);
  a.check(datahall_rms_norm_backward(read(dy), read(dsummed), read(x), read(weight), read_floats(rstd), write(dx),
                                     write_floats(partial), write(dweight), a.rows, a.width, partials, a.dtype,
                                     a.weight_dtype, on.stream));
  return {dx, dweight};
}

std::tuple<Tensor, Tensor, Tensor> layer_norm(const Tensor& x, const Optional& weight, const Optional& bias,
                                              double epsilon) {
  Arguments a("layer_norm", x);
  a.weight_and_bias(weight, bias);
  const OnDevice on(x);
  Tensor y = a.new_like_x(), mean = a.new_statistic(), rstd = a.new_statistic();
  a.check(datahall_layer_norm_forward(read(x), nullptr, read(weight), read(bias), write(y), nullptr,
                                      write_floats(mean), write_floats(rstd), a.rows, a.width,
                                      static_cast<float>(epsilon), a.dtype, a.weight_dtype, on.stream));
  return {y, mean, rstd};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> add_layer_norm(const Tensor& x, const Tensor& residual,
                                                          const Optional& weight, const Optional& bias,
                                                          double epsilon) {
  Arguments a("add_layer_norm", x);
  a.like_x("residual", residual);
  a.weight_and_bias(weight, bias);
  const OnDevice on(x);
  Tensor y = a.new_like_x(), summed = a.new_like_x(), mean = a.new_statistic(), rstd = a.new_statistic();
  a.check(datahall_layer_norm_forward(read(x), read(residual), read(weight), read(bias), write(y), write(summed),
                                      write_floats(mean), write_floats(rstd), a.rows, a.width,
                                      static_cast<float>(epsilon), a.dtype, a.weight_dtype, on.stream));
  return {y, summed, mean, rstd};
}

std::tuple<Tensor, Tensor, Tensor> layer_norm_backward(const Tensor& dy, const Optional& dsummed, const Tensor& x,
                                                       const Optional& weight, const Optional& bias,
                                                       const Tensor& mean, const Tensor& rstd, bool weight_gradient,
                                                       bool bias_gradient) {
  Arguments a("layer_norm_backward", x);
  a.like_x("dy", dy);
  a.like_x("dsummed", dsummed);
  a.weight_and_bias(weight, bias);
  a.statistic("mean", mean);
  a.statistic("rstd", rstd);
  const OnDevice on(x);
  const bool dweight_wanted = weight_gradient && weight.has_value();
  const bool dbias_wanted = bias_gradient && bias.has_value();
  const int partials = datahall_norm_partials(a.rows, a.width, on.multiprocessors);
  const Tensor partial_dweight =
      torch::stable::new_empty(x, {dweight_wanted ? partials : 0, a.width}, ScalarType::Float);
  const Tensor partial_dbias =
      torch::stable::new_empty(x, {dbias_wanted ? partials : 0, a.width}, ScalarType::Float);
  Tensor dx = a.new_like_x();
  Tensor dweight = a.new_gradient(weight, dweight_wanted), dbias = a.new_gradient(bias, dbias_wanted);
  a.check(datahall_layer_norm_backward(read(dy), read(dsummed), read(x), read(weight), read_floats(mean),
                                       read_floats(rstd), write(dx), write_floats(partial_dweight),
                                       write_floats(partial_dbias), write(dweight), write(dbias), a.rows, a.width,
                                       partials, a.dtype, a.weight_dtype, on.stream));
  return {dx, dweight, dbias};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(DATAHALL_NAMESPACE, DATAHALL_DISPATCH_KEY, library) {
  library.impl("rms_norm", TORCH_BOX(&rms_norm));
  library.impl("add_rms_norm", TORCH_BOX(&add_rms_norm));
  library.impl("rms_norm_backward", TORCH_BOX(&rms_norm_backward));
  library.impl("layer_norm", TORCH_BOX(&layer_norm));
  library.impl("add_layer_norm", TORCH_BOX(&add_layer_norm));
  library.impl("layer_norm_backward", TORCH_BOX(&layer_norm_backward));
}

// An empty module, so that Python's import finds and loads the library; what it does is done above, on loading.
extern "C" PyMODINIT_FUNC PyInit__native(void) {
  static PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_native", nullptr, 0, nullptr, nullptr, nullptr, nullptr,
                                   nullptr};
  return PyModule_Create(&definition);
}
