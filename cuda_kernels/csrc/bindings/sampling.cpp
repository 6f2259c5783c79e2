// Tokens drawn from logits, for CUDA tensors.
#include "../launchers/sampling.h"

#include "arguments.h"

namespace {

using namespace datahall::bindings;

constexpr const char* op = "sample";
constexpr int64_t most_tokens = 1 << 19;  // of a vocabulary, and of a list

class Arguments {
 public:
  explicit Arguments(const Tensor& logits) : logits_(logits) {
    check_floating(op, "logits", logits);
    if (logits.dim() != 2 || logits.size(1) == 0 || logits.size(1) > most_tokens) {
      refuse(op, ": logits has shape ", list_of(logits.sizes()), "; it must be [rows, vocabulary], 1 to ", most_tokens,
             " tokens");
    }
    check_contiguous(op, "logits", logits);
    rows = logits.size(0);
    vocabulary = logits.size(1);
    words = (vocabulary + 31) / 32;
  }

  void per_row(const char* name, const Optional& tensor, ScalarType type) const {
    if (!tensor.has_value()) return;
    check_typed(op, name, *tensor, type);
    check_shaped(op, name, *tensor, {rows}, ", one per row of logits");
    like_logits(name, *tensor);
  }

  void list(const Optional& listed, const Optional& counts) {
    if (listed.has_value()) {
      check_typed(op, "listed", *listed, ScalarType::Int);
      if (listed->dim() != 2 || listed->size(0) != rows || listed->size(1) > most_tokens) {
        refuse(op, ": listed has shape ", list_of(listed->sizes()), "; it must be [", rows, ", tokens], up to ",
               most_tokens);
      }
      like_logits("listed", *listed);
      capacity = listed->size(1);
    }
    if (!counts.has_value()) return;
    if (!listed.has_value()) refuse(op, ": listed is None; it must be there where counts is");
    check_typed(op, "counts", *counts, ScalarType::Int);
    check_shaped(op, "counts", *counts, {rows, capacity}, " as listed is");
    like_logits("counts", *counts);
  }

  void bits(const Optional& allowed) const {
    if (!allowed.has_value()) return;
    check_typed(op, "allowed", *allowed, ScalarType::Int);
    check_shaped(op, "allowed", *allowed, {rows, words}, ", a bit per token");
    like_logits("allowed", *allowed);
  }

  int64_t rows = 0;
  int64_t vocabulary = 0;
  int64_t words = 0;  // of bits, for all tokens
  int64_t capacity = 0;

 private:
  void like_logits(const char* name, const Tensor& tensor) const {
    check_same_device(op, name, tensor, logits_, "logits");
    check_contiguous(op, name, tensor);
  }

  const Tensor& logits_;
};

template <typename T, typename OneOrNone>
const T* read_as(const OneOrNone& tensor) {
  return static_cast<const T*>(read(tensor));
}

std::tuple<Tensor, Tensor> sample(const Tensor& logits, const Optional& temperature, const Optional& top_k,
                                  const Optional& top_p, const Optional& min_p, const Optional& repetition,
                                  const Optional& presence, const Optional& frequency, const Optional& listed,
                                  const Optional& counts, const Optional& lengths, const Optional& allowed,
                                  const Tensor& seeds, const Tensor& offsets) {
  Arguments a(logits);
  a.per_row("temperature", temperature, ScalarType::Float);
  a.per_row("top_p", top_p, ScalarType::Float);
  a.per_row("min_p", min_p, ScalarType::Float);
  a.per_row("repetition", repetition, ScalarType::Float);
  a.per_row("presence", presence, ScalarType::Float);
  a.per_row("frequency", frequency, ScalarType::Float);
  a.per_row("top_k", top_k, ScalarType::Int);
  a.per_row("lengths", lengths, ScalarType::Int);
  a.per_row("seeds", seeds, ScalarType::Long);
  a.per_row("offsets", offsets, ScalarType::Long);
  a.list(listed, counts);
  a.bits(allowed);
  const OnDevice on(logits);
  int shared_bytes = 0;
  check_launch(op, datahall_shared_bytes(logits.get_device_index(), &shared_bytes));
  Tensor tokens = torch::stable::new_empty(logits, {a.rows}, ScalarType::Long);
  Tensor log_probabilities = torch::stable::new_empty(logits, {a.rows}, ScalarType::Float);
  using Seed = unsigned long long;
  check_launch(op, datahall_sample(read(logits), read_as<float>(temperature), read_as<int>(top_k),
                                   read_as<float>(top_p), read_as<float>(min_p), read_as<float>(repetition),
                                   read_as<float>(presence), read_as<float>(frequency), read_as<int>(listed),
                                   read_as<int>(counts),
                                   read_as<int>(lengths), read_as<unsigned>(allowed), read_as<Seed>(seeds),
                                   read_as<Seed>(offsets), static_cast<long long*>(write(tokens)),
                                   write_floats(log_probabilities), a.rows, a.vocabulary, a.vocabulary, a.capacity,
                                   a.words, shared_bytes, code_of(logits.scalar_type()), on.stream));
  return {tokens, log_probabilities};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(DATAHALL_NAMESPACE, DATAHALL_DISPATCH_KEY, library) {
  library.impl("sample", TORCH_BOX(&sample));
}
