// y = x W^T with weights of 8 or 4 bits, for the few rows of x that decoding has: bound by reading W once.
//
// A warp has `outputs` rows of W and reads 16 bytes a thread at a time; x lies in shared memory as float32, in the order
// in which threads want it. An integer becomes a float by being put below the bits of 2^23, which needs no conversion:
// 2^23 + u is exact, and taking 2^23 + zero off again leaves u - zero. Integers of 4 bits stay where they are in their
// word; that shifts them by powers of two, which x has taken off beforehand, exactly.
//
// W: [outputs, stride] codes, two to a byte with 4 bits (the even one low), unsigned, zero at 128 or 8; rows are padded
// to whole loads. scales: [outputs, groups], a group being `group` inputs in a row. Sums are in float32, in fixed order.
#include "dtypes.cuh"
#include "launchers/weight_only.h"
#include "platform.cuh"
#include "reduce.cuh"

namespace datahall {
namespace {

constexpr int warps = 4;
constexpr int threads = warps * warp_size;
constexpr int tile_bytes = 32 * 1024;  // of x in shared memory, for all rows together
constexpr int at_once = 8;             // inputs that a thread puts there at a time
constexpr unsigned two_to_23 = 0x4b000000u;

struct WeightOnlyArguments {
  const void* x;
  const unsigned char* codes;
  const float* scales;
  const void* bias;  // null: none; of x's type
  void* y;
  long long rows;
  int inputs;
  int outputs;
  int row_bytes;  // of W
  int group;      // inputs that share a scale
  int groups;     // scales of an output
};

// What is one load of codes: how many there are, and what x is to be multiplied by where it meets each.
template <int bits>
struct Codes {
  static constexpr int count = 128 / bits;
  static constexpr float zero = bits == 8 ? 128.0f : 8.0f;

  // How far to the left code i of a word of 4-bit codes lies when it becomes a float. Above bit 19 there is no room.
  static __host__ __device__ constexpr int left(int i) { return bits == 8 ? 0 : 4 * (i % 8 < 5 ? i % 8 : i % 8 - 5); }

