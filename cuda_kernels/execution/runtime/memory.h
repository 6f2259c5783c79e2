// The memory that kernels may touch, byte for byte: whose it is, who wrote and read it last, and what came before what.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "report.h"

namespace datahall::execution {

// When and by whom: | set: 1 | block + 1: 22 | epoch: 16 | clock: 15 | thread: 10 |.
// 0: never. 1: before this launch. With the top bit set: the number of a set of readers.
using Stamp = std::uint64_t;
inline constexpr int block_bits = 22, epoch_bits = 16, clock_bits = 15, thread_bits = 10;
inline constexpr int clock_at = thread_bits, epoch_at = clock_at + clock_bits, block_at = epoch_at + epoch_bits;
inline constexpr Stamp earlier = 1;
inline constexpr Stamp is_set = Stamp{1} << 63;

constexpr std::uint32_t field(Stamp stamp, int at, int bits) {
  return static_cast<std::uint32_t>(stamp >> at & ((Stamp{1} << bits) - 1));
}

// One granule of memory: its last plain write, and what has read it (or changed it by an atomic) since then.
struct Cell {
  Stamp write;
  Stamp read;
  Site write_site;
  Site read_site;
};

struct Reader {
  Stamp stamp;
  Site site;
  bool is_atomic;
};

struct Region {
  std::string name;
  char* base = nullptr;
  std::size_t bytes = 0;
  std::size_t row_bytes = 0;  // with a row_stride: only so much of each row is the buffer's
  std::size_t row_stride = 0;
  bool is_writable = true;
  bool is_initialised = true;
  bool is_shared = false;
  bool is_touched = false;
  unsigned granule = 4;  // bytes of a cell; a power of two
  Stamp block = 0;       // shared memory: the block that it was last made ready for
  Cell* cells = nullptr;

  std::size_t cell_count() const { return (bytes + granule - 1) / granule; }
};

// Without checks memory is anybody's: the kernels are linked into a program that registers no buffers.
#ifdef DATAHALL_CPU_UNCHECKED
inline constexpr bool is_checked = false;
#else
inline constexpr bool is_checked = true;
#endif

enum class Kind { read, write, atomic };

// "Up to the `count`th release at this location, the thread comes after all that was released."
struct Location;
struct Acquired {
  Location* location;
  std::size_t count;
};

// Checks an access of the running thread before it happens.
void check_access(const void* address, std::size_t bytes, Kind kind, Site site);
// An atomic also hands over what the thread fenced, and takes what others did.
void check_atomic(const void* address, std::size_t bytes, Site site);
void join_acquired(std::vector<Acquired>& into, const std::vector<Acquired>& from);
extern std::vector<Acquired> acquired_by_block;

// What a block has of static shared memory, and of static and dynamic together; and what it has of both when it asks.
inline constexpr std::size_t most_unasked_bytes = 48 * 1024, most_shared_bytes = 227 * 1024;

// asked_bytes: of dynamic shared memory; 0: nobody has asked.
void start_launch_memory(const void* arguments, std::size_t arguments_bytes, std::size_t shared_bytes,
                         std::size_t asked_bytes);
void start_block_memory();
void end_launch_memory();
void* dynamic_shared_memory();
bool clear_memory(void* to, std::size_t bytes);

// So many accesses may a launch have; what has more is taken to wait for something that never comes.
extern std::uint64_t accesses_left;
void set_access_budget(std::uint64_t accesses);

}  // namespace datahall::execution
