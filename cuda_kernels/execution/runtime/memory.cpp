#include "memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <unordered_map>

#include "block.h"
#include "symbols.h"

namespace datahall::execution {

// What one thread released at a location: what it had fenced. Covers what came before its block's barriers, too.
struct Release {
  std::uint32_t block;
  std::uint32_t epoch;
  unsigned warp;
  bool of_device;
  std::uint16_t lanes[lanes_of_warp];
  std::vector<Acquired> acquired;
};

struct Location {
  std::vector<Release> releases;
};

std::uint64_t accesses_left = 0;
std::vector<Acquired> acquired_by_block;

namespace {

constexpr std::size_t slot_bytes = std::size_t{1} << 20;
constexpr std::size_t slots = std::size_t{1} << 14;  // 16 GiB of addresses, of which what is touched takes memory
constexpr std::size_t margin_bytes = 256 * 1024;     // before and behind each buffer
constexpr unsigned char poison = 0xff;  // NaN in every floating-point type, and no likely integer
constexpr std::uint64_t default_access_budget = 4'000'000'000;

struct ReadSet {
  std::vector<Reader> readers;
  Stamp same_epoch = 0;  // block and epoch in which two warps have read: whoever writes then races with one of them
  bool of_two_blocks = false;
};

char* arena = nullptr;
std::vector<Region*> region_of_slot;
std::size_t next_slot = 0;
std::vector<std::unique_ptr<Region>> buffers;

std::vector<std::unique_ptr<Region>> shared_arrays;
std::vector<std::uint16_t> array_of_word;  // of the thread-local segment, by 4 bytes: index into shared_arrays + 1
char* shared_low = nullptr;
std::size_t shared_segment_bytes = 0;
Region dynamic_shared;  // its place is at the arena's end
std::size_t static_bytes_of_block = 0;
std::size_t asked_shared_bytes = 0;

std::uintptr_t arguments_low = 0;
std::size_t arguments_size = 0;
std::uint64_t access_budget = default_access_budget;

std::vector<ReadSet> read_sets;
std::vector<std::uint32_t> free_sets;
std::unordered_map<std::uintptr_t, std::unique_ptr<Location>> locations;

std::uint32_t block_of(Stamp stamp) { return field(stamp, block_at, block_bits); }
std::uint32_t epoch_of(Stamp stamp) { return field(stamp, epoch_at, epoch_bits); }
std::uint32_t clock_of(Stamp stamp) { return field(stamp, clock_at, clock_bits); }
unsigned thread_of(Stamp stamp) { return field(stamp, 0, thread_bits); }
unsigned warp_of(Stamp stamp) { return thread_of(stamp) / lanes_of_warp; }

ReadSet& set_of(Stamp stamp) { return read_sets[stamp & ~is_set]; }

Stamp new_set() {
  if (free_sets.empty()) {
    read_sets.emplace_back();
    return is_set | (read_sets.size() - 1);
  }
  const auto index = free_sets.back();
  free_sets.pop_back();
  return is_set | index;
}

void free_set(Stamp stamp) {
  ReadSet& set = set_of(stamp);
  set.readers.clear();
  set.same_epoch = 0;
  set.of_two_blocks = false;
  free_sets.push_back(static_cast<std::uint32_t>(stamp & ~is_set));
}

void make_cells(Region& region) {
  if (region.cells == nullptr) {
    region.cells = static_cast<Cell*>(std::calloc(region.cell_count() + 1, sizeof(Cell)));
  }
}

// Cells of `granule` bytes from now on, each as the one that it was part of.
void refine(Region& region, unsigned granule) {
  const auto count = region.cell_count();
  const unsigned parts = region.granule / granule;
  auto* cells = static_cast<Cell*>(std::calloc(count * parts + 1, sizeof(Cell)));
  for (std::size_t i = 0; i < count; ++i) {
    for (unsigned part = 0; part < parts; ++part) {
      Cell& cell = cells[i * parts + part];
      cell = region.cells[i];
      if (part > 0 && (cell.read & is_set) != 0) {
        const Stamp copy = new_set();
        set_of(copy) = set_of(cell.read);
        cell.read = copy;
      }
    }
  }
  std::free(region.cells);
  region.cells = cells;
  region.granule = granule;
}

void forget_accesses(Region& region, bool keep_whether_written) {
  for (std::size_t i = 0; i < region.cell_count(); ++i) {
    Cell& cell = region.cells[i];
    bool was_written = cell.write != 0;
    if ((cell.read & is_set) != 0) {
      for (const Reader& reader : set_of(cell.read).readers) was_written |= reader.is_atomic;
      free_set(cell.read);
    }
    cell = {keep_whether_written && was_written ? earlier : 0, 0, 0, 0};
  }
}

bool covers(const Acquired& acquired, Stamp stamp, int depth) {
  for (std::size_t i = acquired.count; i > 0; --i) {
    const Release& release = acquired.location->releases[i - 1];
    if (release.block == block_of(stamp) && (release.of_device || release.block == block_of(block_stamp))) {
      if (epoch_of(stamp) < release.epoch) return true;
      if (epoch_of(stamp) == release.epoch && warp_of(stamp) == release.warp &&
          release.lanes[thread_of(stamp) % lanes_of_warp] >= clock_of(stamp)) {
        return true;
      }
    }
    if (depth > 0) {
      for (const Acquired& more : release.acquired) {
        if (covers(more, stamp, depth - 1)) return true;
      }
    }
  }
  return false;
}

constexpr int longest_chain = 8;

bool is_before_by_atomics(Stamp stamp) {
  for (const Acquired& acquired : current->acquired) {
    if (covers(acquired, stamp, longest_chain)) return true;
  }
  for (const Acquired& acquired : acquired_by_block) {
    if (covers(acquired, stamp, longest_chain)) return true;
  }
  return false;
}

// Whether what was done at `stamp` comes before what the running thread does now.
bool is_before(Stamp stamp) {
  const auto block = block_of(stamp);
  if (block == 0) return true;
  if (block == block_of(block_stamp)) {
    if (epoch_of(stamp) < epoch || thread_of(stamp) == current->thread) return true;
    if (warp_of(stamp) == current->thread / lanes_of_warp &&
        current->known[thread_of(stamp) % lanes_of_warp] >= clock_of(stamp)) {
      return true;
    }
  }
  return !locations.empty() && is_before_by_atomics(stamp);
}

std::string thread_name(Stamp stamp) {
  const unsigned thread = thread_of(stamp);
  std::string name = format("thread (%u, %u, %u)", thread % block_shape.x, thread / block_shape.x % block_shape.y,
                            thread / block_shape.x / block_shape.y);
  if (block_of(stamp) != block_of(block_stamp)) {
    const unsigned block = block_of(stamp) - 1;
    name += format(" of block (%u, %u, %u)", block % grid_shape.x, block / grid_shape.x % grid_shape.y,
                   block / grid_shape.x / grid_shape.y);
  }
  return name;
}

const char* kind_name(Kind kind) {
  return kind == Kind::read ? "read" : kind == Kind::write ? "write" : "atomic";
}

void report_race(const Region& region, std::size_t offset, std::size_t bytes, Kind kind, Site site, Kind other_kind,
                 Stamp other, Site other_site) {
  add_finding("race", site, other_site,
              format("%s of %zu bytes at %s + %zu, at %s, and %s by %s, at %s: nothing orders them", kind_name(kind),
                     bytes, region.name.c_str(), offset, at_site(site).c_str(), kind_name(other_kind),
                     thread_name(other).c_str(), at_site(other_site).c_str()));
}

void add_reader(Cell& cell, Site site, bool is_atomic) {
  const Stamp me = current->stamp;
  if ((cell.read & is_set) == 0) {
    if (!is_atomic && (cell.read == 0 || is_before(cell.read))) {
      cell.read = me;
      cell.read_site = site;
      return;
    }
    const Stamp set = new_set();
    if (cell.read != 0) set_of(set).readers.push_back({cell.read, cell.read_site, false});
    cell.read = set;
  }
  ReadSet& set = set_of(cell.read);
  // What comes before this thread's access of the same kind is spoken for by it.
  std::erase_if(set.readers, [&](const Reader& reader) {
    return reader.is_atomic == is_atomic && (reader.stamp == me || is_before(reader.stamp));
  });
  if (!is_atomic) {
    const Stamp here = me >> epoch_at;
    for (const Reader& reader : set.readers) {
      if (reader.is_atomic) continue;
      if (reader.stamp >> epoch_at == here && warp_of(reader.stamp) != warp_of(me)) set.same_epoch = here;
      if (block_of(reader.stamp) != block_of(me)) set.of_two_blocks = true;
    }
  }
  set.readers.push_back({me, site, is_atomic});
}

void check_cell(Region& region, Cell& cell, std::size_t offset, std::size_t bytes, Kind kind, Site site,
                bool& is_uninitialised) {
  const Stamp me = current->stamp;
  if (cell.write != me && cell.write > earlier && !is_before(cell.write)) {
    report_race(region, offset, bytes, kind, site, Kind::write, cell.write, cell.write_site);
  }
  if (kind == Kind::write) {
    if (cell.read != 0 && cell.read != me) {
      if ((cell.read & is_set) != 0) {
        for (const Reader& reader : set_of(cell.read).readers) {
          if (!is_before(reader.stamp)) {
            report_race(region, offset, bytes, kind, site, reader.is_atomic ? Kind::atomic : Kind::read, reader.stamp,
                        reader.site);
            break;
          }
        }
        free_set(cell.read);
      } else if (!is_before(cell.read)) {
        report_race(region, offset, bytes, kind, site, Kind::read, cell.read, cell.read_site);
      }
    }
    cell.write = me;
    cell.write_site = site;
    cell.read = 0;
    return;
  }
  bool is_written = cell.write != 0 || region.is_initialised;
  if ((cell.read & is_set) != 0) {
    const ReadSet& set = set_of(cell.read);
    for (const Reader& reader : set.readers) {
      is_written |= reader.is_atomic;
      if (reader.is_atomic != (kind == Kind::atomic) && !is_before(reader.stamp)) {
        report_race(region, offset, bytes, kind, site, reader.is_atomic ? Kind::atomic : Kind::read, reader.stamp,
                    reader.site);
        break;
      }
    }
    if (kind == Kind::read && (set.of_two_blocks || set.same_epoch == me >> epoch_at)) {
      if (!is_written) is_uninitialised = true;
      return;
    }
  } else if (kind == Kind::atomic && cell.read != 0 && !is_before(cell.read)) {
    report_race(region, offset, bytes, kind, site, Kind::read, cell.read, cell.read_site);
  }
  if (!is_written) is_uninitialised = true;
  if (cell.read != me || kind == Kind::atomic) add_reader(cell, site, kind == Kind::atomic);
}

void check_cells(Region& region, std::size_t offset, std::size_t bytes, Kind kind, Site site) {
  make_cells(region);
  region.is_touched = true;
  if (((offset | bytes) & (region.granule - 1)) != 0) [[unlikely]] {
    refine(region, static_cast<unsigned>((offset | bytes) & -(offset | bytes)));
  }
  bool is_uninitialised = false;
  const Stamp me = current->stamp;
  const auto first = offset / region.granule;
  const auto last = (offset + bytes - 1) / region.granule;
  for (auto i = first; i <= last; ++i) {
    Cell& cell = region.cells[i];
    if (kind == Kind::write && cell.read == 0 && (cell.write <= earlier || cell.write == me)) {
      cell.write = me;
      cell.write_site = site;
    } else if (kind == Kind::read && cell.read == me && (cell.write == me || cell.write == earlier)) {
      continue;
    } else {
      check_cell(region, cell, offset, bytes, kind, site, is_uninitialised);
    }
  }
  if (is_uninitialised) {
    add_finding("uninitialised", site, 0,
                format("%s of %zu bytes at %s + %zu, at %s: nobody has written there", kind_name(kind), bytes,
                       region.name.c_str(), offset, at_site(site).c_str()));
  }
}

void make_ready_for_block(Region& region) {
  region.block = block_stamp;
  std::memset(region.base, poison, region.bytes);
  if (region.cells != nullptr) {
    forget_accesses(region, false);
  } else {
    make_cells(region);
  }
  if (&region == &dynamic_shared) return;
  static_bytes_of_block += region.bytes;
  const std::size_t dynamic_bytes = asked_shared_bytes > 0 ? asked_shared_bytes : dynamic_shared.bytes;
  if (static_bytes_of_block > most_unasked_bytes) {
    add_finding("limit", 0, 1, format("%zu bytes of static shared memory, of which a block has %zu",
                                      static_bytes_of_block, most_unasked_bytes));
  } else if (asked_shared_bytes == 0 && static_bytes_of_block + dynamic_bytes > most_unasked_bytes) {
    add_finding("limit", 0, 2,
                format("%zu bytes of static and %zu of dynamic shared memory, of which a block has %zu unless it asks",
                       static_bytes_of_block, dynamic_bytes, most_unasked_bytes));
  } else if (static_bytes_of_block + dynamic_bytes > most_shared_bytes) {
    add_finding("limit", 0, 2, format("%zu bytes of static and %zu of dynamic shared memory, of which a block has %zu",
                                      static_bytes_of_block, dynamic_bytes, most_shared_bytes));
  }
}

void report_outside(const Region& region, const char* address, std::size_t bytes, Kind kind, Site site) {
  const auto offset = address - region.base;
  add_finding("out of bounds", site, 0,
              format("%s of %zu bytes at %s %c %td (%s has %zu bytes), at %s", kind_name(kind), bytes,
                     region.name.c_str(), offset < 0 ? '-' : '+', offset < 0 ? -offset : offset, region.name.c_str(),
                     region.bytes, at_site(site).c_str()));
}

void check_region(Region& region, const char* address, std::size_t bytes, Kind kind, Site site) {
  const auto offset = static_cast<std::size_t>(address - region.base);
  if (offset >= region.bytes || bytes > region.bytes - offset) [[unlikely]] {
    report_outside(region, address, bytes, kind, site);
    return;
  }
  if (region.is_shared) {
    if (region.block != block_stamp) make_ready_for_block(region);
  } else {
    if (region.row_stride != 0 && offset % region.row_stride + bytes > region.row_bytes) [[unlikely]] {
      add_finding("out of bounds", site, 0,
                  format("%s of %zu bytes at %s + %zu, between its rows (of %zu bytes, %zu apart), at %s",
                         kind_name(kind), bytes, region.name.c_str(), offset, region.row_bytes, region.row_stride,
                         at_site(site).c_str()));
      return;
    }
    if (!region.is_writable) {
      if (kind != Kind::read) {
        add_finding("read-only", site, 0,
                    format("%s of %zu bytes at %s + %zu, which is read-only, at %s", kind_name(kind), bytes,
                           region.name.c_str(), offset, at_site(site).c_str()));
      }
      return;  // nobody writes: no race
    }
  }
  check_cells(region, offset, bytes, kind, site);
}

[[noreturn]] void report_wild(const void* address, std::size_t bytes, Kind kind, Site site, const char* whose) {
  add_finding("out of bounds", site, 0,
              format("%s of %zu bytes at address %p, %s, at %s", kind_name(kind), bytes, address, whose,
                     at_site(site).c_str()));
  stop_launch();
}

void find_shared_arrays() {
  if (!array_of_word.empty()) return;
  for (const SharedArray& array : symbols().shared_arrays) {
    shared_segment_bytes = std::max(shared_segment_bytes, static_cast<std::size_t>(array.offset) + array.bytes);
  }
  array_of_word.assign(shared_segment_bytes + 1, 0);
  for (const SharedArray& array : symbols().shared_arrays) {
    auto region = std::make_unique<Region>();
    region->name = array.name;
    region->bytes = array.bytes;
    region->is_shared = true;
    region->is_initialised = false;
    shared_arrays.push_back(std::move(region));
    const auto index = static_cast<std::uint16_t>(shared_arrays.size());
    std::fill_n(array_of_word.begin() + array.offset, array.bytes, index);
  }
}

void check_program_data(const void* address, std::size_t bytes, Kind kind, Site site) {
  const Symbols& s = symbols();
  const auto at = reinterpret_cast<std::uintptr_t>(address);
  if (at - arguments_low < arguments_size && kind == Kind::read) return;
  if (at - s.data_low < s.data_high - s.data_low) {
    if (kind == Kind::read && !(at >= s.writable_low && at < s.writable_high)) return;
    report_wild(address, bytes, kind, site, "in the program's own data: kernels have no global variables here");
  }
  report_wild(address, bytes, kind, site, at < 4096 ? "a null pointer" : "which is in no buffer of this launch");
}

}  // namespace

void check_access(const void* address, std::size_t bytes, Kind kind, Site site) {
  const auto at = reinterpret_cast<std::uintptr_t>(address);
  if (at - current->stack_low < stack_bytes) return;
  if (--accesses_left == 0) [[unlikely]] {
    add_finding("endless", site, 0,
                format("%llu accesses, and no end, at %s: does it wait for another block?",
                       static_cast<unsigned long long>(access_budget), at_site(site).c_str()));
    stop_launch();
  }
  const auto* place = static_cast<const char*>(address);
  const auto slot = static_cast<std::size_t>(place - arena) / slot_bytes;
  if (slot < slots) [[likely]] {
    if (Region* region = region_of_slot[slot]; region != nullptr) {
      check_region(*region, place, bytes, kind, site);
      return;
    }
  } else if (const auto offset = static_cast<std::size_t>(place - shared_low); offset < shared_segment_bytes) {
    auto array = array_of_word[offset];
    if (array == 0) {  // between two: say which one it is beyond
      auto before = offset;
      while (before > 0 && array_of_word[before] == 0) --before;
      array = array_of_word[before];
    }
    if (array != 0) {
      check_region(*shared_arrays[array - 1], place, bytes, kind, site);
      return;
    }
  }
  check_program_data(address, bytes, kind, site);
}

void check_atomic(const void* address, std::size_t bytes, Site site) {
  const auto at = reinterpret_cast<std::uintptr_t>(address);
  if (at % bytes != 0) {
    add_finding("misaligned", site, 0, format("atomic of %zu bytes at an address that is no multiple of it, at %s",
                                              bytes, at_site(site).c_str()));
  }
  check_access(address, bytes, Kind::atomic, site);
  auto& location = locations[at];
  if (location == nullptr) location = std::make_unique<Location>();
  join_acquired(current->acquired, {{location.get(), location->releases.size()}});
  const Fence& fence = current->fence;
  if (!fence.is_set) return;
  Release release{block_of(block_stamp), fence.epoch, current->thread / lanes_of_warp, fence.of_device, {}, {}};
  std::copy(std::begin(fence.lanes), std::end(fence.lanes), release.lanes);
  release.acquired = current->acquired;
  join_acquired(release.acquired, acquired_by_block);
  location->releases.push_back(std::move(release));
}

void join_acquired(std::vector<Acquired>& into, const std::vector<Acquired>& from) {
  for (const Acquired& more : from) {
    if (more.count == 0) continue;
    const auto same =
        std::find_if(into.begin(), into.end(), [&](const Acquired& a) { return a.location == more.location; });
    if (same == into.end()) {
      into.push_back(more);
    } else {
      same->count = std::max(same->count, more.count);
    }
  }
}

void start_launch_memory(const void* arguments, std::size_t arguments_bytes, std::size_t shared_bytes,
                         std::size_t asked_bytes) {
  asked_shared_bytes = asked_bytes;
  find_shared_arrays();
  // Another OS thread than the last time has another thread-local segment.
  shared_low = symbols().thread_local_base();
  for (std::size_t i = 0; i < shared_arrays.size(); ++i) {
    shared_arrays[i]->base = shared_low + symbols().shared_arrays[i].offset;
    shared_arrays[i]->block = 0;
  }
  arguments_low = reinterpret_cast<std::uintptr_t>(arguments);
  arguments_size = arguments_bytes;
  accesses_left = access_budget;
  std::free(dynamic_shared.cells);
  dynamic_shared.cells = nullptr;
  dynamic_shared.name = "dynamic shared memory";
  dynamic_shared.bytes = shared_bytes;
  dynamic_shared.is_shared = true;
  dynamic_shared.is_initialised = false;
  dynamic_shared.granule = 4;
  dynamic_shared.block = 0;
}

void start_block_memory() {
  static_bytes_of_block = 0;
  acquired_by_block.clear();
}

void end_launch_memory() {
  for (auto& buffer : buffers) {
    if (buffer->is_touched) forget_accesses(*buffer, true);
    buffer->is_touched = false;
  }
  for (auto& array : shared_arrays) {
    if (array->block != 0) forget_accesses(*array, false);
    array->block = 0;
  }
  if (dynamic_shared.cells != nullptr) forget_accesses(dynamic_shared, false);
  read_sets.clear();
  free_sets.clear();
  locations.clear();
}

void set_access_budget(std::uint64_t accesses) { access_budget = accesses == 0 ? default_access_budget : accesses; }

namespace {

void make_arena() {
  if (arena != nullptr) return;
  void* all = mmap(nullptr, (slots + 1) * slot_bytes, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (all == MAP_FAILED) std::abort();
  const auto start = (reinterpret_cast<std::uintptr_t>(all) + slot_bytes - 1) / slot_bytes * slot_bytes;
  arena = reinterpret_cast<char*>(start);
  region_of_slot.assign(slots, nullptr);
  region_of_slot[slots - 1] = &dynamic_shared;
  dynamic_shared.base = arena + (slots - 1) * slot_bytes + margin_bytes;
}

Region* region_at(const char* place) {
  const auto slot = static_cast<std::size_t>(place - arena) / slot_bytes;
  return arena != nullptr && slot < slots ? region_of_slot[slot] : nullptr;
}

}  // namespace

void* dynamic_shared_memory() {
  make_arena();  // where nothing is checked, nobody has made buffers in it
  return dynamic_shared.base;
}

bool clear_memory(void* to, std::size_t bytes) {
  if constexpr (!is_checked) {
    std::memset(to, 0, bytes);
    return true;
  }
  auto* place = static_cast<char*>(to);
  Region* region = region_at(place);
  if (region == nullptr) {
    add_finding("out of bounds", 0, 0, format("clear of %zu bytes at %p, which is in no buffer", bytes, to));
    return false;
  }
  const auto offset = static_cast<std::size_t>(place - region->base);
  if (offset > region->bytes || bytes > region->bytes - offset || !region->is_writable) {
    add_finding("out of bounds", 0, 0,
                format("clear of %zu bytes at %s + %td (%s has %zu bytes%s)", bytes, region->name.c_str(),
                       place - region->base, region->name.c_str(), region->bytes,
                       region->is_writable ? "" : ", read-only"));
    return false;
  }
  std::memset(to, 0, bytes);
  make_cells(*region);
  if (((offset | bytes) & (region->granule - 1)) != 0) refine(*region, 1);
  for (auto i = offset / region->granule; i < (offset + bytes) / region->granule; ++i) {
    region->cells[i].write = earlier;
  }
  return true;
}

}  // namespace datahall::execution

#define EXPORTED extern "C" __attribute__((visibility("default")))

using namespace datahall::execution;

// A buffer of `bytes` bytes for kernels, `misaligned_by` bytes beyond a multiple of 256; null if there is no room left.
EXPORTED void* datahall_cpu_buffer(const char* name, std::size_t bytes, unsigned element_bytes, int is_writable,
                                   int is_initialised, std::size_t misaligned_by, std::size_t row_bytes,
                                   std::size_t row_stride) {
  make_arena();
  const std::size_t taken = (bytes + misaligned_by + 2 * margin_bytes + slot_bytes - 1) / slot_bytes;
  if (next_slot + taken > slots - 1) return nullptr;
  auto region = std::make_unique<Region>();
  region->name = name;
  region->base = arena + next_slot * slot_bytes + margin_bytes + misaligned_by;
  region->bytes = bytes;
  region->row_bytes = row_bytes;
  region->row_stride = row_stride;
  region->is_writable = is_writable != 0;
  region->is_initialised = is_initialised != 0;
  region->granule = element_bytes >= 4 ? 4 : element_bytes >= 2 ? 2 : 1;
  std::memset(region->base - 64, poison, bytes + 128);
  std::fill_n(region_of_slot.begin() + static_cast<std::ptrdiff_t>(next_slot), taken, region.get());
  next_slot += taken;
  buffers.push_back(std::move(region));
  return buffers.back()->base;
}

// The first byte of a buffer that no kernel has written (nor `clear`), or -1.
EXPORTED long long datahall_cpu_first_unwritten(const void* buffer) {
  const Region* region = region_at(static_cast<const char*>(buffer));
  if (region == nullptr) return -1;
  for (std::size_t i = 0; i < region->cell_count(); ++i) {
    const auto offset = i * region->granule;
    const bool is_between_rows = region->row_stride != 0 && offset % region->row_stride >= region->row_bytes;
    if (!is_between_rows && (region->cells == nullptr || region->cells[i].write == 0)) {
      return static_cast<long long>(offset);
    }
  }
  return -1;
}

// Gives all buffers back, and forgets all findings.
EXPORTED void datahall_cpu_reset() {
  for (auto& buffer : buffers) std::free(buffer->cells);
  buffers.clear();
  if (arena != nullptr) {
    madvise(arena, next_slot * slot_bytes, MADV_DONTNEED);
    std::fill_n(region_of_slot.begin(), next_slot, nullptr);
  }
  next_slot = 0;
  forget_findings();
}
