// AdamW (Loshchilov and Hutter, 2019) for all tensors of a model in one launch, with the clipping of gradients in it.
//
//   g = gradient * min(1, most_norm / norm of all gradients)
//   m = m + (g - m) * (1 - beta1);  v = beta2 * v + (1 - beta2) * g * g
//   p = p * (1 - lr * decay) - lr * (m / (1 - beta1^step)) / (sqrt(v / (1 - beta2^step)) + epsilon)
//
// m and v are float32, or 8 bits in blocks of 256 elements with one float32 scale each. There m is a float of 4 exponent
// and 3 mantissa bits; of v the square root is kept, with 4 and 4 bits: it is never negative, and its range is half as
// wide. bfloat16 parameters can be rounded stochastically: else steps smaller than 1/512 of a value are lost.
//
// Steps, learning rate and norm are read from device memory: a captured graph goes on with those of its replay.
#include <algorithm>

#include "dtypes.cuh"
#include "launchers/adamw.h"
#include "philox.cuh"
#include "platform.cuh"
#include "reduce.cuh"

namespace datahall {

namespace {

constexpr int per_chunk = 4096;  // elements that a block of threads has
constexpr int chunk_threads = 256;
constexpr int per_thread = 8;    // elements at a time: with 32 threads, a block of 8-bit states
constexpr int state_block = warp_size * per_thread;
static_assert(state_block == 256);

struct AdamWArguments {
  const AdamWTensor* tensors;
  int number;
  const float* learning_rate;
  const float* squared_norm;   // of all gradients; null: they are not clipped
  float most_norm;
  float one_minus_beta1;
  float one_minus_beta2;
  float log_beta1;
  float log_beta2;
  float epsilon;
  float decay;
  bool stochastic;
  unsigned long long seed;
};

// What is the same for all elements of a tensor.
struct Factors {
  float gradient;
  float keep;       // 1 - lr * decay
  float step_size;  // lr / (1 - beta1^step)
  float root;       // 1 / sqrt(1 - beta2^step)
};

__device__ __forceinline__ Factors factors_of(const AdamWArguments& a, float step) {
  const float rate = *a.learning_rate;
  float gradient = 1.0f;
  if (a.squared_norm != nullptr) {
    const float share = a.most_norm / (sqrtf(*a.squared_norm) + 1e-6f);
    if (!(share >= 1.0f)) gradient = share;  // a norm that is NaN must not pass for a small one
  }
  // 1 - beta^step loses most of its digits where beta is near 1; -expm1 does not.
  return {gradient, 1.0f - rate * a.decay, rate / -expm1f(step * a.log_beta1), rsqrtf(-expm1f(step * a.log_beta2))};
}

// The last tensor whose first chunk is not after `chunk`: those before it that have the same are empty.
__device__ __forceinline__ int tensor_of(const AdamWTensor* tensors, int number, long long chunk) {
  int low = 0, high = number;
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    if (tensors[middle].first_chunk <= chunk) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return low;
}

template <typename Element>
__device__ __forceinline__ void write_some(Element* to, int there, const float (&values)[per_thread]) {
  constexpr int wide = widest_pack<Element>;
  if (there == per_thread && reinterpret_cast<unsigned long long>(to) % 16 == 0) {
#pragma unroll
    for (int at = 0; at < per_thread; at += wide) {
      float some[wide];
#pragma unroll
      for (int i = 0; i < wide; ++i) some[i] = values[at + i];
      Pack<Element, wide>::of(some).write(to + at);
    }
  } else {
#pragma unroll
    for (int i = 0; i < per_thread; ++i) {
      const float value[1] = {values[i]};
      if (i < there) Pack<Element, 1>::of(value).write(to + i);
    }
  }
}

// Move each value to one of the two bfloat16 beside it, the nearer ones more often, so that the mean stays.
__device__ __forceinline__ void round_stochastically(float (&values)[per_thread], const RandomBits& random) {
#pragma unroll
  for (int i = 0; i < per_thread; ++i) {
    const unsigned bits = __float_as_uint(values[i]);
    const unsigned noise = random.word[i / 2] >> (16 * (i % 2)) & 0xffffu;
    const bool finite = (bits & 0x7f800000u) != 0x7f800000u;
    if (finite) values[i] = __uint_as_float((bits + noise) & 0xffff0000u);
  }
}

// A code for a float from 0 to 1 with `mantissa` bits after the leading one: 0 is 0, the greatest is 1, and below the
// least power of two there is nothing. Floats ascend as their bits do, so rounding the bits rounds the value.
template <int mantissa, unsigned most>
struct SmallFloat {
  static constexpr int shift = 23 - mantissa;
  static constexpr unsigned before_first = (127u << mantissa) - most;  // code 1 is the float after these bits
  static constexpr unsigned half_of_first = ((before_first + 1) << shift) - (1u << 23);

