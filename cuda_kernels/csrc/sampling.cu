// A token for each row of logits: penalties, temperature, min-p, top-k and top-p, and a draw, in one launch.
//
// In this order, which is vLLM's, and that of transformers but for min-p:
// - Tokens that `allowed` does not have are not there at all.
// - Listed tokens (those of the prompt and those generated so far): z > 0 ? z / repetition : z * repetition, and then
//   z - frequency * count - presence, the latter where count > 0. A token of the prompt alone has count 0.
// - Weights are exp((z - most) / temperature). Temperature 0 takes the greatest logit, the lowest token of equals.
// - min-p drops what is less likely than min_p times the likeliest, top-k all beyond the k greatest, and top-p, of what
//   is left, all beyond the fewest that have top_p of its weight. Tokens with equal logits stay or go together.
// - The log-probability is that before anything was dropped (with temperature 0: that of temperature 1).
//
// Rows that give token -1 and log-probability NaN: no token is allowed or all have -inf, a logit that is allowed is NaN
// or inf, a parameter is, or the temperature is negative. top_k <= 0, top_p >= 1 and min_p <= 0 are off; top_p <= 0 and
// min_p >= 1 leave the greatest logit and its equals. Listed tokens beyond the vocabulary do not count; one that is
// listed twice counts twice.
//
// Sums and comparisons are of integers: a weight is a multiple of 2^-43 of the greatest, and a logit the integer that
// has its place among all floats. So it does not matter who adds up first, and a row's token depends on nothing but the
// row's own logits, parameters, seed and offset: not on the batch, the alignment, or the number of threads.
//
// A block has a row, and each of its warps a piece of it. Every step is one more look at the row, which is read from
// global memory once if it fits into shared memory (up to 100,000 of 16 bits on an H100), and else again from L2.
#include "launchers/sampling.h"

#include "dtypes.cuh"
#include "philox.cuh"
#include "platform.cuh"
#include "reduce.cuh"

namespace datahall {
namespace {

using Wide = unsigned long long;

constexpr int fewest_threads = 128, most_threads = 512;  // powers of two between; 128 registers each
constexpr int bits_of_bin = 11;
constexpr int bins = 1 << bits_of_bin;  // of a histogram
constexpr long long most_tokens = 1 << 19;  // of a vocabulary, and of a list: weights of both together fit 64 bits
constexpr float one = 8796093022208.0f;  // 2^43: the weight of the greatest logit
constexpr float farthest = 30.0f;  // temperatures below the greatest logit; beyond 43 ln 2 = 29.8 weights are 0

struct SamplingArguments {
  const void* logits;
  const float* temperature;
  const int* top_k;
  const float* top_p;
  const float* min_p;
  const float* repetition;
  const float* presence;
  const float* frequency;
  const int* listed;
  const int* counts;
  const int* lengths;
  const unsigned* allowed;
  const Wide* seeds;
  const Wide* offsets;
  long long* tokens;
  float* log_probabilities;
  long long vocabulary;
  long long stride;
  long long capacity;
  long long allowed_words;
};

// Where a float stands among all: greater floats have greater orders, equal ones (-0 and 0) the same.
__device__ __forceinline__ unsigned order_of(float z) {
  const unsigned bits = z == 0.0f ? 0u : __float_as_uint(z);
  return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}

__device__ __forceinline__ Wide warp_sum(Wide value) {
#pragma unroll
  for (int distance = warp_size / 2; distance > 0; distance /= 2) {
    value += __shfl_xor_sync(whole_warp, value, distance);
  }
  return value;
}

// The sum up to and with this lane.
__device__ __forceinline__ Wide warp_sum_so_far(Wide value) {
  const int lane = static_cast<int>(threadIdx.x) % warp_size;
#pragma unroll
  for (int distance = 1; distance < warp_size; distance *= 2) {
    const Wide before = __shfl_up_sync(whole_warp, value, static_cast<unsigned>(distance));
    if (lane >= distance) value += before;
  }
  return value;
}

struct SharedSpace {
  unsigned low[bins];  // of each bin's mass: two halves, because one of 64 bits would be added to in a loop
  unsigned high[bins];
  Wide bins_of_warp[most_warps];
  Wide row_of_warp[most_warps];
  Wide listed_of_warp[most_warps];
  Wide before;  // what the bins before the one that was found have
  int found;
  unsigned lowest;
  RowMost::Slots most;
};

// One row, as its block sees it.
template <typename Element, int count, bool resident>
class Row {
 public:
  __device__ __forceinline__ Row(const SamplingArguments& a, SharedSpace& space)
      : a_(a), space_(space), row_(blockIdx.x), width_(static_cast<int>(a.vocabulary)) {
    const int words = (width_ + 31) / 32;
    there_ = dynamic_shared<unsigned>();
    kept_ = reinterpret_cast<Element*>(there_ + (words + 3) / 4 * 4);
    logits_ = static_cast<const Element*>(a.logits) + row_ * a.stride;
    constexpr int step = warp_size * count;
    const int piece = (width_ + warps() * step - 1) / (warps() * step) * step;
    start_ = min(width_, warp() * piece);
    end_ = min(width_, start_ + piece);
    if (a.listed != nullptr) {
      const long long length = a.lengths == nullptr ? a.capacity : a.lengths[row_];
      listed_ = static_cast<int>(min(max(length, 0LL), a.capacity));
    }
  }