  static __device__ __forceinline__ float widen(const uint4& all, int i) {
    const unsigned word = i * bits / 32 == 0 ? all.x : i * bits / 32 == 1 ? all.y : i * bits / 32 == 2 ? all.z : all.w;
    if constexpr (bits == 8) {
      return __uint_as_float(__byte_perm(word, two_to_23, 0x7440 + i % 4)) - (8388608.0f + zero);
    } else {
      const unsigned in_place = i % 8 < 5 ? word : word >> 20;
      const unsigned code = in_place & (0xfu << left(i));
      return __uint_as_float(code | two_to_23) - (8388608.0f + zero * static_cast<float>(1 << left(i)));
    }
  }
};

// rows: of x at a time. outputs: of a warp at a time. Blocks: (outputs, rows of x).
template <typename Element, int bits, int rows, int outputs>
__global__ void __launch_bounds__(threads) weight_only(WeightOnlyArguments a) {
  using Code = Codes<bits>;
  constexpr int per_lane = Code::count;                      // inputs that a thread meets at a time
  constexpr int per_warp = per_lane * warp_size;             // inputs that a warp meets at a time
  constexpr int steps = tile_bytes / 4 / rows / per_warp;    // of those in a tile
  constexpr int tile = steps * per_warp;
  static_assert(steps > 0);
  // Of each step and row: fours of inputs, lane by lane, so that a warp reads 16 bytes a thread without conflicts.
  alignas(16) __shared__ float x_tile[rows * tile];

  const int lane = static_cast<int>(threadIdx.x) % warp_size;
  const int warp = static_cast<int>(threadIdx.x) / warp_size;
  const int first_output = (static_cast<int>(blockIdx.x) * warps + warp) * outputs;
  const long long first_row = static_cast<long long>(blockIdx.y) * rows;
  const auto* x = static_cast<const Element*>(a.x);
  float sums[outputs][rows] = {};

  for (int tile_start = 0; tile_start < a.inputs; tile_start += tile) {
    __syncthreads();  // all have done with the tile before
    const int met = min(tile, (a.inputs - tile_start + per_warp - 1) / per_warp * per_warp);
    // A block has few outputs: what it does for each element of x weighs as much as what it does for a weight.
#pragma unroll 1
    for (int row = 0; row < rows; ++row) {
      const int left = first_row + row < a.rows ? a.inputs - tile_start : 0;
      const auto* from = x + (first_row + row) * a.inputs + tile_start;
      for (int at = static_cast<int>(threadIdx.x) * at_once; at < met; at += threads * at_once) {
        float values[at_once];
        read_some(from + at, left - at, values);
#pragma unroll
        for (int i = 0; i < at_once; ++i) values[i] *= 1.0f / static_cast<float>(1 << Code::left(i));
        const int of_lane = at % per_warp / per_lane;
        const int slot = (at / per_warp * per_lane / 4 + at % per_lane / 4) * warp_size + of_lane;
#pragma unroll
        for (int four = 0; four < at_once / 4; ++four) {
          *reinterpret_cast<float4*>(&x_tile[row * tile + (slot + four * warp_size) * 4]) =
              make_float4(values[four * 4], values[four * 4 + 1], values[four * 4 + 2], values[four * 4 + 3]);
        }
      }
    }
    __syncthreads();
    for (int step = 0; step * per_warp < met; ++step) {
      const int input = tile_start + step * per_warp + lane * per_lane;
      const int byte = input / 8 * bits;  // inputs of a lane begin at whole bytes
      uint4 codes[outputs];
      float scale[outputs];
#pragma unroll
      for (int o = 0; o < outputs; ++o) {
        codes[o] = make_uint4(0u, 0u, 0u, 0u);
        scale[o] = 0.0f;
        if (byte < a.row_bytes && first_output + o < a.outputs) {
          const long long row_start = static_cast<long long>(first_output + o) * a.row_bytes;
          codes[o] = *reinterpret_cast<const uint4*>(a.codes + row_start + byte);
          const int group = min(input / a.group, a.groups - 1);  // the padding has x = 0
          scale[o] = a.scales[static_cast<long long>(first_output + o) * a.groups + group];
        }
      }
      float found[outputs][rows] = {};
#pragma unroll
      for (int four = 0; four < per_lane / 4; ++four) {
        float weight[outputs][4];
#pragma unroll
        for (int o = 0; o < outputs; ++o) {
#pragma unroll
          for (int i = 0; i < 4; ++i) weight[o][i] = Code::widen(codes[o], four * 4 + i);
        }
#pragma unroll
        for (int row = 0; row < rows; ++row) {
          const int slot = (step * per_lane / 4 + four) * warp_size + lane;
          const float4 some = *reinterpret_cast<const float4*>(&x_tile[row * tile + slot * 4]);
#pragma unroll
          for (int o = 0; o < outputs; ++o) {
            found[o][row] += some.x * weight[o][0] + some.y * weight[o][1] + some.z * weight[o][2] + some.w * weight[o][3];
          }
        }
      }
#pragma unroll
      for (int o = 0; o < outputs; ++o) {
#pragma unroll
        for (int row = 0; row < rows; ++row) sums[o][row] += scale[o] * found[o][row];
      }
    }
  }

#pragma unroll
  for (int o = 0; o < outputs; ++o) {
#pragma unroll
    for (int row = 0; row < rows; ++row) {
      const float sum = warp_sum(sums[o][row]);
      if (lane == 0 && first_output + o < a.outputs && first_row + row < a.rows) {
        float bias = 0.0f;
        if (a.bias != nullptr) {
          bias = Pack<Element, 1>::read(static_cast<const Element*>(a.bias) + first_output + o).get(0);
        }
        const float value[1] = {sum + bias};
        auto* to = static_cast<Element*>(a.y) + (first_row + row) * a.outputs + first_output + o;
        Pack<Element, 1>::of(value).write(to);
      }
    }
  }
}

template <typename Element, int bits, int rows>
int launch_rows(const WeightOnlyArguments& a, int multiprocessors, void* stream) {
  const auto start = [&](auto kernel, int outputs) {
    const int per_block = warps * outputs;
    const dim3 grid(static_cast<unsigned>((a.outputs + per_block - 1) / per_block),
                    static_cast<unsigned>((a.rows + rows - 1) / rows));
    return launch(kernel, grid, dim3(threads), 0, stream, a);
  };
  // Two outputs a warp share what they read of x; one, where there would be too few blocks for the device.
  if (a.outputs >= 2 * warps * 2 * multiprocessors) return start(weight_only<Element, bits, rows, 2>, 2);
  return start(weight_only<Element, bits, rows, 1>, 1);
}

template <typename Element, int bits>
int launch_bits(const WeightOnlyArguments& a, int multiprocessors, void* stream) {
  if (a.rows == 1) return launch_rows<Element, bits, 1>(a, multiprocessors, stream);
  if (a.rows == 2) return launch_rows<Element, bits, 2>(a, multiprocessors, stream);
  if (a.rows <= 4) return launch_rows<Element, bits, 4>(a, multiprocessors, stream);
  return launch_rows<Element, bits, 8>(a, multiprocessors, stream);
}

}  // namespace
}  // namespace datahall

extern "C" {

int datahall_weight_only(const void* x, const void* codes, const float* scales, const void* bias, void* y,
                         long long rows, int inputs, int outputs, int row_bytes, int group, int bits,
                         int multiprocessors, int dtype, void* stream) {
  using namespace datahall;
  if (rows == 0 || outputs == 0) return 0;
  const long long needed = (static_cast<long long>(inputs) * bits + 7) / 8;
  const bool shaped = rows > 0 && rows <= 8 * 65535LL && inputs > 0 && outputs > 0 && row_bytes % 16 == 0 &&
                      row_bytes >= needed && group > 0 && (group % 32 == 0 || group >= inputs);
  if (!shaped || !is_aligned(codes) || (bits != 8 && bits != 4)) return cudaErrorInvalidValue;
  const WeightOnlyArguments a{x, static_cast<const unsigned char*>(codes), scales, bias, y, rows, inputs, outputs,
                              row_bytes, group, (inputs + group - 1) / group};
  const auto typed = [&]<typename Element>() {
    return bits == 8 ? launch_bits<Element, 8>(a, multiprocessors, stream)
                     : launch_bits<Element, 4>(a, multiprocessors, stream);
  };
  return with_type(static_cast<Dtype>(dtype), typed);
}

}  // extern "C"
