// A step of decoding for CUDA tensors: rotary positions and the cache's append, and attention over the cache.
#include <climits>

#include "../launchers/paged_attention.h"
#include "../launchers/rope_append.h"
#include "arguments.h"

namespace {

using namespace datahall::bindings;

constexpr int64_t page_size = 16;

int as_int(int64_t value) { return static_cast<int>(value); }

void like_x(const char* op, const char* name, const Tensor& tensor, const Tensor& x, const char* x_name) {
  check_same_device(op, name, tensor, x, x_name);
  check_contiguous(op, name, tensor);
}

// A cache, checked against the data that goes into it or is compared with it.
struct Cache {
  Cache(const char* op, const char* x_name, const Tensor& x, const Tensor& keys, const Tensor& values,
        const Optional& key_scales, const Optional& value_scales) {
    const int64_t head_dim = x.size(x.dim() - 1);
    if (keys.dim() != 4 || keys.size(1) == 0 || keys.size(2) != page_size || keys.size(3) != head_dim) {
      refuse(op, ": keys has shape ", list_of(keys.sizes()), "; it must be [pages, kv heads, ", page_size, ", ",
             head_dim, "]");
    }
    const ScalarType data = x.scalar_type(), kept = keys.scalar_type();
    if (kept == data) {
      kind = 0;
    } else if (kept == ScalarType::Float8_e4m3fn) {
      kind = 1;
    } else if (kept == ScalarType::Char) {
      kind = 2;
    } else {
      refuse(op, ": keys is ", name_of(kept), "; it must be ", name_of(data), " as ", x_name,
             " is, or torch.float8_e4m3fn, or torch.int8");
    }
    const std::vector<int64_t> shape(keys.sizes().begin(), keys.sizes().end());
    check_shaped(op, "values", values, shape, " as keys is");
    check_typed(op, "values", values, kept, " as keys is");
    like_x(op, "keys", keys, x, x_name);
    like_x(op, "values", values, x, x_name);
    pages = keys.size(0);
    heads = keys.size(1);
    if (kind == 0) return;
    if (data == ScalarType::Float) {
      refuse(op, ": ", x_name, " is ", name_of(data), "; it must be bfloat16 or float16 where the cache has 8 bits");
    }
    const auto scales = [&](const char* name, const Optional& tensor) {
      if (!tensor.has_value()) refuse(op, ": ", name, " is None; a cache of ", name_of(kept), " has scales");
      check_typed(op, name, *tensor, ScalarType::Float);
      if (kind == 2) {
        check_shaped(op, name, *tensor, {shape[0], shape[1], shape[2]}, ", one per row of keys");
      } else {
        check_shaped(op, name, *tensor, {1}, ", one for all");
      }
      like_x(op, name, *tensor, x, x_name);
    };
    scales("key_scales", key_scales);
    scales("value_scales", value_scales);
  }