  static __device__ __forceinline__ unsigned encode(float value) {
    const unsigned bits = __float_as_uint(value);
    const unsigned nearest = (bits + (1u << (shift - 1)) - 1u + (bits >> shift & 1u)) >> shift;
    if (nearest <= before_first) return bits >= half_of_first ? 1u : 0u;
    return nearest - before_first > most ? most : nearest - before_first;
  }
  static __device__ __forceinline__ float decode(unsigned code) {
    return code == 0 ? 0.0f : __uint_as_float((code + before_first) << shift);
  }
};

using FirstCode = SmallFloat<3, 127>;   // down to 2^-16, and a sign
using SecondCode = SmallFloat<4, 255>;  // of the root, down to 2^-16

__device__ __forceinline__ void read_codes(const unsigned char* from, int there, unsigned (&codes)[per_thread]) {
  if (there == per_thread && reinterpret_cast<unsigned long long>(from) % 8 == 0) {
    const uint2 words = *reinterpret_cast<const uint2*>(from);
#pragma unroll
    for (int i = 0; i < per_thread; ++i) codes[i] = (i < 4 ? words.x : words.y) >> (8 * (i % 4)) & 0xffu;
  } else {
#pragma unroll
    for (int i = 0; i < per_thread; ++i) codes[i] = i < there ? from[i] : 0u;
  }
}

__device__ __forceinline__ void write_codes(unsigned char* to, int there, const unsigned (&codes)[per_thread]) {
  if (there == per_thread && reinterpret_cast<unsigned long long>(to) % 8 == 0) {
    uint2 words = make_uint2(0u, 0u);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      words.x |= codes[i] << (8 * i);
      words.y |= codes[i + 4] << (8 * i);
    }
    *reinterpret_cast<uint2*>(to) = words;
  } else {
#pragma unroll
    for (int i = 0; i < per_thread; ++i) {
      if (i < there) to[i] = static_cast<unsigned char>(codes[i]);
    }
  }
}

// m and v of `per_thread` elements; with 8 bits, the 32 threads of a warp have a block of states and call together.
struct States {
  float first[per_thread];
  float second[per_thread];

  __device__ __forceinline__ void read_8_bit(const AdamWTensor& tensor, long long at, int there) {
    unsigned codes[per_thread];
    const float first_scale = tensor.first_scales[at / state_block];
    read_codes(static_cast<const unsigned char*>(tensor.first) + at, there, codes);
#pragma unroll
    for (int i = 0; i < per_thread; ++i) {
      const float size = FirstCode::decode(codes[i] & 0x7fu) * first_scale;
      first[i] = codes[i] & 0x80u ? -size : size;
    }
    const float second_scale = tensor.second_scales[at / state_block];
    read_codes(static_cast<const unsigned char*>(tensor.second) + at, there, codes);
#pragma unroll
    for (int i = 0; i < per_thread; ++i) {
      const float root = SecondCode::decode(codes[i]) * second_scale;
      second[i] = root * root;
    }
  }

