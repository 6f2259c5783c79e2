// Cross-entropy for CUDA tensors.
#include "../launchers/cross_entropy.h"

#include "arguments.h"

namespace {

using namespace datahall::bindings;

// The checks of datahall_kernels/loss/checks.py, in its order, and what the launcher needs to know.
struct Arguments {
  Arguments(const char* op, const Tensor& logits, const Tensor& targets, double smoothing,
            const Tensor* dlosses = nullptr, bool may_have_gaps = false)
      : op(op) {
    check_floating(op, "logits", logits);
    if (logits.dim() != 2 || logits.size(1) == 0) {
      refuse(op, ": logits has shape ", list_of(logits.sizes()), "; it must be [rows, classes] with at least 1 class");
    }
    rows = logits.size(0);
    classes = logits.size(1);
    if (!may_have_gaps) {
      check_contiguous(op, "logits", logits);
    } else if ((classes > 1 && logits.stride(1) != 1) || (rows > 1 && logits.stride(0) < classes)) {
      refuse(op, ": logits has strides ", list_of(logits.strides()), "; each row must be contiguous, none may overlap");
    }
    stride = rows > 1 ? logits.stride(0) : classes;
    dtype = code_of(logits.scalar_type());
    check_typed(op, "targets", targets, ScalarType::Long);
    check_shaped(op, "targets", targets, {rows}, ", one per row of logits");
    check_same_device(op, "targets", targets, logits, "logits");
    check_contiguous(op, "targets", targets);
    if (dlosses != nullptr) {
      check_shaped(op, "dlosses", *dlosses, {rows}, ", one per row of logits");
      check_typed(op, "dlosses", *dlosses, ScalarType::Float);
      check_same_device(op, "dlosses", *dlosses, logits, "logits");
    }
    if (!(smoothing >= 0.0 && smoothing <= 1.0)) {
      refuse(op, ": label_smoothing is ", smoothing, "; it must be from 0 to 1");
    }
  }

  const char* op;
  int64_t rows = 0;
  int64_t classes = 0;
  int64_t stride = 0;
  int dtype = 0;
};

const long long* indices(const Tensor& targets) { return static_cast<const long long*>(targets.const_data_ptr()); }

// dlogits may be logits; null: not wanted, as loss and dlosses may be.
void launch(const Arguments& a, const Tensor& logits, const Tensor& targets, const Tensor* dlosses, const Tensor* loss,
            const Tensor* dlogits, int64_t ignore_index, double smoothing) {
  const OnDevice on(logits);
  check_launch(a.op, datahall_cross_entropy(read(logits), indices(targets), dlosses ? read_floats(*dlosses) : nullptr,
                                            dlosses ? dlosses->stride(0) : 0, loss ? write_floats(*loss) : nullptr,
                                            nullptr, dlogits ? write(*dlogits) : nullptr, a.rows, a.classes, a.stride,
                                            ignore_index, static_cast<float>(smoothing), a.dtype, on.stream));
}

Tensor new_losses(const Arguments& a, const Tensor& logits) {
  return torch::stable::new_empty(logits, {a.rows}, ScalarType::Float);
}

Tensor cross_entropy(const Tensor& logits, const Tensor& targets, int64_t ignore_index, double smoothing) {
  const Arguments a("cross_entropy", logits, targets, smoothing);
  Tensor losses = new_losses(a, logits);
  launch(a, logits, targets, nullptr, &losses, nullptr, ignore_index, smoothing);
  return losses;
}

Tensor cross_entropy_backward(const Tensor& dlosses, const Tensor& logits, const Tensor& targets, int64_t ignore_index,
                              double smoothing) {
  const Arguments a("cross_entropy_backward", logits, targets, smoothing, &dlosses);
  Tensor dlogits = torch::stable::new_empty(logits, logits.sizes());
  launch(a, logits, targets, &dlosses, nullptr, &dlogits, ignore_index, smoothing);
  return dlogits;
}

Tensor cross_entropy_with_gradient_(const Tensor& logits, const Tensor& targets, const Tensor& dlosses,
                                    int64_t ignore_index, double smoothing) {
  const Arguments a("cross_entropy_with_gradient_", logits, targets, smoothing, &dlosses, true);
  Tensor losses = new_losses(a, logits);
  launch(a, logits, targets, &dlosses, &losses, &logits, ignore_index, smoothing);
  return losses;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(DATAHALL_NAMESPACE, DATAHALL_DISPATCH_KEY, library) {
  library.impl("cross_entropy", TORCH_BOX(&cross_entropy));
  library.impl("cross_entropy_backward", TORCH_BOX(&cross_entropy_backward));
  library.impl("cross_entropy_with_gradient_", TORCH_BOX(&cross_entropy_with_gradient_));
}
