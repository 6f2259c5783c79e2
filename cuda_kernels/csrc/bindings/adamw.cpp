// AdamW for CUDA tensors.
#include "../launchers/adamw.h"

#include <cmath>
#include <vector>

#include "arguments.h"

namespace {

using namespace datahall::bindings;
using Tensors = std::vector<Tensor>;

constexpr int64_t state_block = 256;

// "gradients[3]"
std::string numbered(const char* name, std::size_t number) {
  return std::string(name) + "[" + std::to_string(number) + "]";
}

// The checks of datahall_kernels/adamw/checks.py, in its order.
void check_one_type(const char* op, const char* name, const Tensors& tensors) {
  if (tensors.empty()) refuse(op, ": ", name, " is empty; it must have at least 1 tensor");
  const std::string as = " as " + numbered(name, 0) + " is", of = numbered(name, 0);
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const std::string each = numbered(name, i);
    check_floating(op, each.c_str(), tensors[i]);
    check_typed(op, each.c_str(), tensors[i], tensors[0].scalar_type(), as.c_str());
    check_same_device(op, each.c_str(), tensors[i], tensors[0], of.c_str());
    check_contiguous(op, each.c_str(), tensors[i]);
  }
}

void check_number(const char* op, const char* name, const Tensors& tensors, std::size_t number, const char* why) {
  if (tensors.size() != number) {
    refuse(op, ": ", name, " has ", tensors.size(), " tensors; it must have ", number, ", ", why);
  }
}

void check_placed(const char* op, const std::string& name, const Tensor& tensor, const Tensor& parameter,
                  const std::vector<int64_t>& shape, const std::string& why, ScalarType type) {
  check_shaped(op, name.c_str(), tensor, shape, why.c_str());
  check_typed(op, name.c_str(), tensor, type);
  check_same_device(op, name.c_str(), tensor, parameter, "parameters[0]");
  check_contiguous(op, name.c_str(), tensor);
}

std::vector<int64_t> shape_of(const Tensor& tensor) {
  std::vector<int64_t> shape;
  for (int64_t i = 0; i < tensor.dim(); ++i) shape.push_back(tensor.size(i));
  return shape;
}

// The table of a launch, in the host's memory and then in the device's.
class Rows {
 public:
  void add(AdamWTensor row, const Tensor& gradient) {
    row.gradient = gradient.numel() > 0 ? read(gradient) : nullptr;
    row.count = gradient.numel();
    row.first_chunk = chunks;
    chunks += datahall_adamw_chunks(row.count);
    rows_.push_back(row);
  }

  int number() const { return static_cast<int>(rows_.size()); }

  Tensor on_device(const char* op, const Tensor& any, void* stream) const {
    const auto words = static_cast<int64_t>(rows_.size() * sizeof(AdamWTensor) / sizeof(int64_t));
    Tensor table = torch::stable::new_empty(any, {words}, ScalarType::Long);
    check_launch(op, datahall_adamw_table(rows_.data(), number(), write(table), stream));
    return table;
  }

  long long chunks = 0;

 private:
  std::vector<AdamWTensor> rows_;
};

Tensor squared_norm(const Tensors& gradients) {
  const char* op = "squared_norm";
  check_one_type(op, "gradients", gradients);
  const OnDevice on(gradients[0]);
  Rows rows;
  for (const Tensor& gradient : gradients) rows.add({}, gradient);
  const Tensor table = rows.on_device(op, gradients[0], on.stream);
  const Tensor sums = torch::stable::new_empty(gradients[0], {rows.chunks}, ScalarType::Float);
  Tensor squared = torch::stable::new_empty(gradients[0], {}, ScalarType::Float);
  check_launch(op, datahall_squared_norm(read(table), rows.number(), rows.chunks, write_floats(sums),
                                         write_floats(squared), code_of(gradients[0].scalar_type()), on.stream));
  return squared;
}

void adamw_(const Tensors& parameters, const Tensors& gradients, const Tensors& first, const Tensors& second,
            const Tensors& first_scales, const Tensors& second_scales, const Tensors& steps,
            const Tensor& learning_rate, const Optional& squared_norm, double max_norm, double beta1, double beta2,
            double epsilon, double weight_decay, bool stochastic_rounding, int64_t seed) {
  const char* op = "adamw_";
  check_one_type(op, "parameters", parameters);
  const Tensor& some = parameters[0];
  const bool eight_bit = !first.empty() && first[0].scalar_type() == ScalarType::Byte;
  check_number(op, "gradients", gradients, parameters.size(), "one per parameter");
  check_number(op, "first", first, parameters.size(), "one per parameter");
  check_number(op, "second", second, parameters.size(), "one per parameter");
  check_number(op, "steps", steps, parameters.size(), "one per parameter");
  const std::size_t scales = eight_bit ? parameters.size() : 0;
  check_number(op, "first_scales", first_scales, scales, "one per parameter with 8-bit states");
  check_number(op, "second_scales", second_scales, scales, "one per parameter with 8-bit states");
  const ScalarType state = eight_bit ? ScalarType::Byte : ScalarType::Float;
  Rows rows;
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    const std::string like = ", " + numbered("parameters", i) + "'s shape";
    const std::vector<int64_t> shape = shape_of(parameters[i]);
    check_placed(op, numbered("gradients", i), gradients[i], some, shape, like, some.scalar_type());
    check_placed(op, numbered("first", i), first[i], some, shape, like, state);
    check_placed(op, numbered("second", i), second[i], some, shape, like, state);
    check_placed(op, numbered("steps", i), steps[i], some, {}, ", one number", ScalarType::Float);
    AdamWTensor row{};
    if (eight_bit) {
      const std::vector<int64_t> blocks = {(parameters[i].numel() + state_block - 1) / state_block};
      const std::string why = ", one per 256 elements";
      check_placed(op, numbered("first_scales", i), first_scales[i], some, blocks, why, ScalarType::Float);
      check_placed(op, numbered("second_scales", i), second_scales[i], some, blocks, why, ScalarType::Float);
      row.first_scales = write_floats(first_scales[i]);
      row.second_scales = write_floats(second_scales[i]);
    }
    row.parameter = write(parameters[i]);
    row.first = write(first[i]);
    row.second = write(second[i]);
    row.step = read_floats(steps[i]);
    rows.add(row, gradients[i]);
  }
  check_placed(op, "learning_rate", learning_rate, some, {}, ", one number", ScalarType::Float);
  if (squared_norm.has_value()) {
    check_placed(op, "squared_norm", *squared_norm, some, {}, ", one number", ScalarType::Float);
  }
  const OnDevice on(some);
  const Tensor table = rows.on_device(op, some, on.stream);
  check_launch(op, datahall_adamw(read(table), rows.number(), rows.chunks, read_floats(learning_rate),
                                  static_cast<const float*>(read(squared_norm)), static_cast<float>(max_norm),
                                  static_cast<float>(1.0 - beta1), static_cast<float>(1.0 - beta2),
                                  static_cast<float>(std::log(beta1)), static_cast<float>(std::log(beta2)),
                                  static_cast<float>(epsilon), static_cast<float>(weight_decay), eight_bit ? 1 : 0,
                                  stochastic_rounding ? 1 : 0, static_cast<unsigned long long>(seed),
                                  code_of(some.scalar_type()), on.stream));
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(DATAHALL_NAMESPACE, DATAHALL_DISPATCH_KEY, library) {
  library.impl("squared_norm", TORCH_BOX(&squared_norm));
  library.impl("adamw_", TORCH_BOX(&adamw_));
}