  __device__ __forceinline__ void draw() {
    mark();
    float own_most = -__uint_as_float(0x7f800000u);
    visit<true>([&](int, float z) { own_most = greater(own_most, z); });
    if (threadIdx.x == 0) space_.lowest = 0xffffffffu;
    most_ = RowMost(space_.most).of(own_most);
    const float temperature = of_row(a_.temperature, 1.0f);
    if (!is_number(most_) || !is_number(temperature) || temperature < 0.0f || !are_numbers()) {
      if (threadIdx.x == 0) write(-1, __uint_as_float(0x7fffffffu));
      return;
    }
    const bool greedy = temperature == 0.0f;
    temperature_ = greedy ? 1.0f : temperature;
    const unsigned top = order_of(most_);
    unsigned cut = cut_at(farthest);
    Wide left = sum(cut);
    const float log_all = logf(static_cast<float>(left) / one);
    if (greedy) {
      take_lowest(top, log_all);
      return;
    }

    const auto in_all = [this](const auto& call) { visit([&](int, float z) { call(z); }); };
    bool dropped = false;
    if (const float min_p = of_row(a_.min_p, 0.0f); min_p > 0.0f) {
      cut = cut_at(min(farthest, -logf(min(min_p, 1.0f))));
      dropped = true;
    }
    if (const int top_k = a_.top_k == nullptr ? 0 : a_.top_k[row_]; top_k > 0 && top_k < width_) {
      const auto target = static_cast<Wide>(top_k);
      const auto one_each = [](float) { return Wide{1}; };
      // The greatest logits of k threads are k logits: all that is less than each of them need not be looked at.
      if (top_k <= threads()) {
        cut = find_cut(cut, top, target, one_each, [own_most](const auto& call) { call(own_most); });
      }
      cut = find_cut(cut, top, target, one_each, in_all);
      dropped = true;
    }
    if (const float top_p = of_row(a_.top_p, 1.0f); top_p < 1.0f) {
      if (dropped) left = sum(cut);
      const auto share = static_cast<Wide>(max(top_p, 0.0f) * 18446744073709551616.0f);  // 64 bits after the point
      const Wide target = max(Wide{1}, __umul64hi(left, share));
      cut = find_cut(cut, top, target, [this](float z) { return weight(z); }, in_all);
      dropped = true;
    }
    if (dropped) left = sum(cut);

    const auto random = philox(a_.seeds[row_], static_cast<unsigned>(a_.offsets[row_]),
                               static_cast<unsigned>(a_.offsets[row_] >> 32), 0u, 0u);
    const Wide at = __umul64hi(static_cast<Wide>(random.word[1]) << 32 | random.word[0], left);
    take(at, cut, log_all);
  }

