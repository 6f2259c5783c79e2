// Products with weights of 8 and 4 bits, for CUDA tensors.
#include "../launchers/weight_only.h"

#include <climits>

#include "arguments.h"

namespace {

using namespace datahall::bindings;

constexpr const char* op = "weight_only";

void like_x(const char* name, const Tensor& tensor, const Tensor& x) {
  check_same_device(op, name, tensor, x);
  check_contiguous(op, name, tensor);
}

Tensor weight_only(const Tensor& x, const Tensor& codes, const Tensor& scales, const Optional& bias, int64_t group,
                   int64_t bits) {
  check_floating(op, "x", x);
  if (x.dim() < 1 || x.size(x.dim() - 1) == 0) {
    refuse(op, ": x has shape ", list_of(x.sizes()), "; its last dimension must be at least 1 wide");
  }
  check_contiguous(op, "x", x);
  const int64_t inputs = x.size(x.dim() - 1);
  if (bits != 8 && bits != 4) refuse(op, ": bits is ", bits, "; it must be 8 or 4");
  if (group <= 0 || (group % 32 != 0 && group < inputs)) {
    refuse(op, ": group is ", group, "; it must be a multiple of 32, or at least the ", inputs, " inputs");
  }
  check_typed(op, "codes", codes, ScalarType::Byte);
  const int64_t row_bytes = (inputs * bits + 127) / 128 * 16;
  if (codes.dim() != 2 || codes.size(1) != row_bytes) {
    const std::string rows = codes.dim() == 2 ? std::to_string(codes.size(0)) : "outputs";
    refuse(op, ": codes has shape ", list_of(codes.sizes()), "; it must be [", rows, ", ", row_bytes, "], rows of ",
           inputs, " inputs");
  }
  like_x("codes", codes, x);
  const int64_t outputs = codes.size(0);
  check_typed(op, "scales", scales, ScalarType::Float);
  check_shaped(op, "scales", scales, {outputs, (inputs + group - 1) / group}, ", one per output and group of inputs");
  like_x("scales", scales, x);
  if (bias.has_value()) {
    check_typed(op, "bias", *bias, x.scalar_type(), " as x is");
    check_shaped(op, "bias", *bias, {outputs}, ", one per output");
    like_x("bias", *bias, x);
  }
  if (inputs > INT_MAX || outputs > INT_MAX || row_bytes > INT_MAX) {
    refuse(op, ": codes has shape ", list_of(codes.sizes()), "; the kernel counts in 32 bits");
  }
  std::vector<int64_t> shape(x.sizes().begin(), x.sizes().end());
  shape.back() = outputs;
  const OnDevice on(x);
  Tensor y = torch::stable::new_empty(x, shape);
  const auto as_int = [](int64_t value) { return static_cast<int>(value); };
  check_launch(op, datahall_weight_only(read(x), read(codes), read_floats(scales), read(bias), write(y),
                                        x.numel() / inputs, as_int(inputs), as_int(outputs), as_int(row_bytes),
                                        as_int(group < inputs ? group : (inputs + 31) / 32 * 32), as_int(bits),
                                        on.multiprocessors, code_of(x.scalar_type()), on.stream));
  return y;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(DATAHALL_NAMESPACE, DATAHALL_DISPATCH_KEY, library) {
  library.impl("weight_only", TORCH_BOX(&weight_only));
}