  __device__ __forceinline__ void write_8_bit(const AdamWTensor& tensor, long long at, int there) const {
    float most_first = 0.0f, most_second = 0.0f;
#pragma unroll
    for (int i = 0; i < per_thread; ++i) {
      most_first = greater(most_first, fabsf(first[i]));
      most_second = greater(most_second, second[i]);
    }
    most_first = warp_most(most_first);
    most_second = sqrtf(warp_most(most_second));
    __syncwarp();  // all have read the scales
    if (there <= 0) return;
    if (threadIdx.x % warp_size == 0) {
      tensor.first_scales[at / state_block] = most_first;
      tensor.second_scales[at / state_block] = most_second;
    }
    const float by_first = most_first > 0.0f ? 1.0f / most_first : 0.0f;
    const float by_second = most_second > 0.0f ? 1.0f / most_second : 0.0f;
    unsigned codes[per_thread];
#pragma unroll
    for (int i = 0; i < per_thread; ++i) {
      codes[i] = FirstCode::encode(fabsf(first[i]) * by_first) | (first[i] < 0.0f ? 0x80u : 0u);
    }
    write_codes(static_cast<unsigned char*>(tensor.first) + at, there, codes);
#pragma unroll
    for (int i = 0; i < per_thread; ++i) {
      // Never 0 for what is not: a step divides by this, and m may be told where v is too small to be.
      codes[i] = SecondCode::encode(sqrtf(second[i]) * by_second);
      if (codes[i] == 0u && second[i] > 0.0f) codes[i] = 1u;
    }
    write_codes(static_cast<unsigned char*>(tensor.second) + at, there, codes);
  }
};

template <typename Element, bool eight_bit>
__global__ void __launch_bounds__(chunk_threads) adamw(AdamWArguments a) {
  const int number = tensor_of(a.tensors, a.number, blockIdx.x);
  const AdamWTensor tensor = a.tensors[number];
  const float step = *tensor.step;
  const Factors factors = factors_of(a, step);
  const long long start = (static_cast<long long>(blockIdx.x) - tensor.first_chunk) * per_chunk;
#pragma unroll 1
  for (int turn = 0; turn < per_chunk / (chunk_threads * per_thread); ++turn) {
    const long long at = start + (turn * chunk_threads + static_cast<int>(threadIdx.x)) * per_thread;
    const long long left = tensor.count - at;
    const int there = left >= per_thread ? per_thread : left > 0 ? static_cast<int>(left) : 0;
    // A warp stays together: its threads have one block of 8-bit states, and all of them what is beyond the end.
    if (at - at % state_block >= tensor.count) return;
    auto* parameter = static_cast<Element*>(tensor.parameter) + at;
    float values[per_thread], gradient[per_thread];
    States states;
    read_some(parameter, there, values);
    read_some(static_cast<const Element*>(tensor.gradient) + at, there, gradient);
    if constexpr (eight_bit) {
      states.read_8_bit(tensor, at, there);
    } else {
      read_some(static_cast<const float*>(tensor.first) + at, there, states.first);
      read_some(static_cast<const float*>(tensor.second) + at, there, states.second);
    }
#pragma unroll
    for (int i = 0; i < per_thread; ++i) {
      const float g = gradient[i] * factors.gradient;
      states.first[i] += (g - states.first[i]) * a.one_minus_beta1;
      states.second[i] += (g * g - states.second[i]) * a.one_minus_beta2;
      const float divisor = sqrtf(states.second[i]) * factors.root + a.epsilon;
      values[i] = values[i] * factors.keep - factors.step_size * (states.first[i] / divisor);
    }
    if constexpr (sizeof(Element) == 2 && Bits<Element>::dtype == Dtype::bfloat16) {
      if (a.stochastic) {
        const auto group = static_cast<unsigned long long>(at) / per_thread;
        round_stochastically(values, philox(a.seed, static_cast<unsigned>(group), static_cast<unsigned>(group >> 32),
                                            static_cast<unsigned>(number), static_cast<unsigned>(step)));
      }
    }
    write_some(parameter, there, values);
    if constexpr (eight_bit) {
      states.write_8_bit(tensor, at, there);
    } else {
      write_some(static_cast<float*>(tensor.first) + at, there, states.first);
      write_some(static_cast<float*>(tensor.second) + at, there, states.second);
    }
  }
}

// Rows of the table, in a launch's own arguments: they need no memory of the host that a captured graph would read again.
constexpr int rows_at_a_time = 48;
struct TableRows {
  AdamWTensor row[rows_at_a_time];
};
static_assert(sizeof(TableRows) <= 3584, "a kernel's arguments have 4 KiB in all");

__global__ void __launch_bounds__(rows_at_a_time) write_table(TableRows rows, AdamWTensor* table, int number) {
  const int row = static_cast<int>(threadIdx.x);
  if (row < number) table[row] = rows.row[row];
}

// The sum of squares of a chunk's gradients.
template <typename Element>
__global__ void __launch_bounds__(chunk_threads) square_chunks(const AdamWTensor* tensors, int number, float* sums) {
  __shared__ typename RowSum<1, false>::Slots slots;
  RowSum<1, false> block_sum(slots);
  const AdamWTensor tensor = tensors[tensor_of(tensors, number, blockIdx.x)];
  const long long start = (static_cast<long long>(blockIdx.x) - tensor.first_chunk) * per_chunk;
  float sum[1] = {0.0f};
  for (int turn = 0; turn < per_chunk / (chunk_threads * per_thread); ++turn) {
    const long long at = start + (turn * chunk_threads + static_cast<int>(threadIdx.x)) * per_thread;
    const long long left = tensor.count - at;
    if (left <= 0) break;
    float gradient[per_thread];
    read_some(static_cast<const Element*>(tensor.gradient) + at,
              left >= per_thread ? per_thread : static_cast<int>(left), gradient);
#pragma unroll
    for (int i = 0; i < per_thread; ++i) sum[0] += gradient[i] * gradient[i];
  }
  block_sum.sum(sum);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum[0];
}

// The sum of `count` floats, by one block.
__global__ void __launch_bounds__(1024) add_all(const float* sums, long long count, float* sum) {
  __shared__ typename RowSum<1, false>::Slots slots;
  RowSum<1, false> block_sum(slots);
  float mine[1] = {0.0f};
  for (long long at = threadIdx.x; at < count; at += blockDim.x) mine[0] += sums[at];
  block_sum.sum(mine);
  if (threadIdx.x == 0) *sum = mine[0];
}

}  // namespace
}  // namespace datahall