 private:
  static __device__ __forceinline__ int lane() { return static_cast<int>(threadIdx.x) % warp_size; }
  static __device__ __forceinline__ int warp() { return static_cast<int>(threadIdx.x) / warp_size; }
  static __device__ __forceinline__ int threads() { return static_cast<int>(blockDim.x); }
  static __device__ __forceinline__ int warps() { return threads() / warp_size; }

  __device__ __forceinline__ float of_row(const float* parameter, float absent) const {
    return parameter == nullptr ? absent : parameter[row_];
  }

  static __device__ __forceinline__ bool is_number(float value) { return value - value == 0.0f; }

  __device__ __forceinline__ bool are_numbers() const {
    return is_number(of_row(a_.top_p, 1.0f)) && is_number(of_row(a_.min_p, 0.0f)) &&
           is_number(of_row(a_.repetition, 1.0f)) && is_number(of_row(a_.presence, 0.0f)) &&
           is_number(of_row(a_.frequency, 0.0f));
  }

  // A bit for each token of the row that may be drawn. Listed tokens are not among them: they are looked at in their
  // list, with their changed logits.
  __device__ __forceinline__ void mark() {
    const unsigned* allowed = a_.allowed == nullptr ? nullptr : a_.allowed + row_ * a_.allowed_words;
    for (int word = static_cast<int>(threadIdx.x); word * 32 < width_; word += threads()) {
      const unsigned all = width_ - word * 32 < 32 ? (1u << (width_ - word * 32)) - 1u : 0xffffffffu;
      there_[word] = allowed == nullptr ? all : allowed[word] & all;
    }
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x); i < listed_; i += threads()) {
      const int token = a_.listed[row_ * a_.capacity + i];
      if (token < 0 || token >= width_) continue;
      const unsigned bit = 1u << token % 32;
      unsigned expected = 0xffffffffu;
      for (unsigned found; (found = atomicCAS(&there_[token / 32], expected, expected & ~bit)) != expected;) {
        expected = found;
      }
    }
    __syncthreads();
  }

  __device__ __forceinline__ int there(int column) const {
    return static_cast<int>(there_[column / 32] >> column % 32);
  }

  // Item i of the list; false if it is no token that may be drawn.
  __device__ __forceinline__ bool read_listed(int i, int& token, float& z) const {
    const long long at = row_ * a_.capacity + i;
    token = a_.listed[at];
    if (token < 0 || token >= width_) return false;
    if (a_.allowed != nullptr && (a_.allowed[row_ * a_.allowed_words + token / 32] >> token % 32 & 1u) == 0) {
      return false;
    }
    const int times = a_.counts == nullptr ? 1 : a_.counts[at];
    z = Pack<Element, 1>::read(logits_ + token).get(0);
    // Parameters are read where they are needed: kept, they would take registers from all that the kernel does.
    const float repetition = of_row(a_.repetition, 1.0f);
    z = z > 0.0f ? z / repetition : z * repetition;
    z -= __fmul_rn(of_row(a_.frequency, 0.0f), static_cast<float>(times));  // rounded as torch rounds
    if (times > 0) z -= of_row(a_.presence, 0.0f);
    return true;
  }

  // Calls `call(token, z)` for each token that may be drawn, by the thread whose it is. The first time, the row moves
  // into shared memory, if it fits.
  template <bool first = false, typename Call>
  __device__ __forceinline__ void visit(const Call& call) {
    visit_row<first>(call);
    visit_listed(call);
  }

  template <bool first = false, typename Call>
  __device__ __forceinline__ void visit_row(const Call& call) {
#pragma unroll 1
    for (int column = start_ + lane() * count; column < end_; column += warp_size * count) {
      const auto pack = read_pack<first>(column);
      const int bits = there(column);
#pragma unroll
      for (int i = 0; i < count; ++i) {
        if ((bits >> i & 1) != 0) call(column + i, pack.get(i));
      }
    }
  }