  int kind = 0;
  int64_t pages = 0;
  int64_t heads = 0;
};

float* write_floats_of(const Optional& scales) { return scales.has_value() ? write_floats(*scales) : nullptr; }

Tensor rope_append(const Tensor& qkv, const Tensor& positions, const Tensor& slots, const Tensor& angles,
                   const Optional& q_weight, const Optional& k_weight, const Tensor& keys, const Tensor& values,
                   const Optional& key_scales, const Optional& value_scales, bool interleaved, double epsilon) {
  constexpr const char* op = "rope_append";
  check_floating(op, "qkv", qkv);
  const int64_t head_dim = qkv.dim() == 3 ? qkv.size(2) : 0;
  if (qkv.dim() != 3 || head_dim == 0 || head_dim % 2 != 0 || head_dim > 256) {
    refuse(op, ": qkv has shape ", list_of(qkv.sizes()),
           "; it must be [tokens, q heads + 2 kv heads, head_dim], head_dim even and up to 256");
  }
  check_contiguous(op, "qkv", qkv);
  const Cache cache(op, "qkv", qkv, keys, values, key_scales, value_scales);
  const int64_t tokens = qkv.size(0), q_heads = qkv.size(1) - 2 * cache.heads;
  if (q_heads <= 0) {
    refuse(op, ": qkv has shape ", list_of(qkv.sizes()), "; it must have more heads than twice the cache's ",
           cache.heads);
  }
  const auto per_token = [&](const char* name, const Tensor& tensor) {
    check_typed(op, name, tensor, ScalarType::Long);
    check_shaped(op, name, tensor, {tokens}, ", one per token");
    like_x(op, name, tensor, qkv, "qkv");
  };
  per_token("positions", positions);
  per_token("slots", slots);
  check_typed(op, "angles", angles, ScalarType::Float);
  if (angles.dim() != 2 || angles.size(1) % 2 != 0 || angles.size(1) > head_dim) {
    refuse(op, ": angles has shape ", list_of(angles.sizes()),
           "; it must be [positions, rotary], rotary even and up to ", head_dim);
  }
  like_x(op, "angles", angles, qkv, "qkv");
  int weight_dtype = code_of(qkv.scalar_type());
  const auto weight = [&](const char* name, const Optional& tensor) {
    if (!tensor.has_value()) return;
    if (tensor->scalar_type() != qkv.scalar_type() && tensor->scalar_type() != ScalarType::Float) {
      refuse(op, ": ", name, " is ", name_of(tensor->scalar_type()), "; it must be ", name_of(qkv.scalar_type()),
             " as qkv is, or float32");
    }
    check_shaped(op, name, *tensor, {head_dim}, ", qkv's last dimension");
    like_x(op, name, *tensor, qkv, "qkv");
    weight_dtype = code_of(tensor->scalar_type());
  };
  weight("q_weight", q_weight);
  weight("k_weight", k_weight);
  if (q_weight.has_value() && k_weight.has_value()) {
    check_typed(op, "k_weight", *k_weight, q_weight->scalar_type(), " as q_weight is");
  }
  if (qkv.size(1) > INT_MAX) refuse(op, ": qkv has shape ", list_of(qkv.sizes()), "; the kernel counts in 32 bits");
  const OnDevice on(qkv);
  Tensor q = torch::stable::new_empty(qkv, {tokens, q_heads, head_dim});
  check_launch(op, datahall_rope_append(
                       read(qkv), static_cast<const long long*>(read(positions)),
                       static_cast<const long long*>(read(slots)), read_floats(angles), read(q_weight),
                       read(k_weight), write(q), write(keys), write(values), write_floats_of(key_scales),
                       write_floats_of(value_scales), tokens, angles.size(0), cache.pages * page_size,
                       as_int(q_heads), as_int(cache.heads), as_int(head_dim), as_int(angles.size(1)),
                       interleaved ? 1 : 0, static_cast<float>(epsilon), cache.kind, code_of(qkv.scalar_type()),
                       weight_dtype, on.stream));
  return q;
}

Tensor paged_attention(const Tensor& q, const Tensor& keys, const Tensor& values, const Optional& key_scales,
                       const Optional& value_scales, const Tensor& pages, const Tensor& lengths, double scale) {
  constexpr const char* op = "paged_attention";
  check_floating(op, "q", q);
  if (q.dim() != 3 || (q.size(2) != 64 && q.size(2) != 128)) {
    refuse(op, ": q has shape ", list_of(q.sizes()),
           "; it must be [sequences, q heads, head_dim], head_dim 64 or 128");
  }
  check_contiguous(op, "q", q);
  const Cache cache(op, "q", q, keys, values, key_scales, value_scales);
  const int64_t sequences = q.size(0), q_heads = q.size(1), head_dim = q.size(2);
  if (q_heads == 0 || q_heads % cache.heads != 0) {
    refuse(op, ": q has shape ", list_of(q.sizes()), "; its heads must be a multiple of the cache's ", cache.heads);
  }
  check_typed(op, "pages", pages, ScalarType::Int);
  if (pages.dim() != 2 || pages.size(0) != sequences) {
    refuse(op, ": pages has shape ", list_of(pages.sizes()), "; it must be [", sequences,
           ", most pages], a row per sequence");
  }
  like_x(op, "pages", pages, q, "q");
  check_typed(op, "lengths", lengths, ScalarType::Int);
  check_shaped(op, "lengths", lengths, {sequences}, ", one per sequence");
  like_x(op, "lengths", lengths, q, "q");
  if (sequences > 65535 || q_heads > INT_MAX || pages.size(1) > INT_MAX / page_size) {
    refuse(op, ": q has shape ", list_of(q.sizes()), " and pages ", list_of(pages.sizes()),
           "; the kernel takes up to 65535 sequences of less than 2^31 tokens");
  }
  const OnDevice on(q);
  const int splits = datahall_paged_splits(as_int(sequences), as_int(q_heads), as_int(cache.heads),
                                           as_int(pages.size(1) * page_size), on.multiprocessors);
  Tensor out = torch::stable::new_empty(q, q.sizes());
  const int64_t parts = splits > 1 ? sequences * q_heads * splits : 0;
  const Tensor partial_out = torch::stable::new_empty(q, {parts, head_dim}, ScalarType::Float);
  const Tensor partial_sums = torch::stable::new_empty(q, {parts, 2}, ScalarType::Float);
  check_launch(op, datahall_paged_attention(
                       read(q), write(keys), write(values), write_floats_of(key_scales),
                       write_floats_of(value_scales), static_cast<const int*>(read(pages)),
                       static_cast<const int*>(read(lengths)), write(out), write_floats(partial_out),
                       write_floats(partial_sums), cache.pages, as_int(sequences), as_int(pages.size(1)),
                       as_int(q_heads), as_int(cache.heads), as_int(head_dim), splits, static_cast<float>(scale),
                       cache.kind, code_of(q.scalar_type()), on.stream));
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(DATAHALL_NAMESPACE, DATAHALL_DISPATCH_KEY, library) {
  library.impl("rope_append", TORCH_BOX(&rope_append));
  library.impl("paged_attention", TORCH_BOX(&paged_attention));
}
