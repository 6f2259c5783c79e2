// The norms for CUDA tensors.
#include "../launchers/norm.h"

#include "arguments.h"

namespace {

using namespace datahall::bindings;

// x and what follows from it: the checks of one op's arguments against it.
class Arguments {
 public:
  Arguments(const char* op, const Tensor& x) : op_(op), x_(x), type_(x.scalar_type()) {
    check_floating(op, "x", x);
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

  void check(int error) const { check_launch(op_, error); }

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

  void same_device(const char* name, const Tensor& tensor) const { check_same_device(op_, name, tensor, x_); }
  void contiguous(const char* name, const Tensor& tensor) const { check_contiguous(op_, name, tensor); }

  const char* op_;
  const Tensor& x_;
  ScalarType type_;
};

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
