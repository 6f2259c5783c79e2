// Philox4x32-10 (Salmon et al., SC 2011): random numbers from a key and a counter, with no state to keep.
//
// Whoever asks names what the numbers are for by the counter, so they do not depend on how threads divide the work.
#pragma once

#include "platform.cuh"

namespace datahall {

struct RandomBits {
  unsigned word[4];
};

__device__ __forceinline__ RandomBits philox(
    unsigned long long seed, unsigned counter0, unsigned counter1, unsigned counter2, unsigned counter3) {
  RandomBits at{{counter0, counter1, counter2, counter3}};
  unsigned key0 = static_cast<unsigned>(seed), key1 = static_cast<unsigned>(seed >> 32);
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    constexpr unsigned factor0 = 0xd2511f53u, factor1 = 0xcd9e8d57u;
    const unsigned high0 = __umulhi(factor0, at.word[0]), low0 = factor0 * at.word[0];
    const unsigned high1 = __umulhi(factor1, at.word[2]), low1 = factor1 * at.word[2];
    at = {{high1 ^ at.word[1] ^ key0, low1, high0 ^ at.word[3] ^ key1, low0}};
    key0 += 0x9e3779b9u;
    key1 += 0xbb67ae85u;
  }
  return at;
}

}  // namespace datahall