  template <bool first = false>
  __device__ __forceinline__ Pack<Element, count> read_pack(int column) {
    if constexpr (!resident || first) {
      const auto pack = Pack<Element, count>::read(logits_ + column);
      if constexpr (resident) pack.write(kept_ + column);
      return pack;
    } else {
      return Pack<Element, count>::read(kept_ + column);
    }
  }

  __device__ __forceinline__ float read_one(int column) const {
    return Pack<Element, 1>::read((resident ? kept_ : logits_) + column).get(0);
  }

  template <typename Call>
  __device__ __forceinline__ void visit_listed(const Call& call) {
    int token;
    float z;
#pragma unroll 1
    for (int i = static_cast<int>(threadIdx.x); i < listed_; i += threads()) {
      if (read_listed(i, token, z)) call(token, z);
    }
  }

  __device__ __forceinline__ float log_weight(float z) const { return (z - most_) / temperature_; }
  __device__ __forceinline__ Wide weight(float z) const { return static_cast<Wide>(expf(log_weight(z)) * one); }
  __device__ __forceinline__ Wide weight_from(unsigned cut, float z) const {
    return order_of(z) >= cut ? weight(z) : 0;
  }

  // The order of the least logit that is no more than so many temperatures below the greatest.
  __device__ __forceinline__ unsigned cut_at(float temperatures) const {
    return order_of(most_ - __fmul_rn(temperatures, temperature_));
  }

  // The weight of the tokens from `cut` up; that of each warp's is kept for `take`.
  __device__ __forceinline__ Wide sum(unsigned cut) {
    Wide in_row = 0, in_list = 0;
    visit_row([&](int, float z) { in_row += weight_from(cut, z); });
    visit_listed([&](int, float z) { in_list += weight_from(cut, z); });
    in_row = warp_sum(in_row);
    in_list = warp_sum(in_list);
    __syncthreads();  // all have read the sums before
    if (lane() == 0) {
      space_.row_of_warp[warp()] = in_row;
      space_.listed_of_warp[warp()] = in_list;
    }
    __syncthreads();
    return parts_of(space_.row_of_warp).all + parts_of(space_.listed_of_warp).all;
  }

  struct Parts {
    Wide before;
    Wide own;
    Wide all;
  };

  // What the warps before this one have, this one, and all of them.
  static __device__ __forceinline__ Parts parts_of(const Wide (&of_warp)[most_warps]) {
    const Wide value = lane() < warps() ? of_warp[lane()] : 0;
    const Wide so_far = warp_sum_so_far(value);
    return {__shfl_sync(whole_warp, so_far - value, warp()), __shfl_sync(whole_warp, value, warp()),
            __shfl_sync(whole_warp, so_far, warp_size - 1)};
  }

  // The greatest cut such that the logits from it up have `target` of mass together, at least 1; `low` if all from
  // there to `high` have less. `visit_each(call)` calls for each logit.
  //
  // Each turn sorts what lies between into 2,048 bins and goes on with the one in which the target is reached: three
  // turns at most. Mass is in integers, so it does not matter who adds first.
  template <typename Mass, typename Visit>
  __device__ __forceinline__ unsigned find_cut(
      unsigned low, unsigned high, Wide target, const Mass& mass, const Visit& visit_each) {
    Wide above = 0;
    const int own_bins = bins / threads(), first_bin = static_cast<int>(threadIdx.x) * own_bins;
    while (true) {
      const int shift = max(0, 32 - __clz(static_cast<int>(high - low)) - bits_of_bin);
      for (int bin = static_cast<int>(threadIdx.x); bin < bins; bin += threads()) {
        space_.low[bin] = space_.high[bin] = 0;
      }
      __syncthreads();
      visit_each([&](float z) {
        const unsigned order = order_of(z);
        if (order >= low && order <= high) add((high - order) >> shift, mass(z));
      });
      __syncthreads();
      Wide mine = 0;
      for (int bin = first_bin; bin < first_bin + own_bins; ++bin) mine += mass_of(bin);
      Wide before = above + sum_before(mine);
      const bool is_reached = before < target && target <= before + mine;  // by one thread, or none
      for (int bin = first_bin; is_reached && bin < first_bin + own_bins; ++bin) {
        const Wide in_bin = mass_of(bin);
        if (target <= before + in_bin) {
          space_.found = bin;
          space_.before = before;
          break;
        }
        before += in_bin;
      }
      if (static_cast<int>(threadIdx.x) == threads() - 1 && before + mine < target) space_.found = bins;
      __syncthreads();
      const auto bin = static_cast<unsigned>(space_.found);
      if (bin == bins) return low;
      above = space_.before;
      high -= bin << shift;
      if (shift == 0) return high;
      low = max(low, high - min(high, (1u << shift) - 1u));
    }
  }

