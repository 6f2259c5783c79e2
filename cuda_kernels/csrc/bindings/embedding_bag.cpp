// Bags of embeddings for CUDA tensors.
#include "../launchers/embedding_bag.h"

#include "arguments.h"

namespace {

using namespace datahall::bindings;

constexpr int64_t most_width = 65'535;

void check_like(const char* op, const char* name, const Tensor& tensor, const Tensor& data, const char* data_name) {
  check_same_device(op, name, tensor, data, data_name);
  check_contiguous(op, name, tensor);
}

// [rows, width], floating point.
void check_matrix(const char* op, const char* name, const Tensor& tensor, const char* rows) {
  check_floating(op, name, tensor);
  if (tensor.dim() != 2 || tensor.size(1) == 0 || tensor.size(1) > most_width) {
    refuse(op, ": ", name, " has shape ", list_of(tensor.sizes()), "; it must be [", rows, ", width], 1 to ",
           most_width, " wide");
  }
  check_contiguous(op, name, tensor);
}

// An index per entry, beside `data`.
void check_entries(const char* op, const char* name, const Tensor& indices, const Tensor& data, const char* data_name) {
  const ScalarType type = indices.scalar_type();
  if (type != ScalarType::Long && type != ScalarType::Int) {
    refuse(op, ": ", name, " is ", name_of(type), "; it must be torch.int64 or torch.int32");
  }
  if (indices.dim() != 1) refuse(op, ": ", name, " has shape ", list_of(indices.sizes()), "; it must be [entries]");
  check_contiguous(op, name, indices);
  check_same_device(op, name, indices, data, data_name);
}

void check_weights(const char* op, const Optional& weights, const Tensor& data, const char* data_name,
                   const Tensor& entries) {
  if (!weights.has_value()) return;
  check_typed(op, "weights", *weights, data.scalar_type(), (std::string(" as ") + data_name + " is").c_str());
  check_shaped(op, "weights", *weights, {entries.size(0)}, ", one per entry");
  check_like(op, "weights", *weights, data, data_name);
}

// A number of 64 bits per entry.
void check_per_entry(const char* op, const char* name, const Tensor& tensor, const Tensor& entries, const Tensor& data,
                     const char* data_name) {
  check_typed(op, name, tensor, ScalarType::Long);
  check_shaped(op, name, tensor, {entries.size(0)}, ", one per entry");
  check_like(op, name, tensor, data, data_name);
}

int bytes_of(const Tensor& indices) { return indices.scalar_type() == ScalarType::Long ? 8 : 4; }
const long long* read_longs(const Tensor& tensor) { return static_cast<const long long*>(read(tensor)); }

std::tuple<Tensor, Tensor> embedding_bag(const Tensor& table, const Tensor& indices, const Tensor& offsets,
                                         const Optional& weights, int64_t padding, bool mean, bool /* sparse */) {
  constexpr const char* op = "embedding_bag";
  check_matrix(op, "table", table, "rows");
  check_entries(op, "indices", indices, table, "table");
  check_typed(op, "offsets", offsets, indices.scalar_type(), " as indices is");
  if (offsets.dim() != 1) refuse(op, ": offsets has shape ", list_of(offsets.sizes()), "; it must be [bags]");
  check_like(op, "offsets", offsets, table, "table");
  check_weights(op, weights, table, "table", indices);
  if (mean && weights.has_value()) refuse(op, ": weights are there; a mean has none");
  const int64_t bags = offsets.size(0), width = table.size(1);
  const OnDevice on(table);
  Tensor y = torch::stable::new_empty(table, {bags, width});
  Tensor counts = torch::stable::new_empty(table, {bags}, ScalarType::Int);
  check_launch(op, datahall_embedding_bag_forward(read(table), read(indices), read(offsets), read(weights), write(y),
                                                  static_cast<int*>(write(counts)), table.size(0), width,
                                                  indices.size(0), bags, padding, mean, bytes_of(indices),
                                                  code_of(table.scalar_type()), on.stream));
  return {y, counts};
}

Tensor embedding_bag_backward(const Tensor& dy, const Tensor& ordered, const Tensor& positions, const Tensor& bag_of,
                              const Tensor& starts, const Optional& weights, const Optional& counts, int64_t rows,
                              int64_t padding, bool sparse) {
  constexpr const char* op = "embedding_bag_backward";
  check_matrix(op, "dy", dy, "bags");
  check_entries(op, "ordered", ordered, dy, "dy");
  check_per_entry(op, "positions", positions, ordered, dy, "dy");
  check_per_entry(op, "bag_of", bag_of, ordered, dy, "dy");
  check_typed(op, "starts", starts, ScalarType::Long);
  if (starts.dim() != 1) refuse(op, ": starts has shape ", list_of(starts.sizes()), "; it must be [segments]");
  check_like(op, "starts", starts, dy, "dy");
  check_weights(op, weights, dy, "dy", ordered);
  if (counts.has_value()) {
    check_typed(op, "counts", *counts, ScalarType::Int);
    check_shaped(op, "counts", *counts, {dy.size(0)}, ", one per bag");
    check_like(op, "counts", *counts, dy, "dy");
  }
  if (rows < 0) refuse(op, ": rows is ", rows, "; it must be 0 or more");
  const int64_t segments = starts.size(0), width = dy.size(1);
  const OnDevice on(dy);
  Tensor gradient = torch::stable::new_empty(dy, {sparse ? segments : rows, width});
  check_launch(op, datahall_embedding_bag_backward(read(dy), read(ordered), read_longs(positions), read_longs(bag_of),
                                                   read_longs(starts), read(weights),
                                                   static_cast<const int*>(read(counts)), write(gradient), rows, width,
                                                   ordered.size(0), dy.size(0), segments, padding, sparse,
                                                   bytes_of(ordered), code_of(dy.scalar_type()), on.stream));
  return gradient;
}

Tensor embedding_bag_weight_gradient(const Tensor& dy, const Tensor& table, const Tensor& indices,
                                     const Tensor& bag_of, int64_t padding) {
  constexpr const char* op = "embedding_bag_weight_gradient";
  check_matrix(op, "table", table, "rows");
  check_typed(op, "dy", dy, table.scalar_type(), " as table is");
  const int64_t width = table.size(1);
  if (dy.dim() != 2 || dy.size(1) != width) {
    refuse(op, ": dy has shape ", list_of(dy.sizes()), "; it must be [bags, ", width, "]");
  }
  check_like(op, "dy", dy, table, "table");
  check_entries(op, "indices", indices, table, "table");
  check_per_entry(op, "bag_of", bag_of, indices, table, "table");
  const int64_t entries = indices.size(0);
  const OnDevice on(table);
  Tensor dweights = torch::stable::new_empty(table, {entries});
  check_launch(op, datahall_embedding_bag_weight_gradient(read(dy), read(table), read(indices), read_longs(bag_of),
                                                          write(dweights), table.size(0), width, entries, dy.size(0),
                                                          padding, bytes_of(indices), code_of(table.scalar_type()),
                                                          on.stream));
  return dweights;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(DATAHALL_NAMESPACE, DATAHALL_DISPATCH_KEY, library) {
  library.impl("embedding_bag", TORCH_BOX(&embedding_bag));
  library.impl("embedding_bag_backward", TORCH_BOX(&embedding_bag_backward));
  library.impl("embedding_bag_weight_gradient", TORCH_BOX(&embedding_bag_weight_gradient));
}