extern "C" {

long long datahall_adamw_chunks(long long count) { return (count + datahall::per_chunk - 1) / datahall::per_chunk; }

int datahall_adamw_table(const AdamWTensor* rows, int number, void* table, void* stream) {
  using namespace datahall;
  for (int start = 0; start < number; start += rows_at_a_time) {
    const int some = std::min(rows_at_a_time, number - start);
    TableRows part{};
    std::copy(rows + start, rows + start + some, part.row);
    const int error = launch(write_table, dim3(1), dim3(rows_at_a_time), 0, stream, part,
                             static_cast<AdamWTensor*>(table) + start, some);
    if (error != 0) return error;
  }
  return 0;
}

int datahall_squared_norm(const void* tensors, int number, long long chunks, float* sums, float* squared_norm,
                          int dtype, void* stream) {
  using namespace datahall;
  if (number < 0 || chunks < 0 || chunks > 0x7fffffffLL) return cudaErrorInvalidValue;
  int error = 0;
  if (chunks > 0) {
    error = with_type(static_cast<Dtype>(dtype), [&]<typename Element>() {
      return launch(square_chunks<Element>, dim3(static_cast<unsigned>(chunks)), dim3(chunk_threads), 0, stream,
                    static_cast<const AdamWTensor*>(tensors), number, sums);
    });
  }
  if (error != 0) return error;
  return launch(add_all, dim3(1), dim3(1024), 0, stream, static_cast<const float*>(sums), chunks, squared_norm);
}

int datahall_adamw(const void* tensors, int number, long long chunks, const float* learning_rate,
                   const float* squared_norm, float most_norm, float one_minus_beta1, float one_minus_beta2,
                   float log_beta1, float log_beta2, float epsilon, float decay, int eight_bit, int stochastic,
                   unsigned long long seed, int dtype, void* stream) {
  using namespace datahall;
  if (chunks == 0) return 0;
  if (number <= 0 || chunks < 0 || chunks > 0x7fffffffLL) return cudaErrorInvalidValue;
  const AdamWArguments a{static_cast<const AdamWTensor*>(tensors), number, learning_rate, squared_norm, most_norm,
                         one_minus_beta1, one_minus_beta2, log_beta1, log_beta2, epsilon, decay, stochastic != 0, seed};
  const dim3 grid(static_cast<unsigned>(chunks));
  return with_type(static_cast<Dtype>(dtype), [&]<typename Element>() {
    if (eight_bit != 0) return launch(adamw<Element, true>, grid, dim3(chunk_threads), 0, stream, a);
    return launch(adamw<Element, false>, grid, dim3(chunk_threads), 0, stream, a);
  });
}

}  // extern "C"