  __device__ __forceinline__ Wide mass_of(int bin) const {
    return static_cast<Wide>(space_.high[bin]) << 32 | space_.low[bin];
  }

  __device__ __forceinline__ void add(unsigned bin, Wide mass) {
    const auto low = static_cast<unsigned>(mass);
    const unsigned before = atomicAdd(&space_.low[bin], low);
    const unsigned high = static_cast<unsigned>(mass >> 32) + (before + low < before ? 1u : 0u);
    if (high != 0) atomicAdd(&space_.high[bin], high);
  }

  // The sum of what all threads before this one have.
  __device__ __forceinline__ Wide sum_before(Wide value) {
    const Wide so_far = warp_sum_so_far(value);
    if (lane() == warp_size - 1) space_.bins_of_warp[warp()] = so_far;
    __syncthreads();
    return parts_of(space_.bins_of_warp).before + so_far - value;
  }

  // Writes the token at which the weights from `cut` up, added in the order of the row and then of the list, exceed
  // `at`.
  __device__ __forceinline__ void take(Wide at, unsigned cut, float log_all) {
    const Parts row = parts_of(space_.row_of_warp);
    if (at >= row.before && at - row.before < row.own) {
      const int column = find_place<count>(at - row.before, start_, end_, [&](int at_column) {
        const bool is_there = (there(at_column) & 1) != 0;
        return is_there ? weight_from(cut, read_one(at_column)) : 0;
      });
      if (column >= 0) write(column, log_weight(read_one(column)) - log_all);
    } else if (at >= row.all && warp() == 0) {
      int token;
      float z;
      const int item = find_place<1>(at - row.all, 0, listed_, [&](int i) {
        return read_listed(i, token, z) ? weight_from(cut, z) : 0;
      });
      if (item >= 0 && read_listed(item, token, z)) write(token, log_weight(z) - log_all);
    }
  }

  // Where `at` falls if the weights of the places from `begin` on are added up: for the lane that comes upon it; -1 for
  // the others. A warp looks at `each` places a lane at a time.
  template <int each, typename Weigh>
  __device__ __forceinline__ int find_place(Wide at, int begin, int end, const Weigh& weigh) const {
#pragma unroll 1
    for (; begin < end; begin += warp_size * each) {
      const int own = begin + lane() * each;
      const int beyond = min(own + each, end);
      Wide mine = 0;
#pragma unroll 1
      for (int place = own; place < beyond; ++place) mine += weigh(place);
      const Wide so_far = warp_sum_so_far(mine);
      const Wide all = __shfl_sync(whole_warp, so_far, warp_size - 1);
      Wide left = at - (so_far - mine);  // immense, if it falls to a lane before
      if (left < mine) {
        int place = own;
        for (Wide weight; left >= (weight = weigh(place)); ++place) left -= weight;
        return place;
      }
      if (at < all) return -1;
      at -= all;
    }
    return -1;
  }

  // The lowest of the tokens that have the greatest logit.
  __device__ __forceinline__ void take_lowest(unsigned top, float log_all) {
    unsigned lowest = 0xffffffffu;
    visit([&](int token, float z) {
      if (order_of(z) == top) lowest = min(lowest, static_cast<unsigned>(token));
    });
    lowest = __reduce_min_sync(whole_warp, lowest);
    if (lane() == 0) atomicMin(&space_.lowest, lowest);
    __syncthreads();
    if (threadIdx.x == 0) write(static_cast<long long>(space_.lowest), -log_all);
  }

