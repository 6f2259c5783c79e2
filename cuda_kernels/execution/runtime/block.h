// The running block: its threads as fibres, and who waits for whom.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "memory.h"

namespace datahall::execution {

inline constexpr unsigned lanes_of_warp = 32;
inline constexpr unsigned most_threads = 1024;
inline constexpr std::size_t stack_bytes = 128 * 1024;

struct Triple {
  unsigned x = 0, y = 0, z = 0;
};

enum class State : std::uint8_t { ready, at_barrier, in_warp, ended };

// What a thread knew of its warp when it fenced, and from there on hands over with each atomic.
struct Fence {
  bool is_set = false;
  bool of_device = false;
  std::uint32_t epoch = 0;
  std::uint16_t lanes[lanes_of_warp] = {};
};

struct Fibre {
  void* stack_pointer = nullptr;
  std::uintptr_t stack_low = 0;
  Triple index;
  unsigned thread = 0;
  State state = State::ended;
  Site waits_at = 0;
  int group = -1;  // of the warp, that this lane waits in
  unsigned long long result = 0;
  Stamp stamp = 0;
  std::uint32_t clock = 1;
  std::uint16_t known[lanes_of_warp] = {};  // of its warp's lanes, up to which clock this thread comes after them
  std::vector<Acquired> acquired;
  Fence fence;
};

enum class Order : int { forward = 0, reverse = 1, shuffled = 2 };

// The thread that runs now; null outside of kernels.
extern Fibre* current;
extern Triple block_index;
extern Triple block_shape;
extern Triple grid_shape;
extern Stamp block_stamp;      // of the running block, in a stamp's place
extern std::uint32_t epoch;    // barriers that the block has passed
extern const void* running_kernel;
extern std::uint64_t switches;

// Drops the block and the launch: after what cannot be gone on from.
[[noreturn]] void stop_launch();

// A new stamp for the running thread: what it does from now on is told apart from what it did.
void next_clock(Fibre& fibre);

void set_order(Order order, std::uint64_t seed);

}  // namespace datahall::execution