  __device__ __forceinline__ void write(long long token, float log_probability) const {
    a_.tokens[row_] = token;
    if (a_.log_probabilities != nullptr) a_.log_probabilities[row_] = log_probability;
  }

  const SamplingArguments& a_;
  SharedSpace& space_;
  const long long row_;
  const Element* logits_;
  Element* kept_;    // the row in shared memory, if it is `resident`
  unsigned* there_;  // a bit for each token of the row that may be drawn, if it is not listed
  const int width_;
  int start_;  // the warp's piece of the row
  int end_;
  int listed_ = 0;
  float most_ = 0.0f;
  float temperature_ = 1.0f;
};

template <typename Element, int count, bool resident>
__global__ void __launch_bounds__(most_threads, 1) sample(SamplingArguments a) {
  __shared__ SharedSpace space;
  Row<Element, count, resident>(a, space).draw();
}

constexpr std::size_t round_up(std::size_t bytes) { return (bytes + 15) / 16 * 16; }

template <typename Element, int count>
int launch_sample(const SamplingArguments& a, long long rows, int shared_bytes, void* stream) {
  const auto tokens = static_cast<std::size_t>(a.vocabulary);
  const std::size_t bits = round_up((tokens + 31) / 32 * 4), row = round_up(tokens * sizeof(Element));
  const auto room = static_cast<std::size_t>(shared_bytes) - sizeof(SharedSpace);
  if (bits > room) return cudaErrorInvalidValue;
  int threads = fewest_threads;
  while (threads < most_threads && threads * count * 2 < a.vocabulary) threads *= 2;
  const dim3 grid(static_cast<unsigned>(rows)), block(static_cast<unsigned>(threads));
  const auto start = [&](auto kernel, std::size_t bytes) {
    const int error = allow_shared(kernel, room);
    return error != 0 ? error : launch(kernel, grid, block, bytes, stream, a);
  };
  if (bits + row <= room) return start(sample<Element, count, true>, bits + row);
  return start(sample<Element, count, false>, bits);
}

template <typename Element>
int launch_typed(const SamplingArguments& a, long long rows, int shared_bytes, void* stream) {
  constexpr int wide = widest_pack<Element>;
  if (is_aligned(a.logits) && a.stride % wide == 0) return launch_sample<Element, wide>(a, rows, shared_bytes, stream);
  return launch_sample<Element, 1>(a, rows, shared_bytes, stream);
}

}  // namespace
}  // namespace datahall

extern "C" {

int datahall_sample(const void* logits, const float* temperature, const int* top_k, const float* top_p,
                    const float* min_p, const float* repetition, const float* presence, const float* frequency,
                    const int* listed, const int* counts, const int* lengths, const unsigned* allowed,
                    const unsigned long long* seeds, const unsigned long long* offsets, long long* tokens,
                    float* log_probabilities, long long rows, long long vocabulary, long long stride,
                    long long capacity, long long allowed_words, int shared_bytes, int dtype, void* stream) {
  using namespace datahall;
  if (rows == 0) return 0;
  const bool shaped = rows > 0 && rows <= 0x7fffffffLL && vocabulary > 0 && vocabulary <= most_tokens &&
                      stride >= vocabulary && capacity >= 0 && capacity <= most_tokens;
  const bool fits = allowed == nullptr || allowed_words >= (vocabulary + 31) / 32;
  if (!shaped || !fits || shared_bytes < static_cast<int>(sizeof(SharedSpace))) return cudaErrorInvalidValue;
  const SamplingArguments a{logits,  temperature, top_k,   top_p, min_p,   repetition, presence,
                            frequency, listed,    counts,  lengths, allowed, seeds,    offsets,
                            tokens,  log_probabilities, vocabulary, stride, capacity, allowed_words};
  return with_type(static_cast<Dtype>(dtype), [&]<typename Element>() {
    return launch_typed<Element>(a, rows, shared_bytes, stream);
  });
}

}  // extern "C"
