#include "block.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <numeric>
#include <unordered_map>

#include "switch.h"
#include "watch.h"

namespace datahall::execution {

Fibre* current = nullptr;
Triple block_index;
Triple block_shape;
Triple grid_shape;
Stamp block_stamp = 0;
std::uint32_t epoch = 0;
const void* running_kernel = nullptr;
std::uint64_t switches = 0;

namespace {

constexpr std::size_t guard_bytes = 4096;
constexpr unsigned whole_warp = 0xffffffffu;
constexpr unsigned long long no_value = 0x7fffdeadffffdeadULL;  // NaN in its upper half and in the lower

// Lanes of a warp that meet: at one intrinsic, with one mask.
struct Group {
  int kind = 0;
  unsigned mask = 0;
  unsigned arrived = 0;
  Site site = 0;
  unsigned long long values[lanes_of_warp] = {};
  int operands[lanes_of_warp] = {};
  int widths[lanes_of_warp] = {};
};

struct Warp {
  unsigned lanes = 0;  // that the block has
  unsigned alive = 0;
  std::vector<Group> groups;  // mask 0: free
};

enum Meeting : int {
  warp_barrier = 1,
  match = 2,
  shuffle = 10,  // + how
  vote = 20,     // + how
  reduce = 30,   // + how
};

char* stacks = nullptr;
Fibre fibres[most_threads];
Warp warps[most_threads / lanes_of_warp];
unsigned threads = 0;
unsigned ended = 0;
unsigned at_barrier = 0;
int barrier_kind = 0;
Site barrier_site = 0;
unsigned barrier_count = 0;
std::deque<Fibre*> queue;
void* main_stack_pointer = nullptr;
bool is_stopped = false;
void (*body)(const void*) = nullptr;
const void* body_arguments = nullptr;
Order order = Order::forward;
std::uint64_t seed = 0;
std::uint64_t random_state = 0;

std::uint64_t random_number() {  // splitmix64 (Steele, Lea and Flood, 2014)
  std::uint64_t z = random_state += 0x9e3779b97f4a7c15ULL;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
  return z ^ (z >> 31);
}

template <typename Iterator>
void put_in_order(Iterator begin, Iterator end) {
  if (order == Order::reverse) std::reverse(begin, end);
  if (order == Order::shuffled) {
    for (auto left = end - begin; left > 1; --left) {
      std::swap(begin[left - 1], begin[static_cast<std::ptrdiff_t>(random_number() % static_cast<unsigned>(left))]);
    }
  }
}

void switch_to(Fibre* next) {
  Fibre* from = current;
  if (next == from) return;
  ++switches;
  current = next;
  datahall_cpu_switch(&from->stack_pointer, next->stack_pointer);
}

[[noreturn]] void leave_block() {
  current = nullptr;
  void* dropped = nullptr;
  datahall_cpu_switch(&dropped, main_stack_pointer);
  std::abort();
}

// Runs whoever is next in line; back to the launch when nobody is.
void run_next() {
  if (queue.empty()) leave_block();
  Fibre* next = queue.front();
  queue.pop_front();
  switch_to(next);
}

std::string name_of_meeting(int kind) {
  static const char* const shuffles[] = {"__shfl_sync", "__shfl_up_sync", "__shfl_down_sync", "__shfl_xor_sync"};
  static const char* const votes[] = {"__ballot_sync", "__any_sync", "__all_sync"};
  if (kind >= reduce) return kind == reduce ? "__reduce_add_sync" : kind % 2 == 1 ? "__reduce_max_sync" : "__reduce_min_sync";
  if (kind >= vote) return votes[kind - vote];
  if (kind >= shuffle) return shuffles[kind - shuffle];
  return kind == match ? "__match_any_sync" : "__syncwarp";
}

void make_stamp(Fibre& fibre) {
  fibre.stamp = block_stamp | Stamp{epoch} << epoch_at | Stamp{fibre.clock} << clock_at | fibre.thread;
}

// All that wait go on. What each did before comes before all that any of them does from now on.
void release_barrier() {
  ++epoch;
  if (epoch >> epoch_bits != 0) {
    add_finding("limit", barrier_site, 0, "more barriers in a block than can be told apart here");
    stop_launch();
  }
  at_barrier = 0;
  Fibre* released[most_threads];
  unsigned count = 0;
  for (unsigned i = 0; i < threads; ++i) {
    Fibre& fibre = fibres[i];
    if (fibre.state != State::at_barrier) continue;
    if (!fibre.acquired.empty()) {
      join_acquired(acquired_by_block, fibre.acquired);
      fibre.acquired.clear();
    }
    fibre.state = State::ready;
    fibre.clock = 1;
    std::memset(fibre.known, 0, sizeof fibre.known);
    make_stamp(fibre);
    fibre.result = barrier_kind == 0   ? barrier_count != 0
                   : barrier_kind == 1 ? barrier_count == threads - ended
                                       : barrier_count;
    released[count++] = &fibre;
  }
  put_in_order(released, released + count);
  queue.insert(queue.end(), released, released + count);
}

bool release_barrier_if_complete() {
  if (at_barrier == 0 || at_barrier + ended != threads) return false;
  if (ended != 0) {
    add_finding("barrier", barrier_site, 0,
                format("%u of %u threads wait at the barrier at %s, and the others have ended without it", at_barrier,
                       threads, at_site(barrier_site).c_str()));
  }
  release_barrier();
  return true;
}

int wait_at_barrier(int kind, bool predicate, Site site) {
  Fibre& me = *current;
  if (at_barrier == 0) {
    barrier_kind = kind;
    barrier_site = site;
    barrier_count = 0;
  } else if (kind != barrier_kind) {
    add_finding("barrier", site, barrier_site,
                format("__syncthreads of one kind at %s while others wait at one of another kind at %s",
                       at_site(site).c_str(), at_site(barrier_site).c_str()));
  } else if (site != barrier_site) {
    add_finding(barrier_lines, site, barrier_site,
                format("waits at the barrier at %s while others wait at the one at %s", at_site(site).c_str(),
                       at_site(barrier_site).c_str()));
  }
  barrier_count += predicate ? 1 : 0;
  ++at_barrier;
  me.state = State::at_barrier;
  me.waits_at = site;
  release_barrier_if_complete();
  run_next();
  return static_cast<int>(me.result);
}

unsigned lane_of(const Fibre& fibre) { return fibre.thread % lanes_of_warp; }
Warp& warp_of(const Fibre& fibre) { return warps[fibre.thread / lanes_of_warp]; }
Fibre& fibre_of(const Warp& warp, unsigned lane) {
  return fibres[static_cast<unsigned>(&warp - warps) * lanes_of_warp + lane];
}

template <typename Do>
void for_lanes(unsigned mask, Do what) {
  for (; mask != 0; mask &= mask - 1) what(static_cast<unsigned>(__builtin_ctz(mask)));
}

unsigned long long shuffled(const Group& group, unsigned lane, Site site) {
  const unsigned width = static_cast<unsigned>(group.widths[lane]);
  const auto operand = static_cast<unsigned>(group.operands[lane]);
  if (width == 0 || width > lanes_of_warp || (width & (width - 1)) != 0) {
    add_finding("shuffle", site, 0, format("width %d is no power of two up to 32, at %s", group.widths[lane],
                                           at_site(site).c_str()));
    return no_value;
  }
  const unsigned first = lane & ~(width - 1);
  const unsigned last = first + width - 1;
  unsigned from = lane;
  switch (group.kind - shuffle) {
    case 0:
      from = first | (operand & (width - 1));
      break;
    case 1:
      if (operand <= lane - first) from = lane - operand;
      break;
    case 2:
      if (operand <= last - lane) from = lane + operand;
      break;
    default:
      if ((lane ^ operand) <= last) from = lane ^ operand;
  }
  if ((group.arrived >> from & 1u) == 0) {
    add_finding("shuffle", site, 0,
                format("lane %u reads lane %u, which is not in the mask 0x%x or has ended, at %s", lane, from,
                       group.mask, at_site(site).c_str()));
    return no_value;
  }
  return group.values[from];
}

unsigned reduced(const Group& group) {
  bool is_first = true;
  unsigned result = 0;
  for_lanes(group.arrived, [&](unsigned lane) {
    const auto value = static_cast<unsigned>(group.values[lane]);
    const bool is_less = group.kind - reduce >= 3 ? static_cast<int>(value) < static_cast<int>(result) : value < result;
    if (is_first) {
      result = value;
    } else if (group.kind == reduce) {
      result += value;
    } else if ((group.kind - reduce) % 2 == 1 ? !is_less : is_less) {
      result = value;
    }
    is_first = false;
  });
  return result;
}

// What the lanes of a __syncwarp did before comes before all that any of them does from now on. (Not so after other
// exchanges: CUDA promises no order of memory there.)
void order_lanes(Warp& warp, const Group& group) {
  std::uint16_t all[lanes_of_warp] = {};
  std::vector<Acquired> acquired;
  for_lanes(group.arrived, [&](unsigned lane) {
    Fibre& fibre = fibre_of(warp, lane);
    fibre.known[lane] = static_cast<std::uint16_t>(fibre.clock);
    for (unsigned i = 0; i < lanes_of_warp; ++i) all[i] = std::max(all[i], fibre.known[i]);
    join_acquired(acquired, fibre.acquired);
  });
  for_lanes(group.arrived, [&](unsigned lane) {
    Fibre& fibre = fibre_of(warp, lane);
    std::copy(std::begin(all), std::end(all), fibre.known);
    fibre.acquired = acquired;
    next_clock(fibre);
  });
}

void resolve(Warp& warp, Group& group) {
  if (group.kind == warp_barrier) order_lanes(warp, group);
  unsigned trues = 0;
  for_lanes(group.arrived, [&](unsigned lane) { trues |= (group.values[lane] != 0 ? 1u : 0u) << lane; });
  const unsigned reduction = group.kind >= reduce ? reduced(group) : 0;
  Fibre* released[lanes_of_warp];
  unsigned count = 0;
  for_lanes(group.arrived, [&](unsigned lane) {
    Fibre& fibre = fibre_of(warp, lane);
    if (group.kind >= reduce) {
      fibre.result = reduction;
    } else if (group.kind >= vote) {
      fibre.result = group.kind == vote       ? trues
                     : group.kind == vote + 1 ? (trues != 0 ? 1u : 0u)
                                              : (trues == group.arrived ? 1u : 0u);
    } else if (group.kind >= shuffle) {
      fibre.result = shuffled(group, lane, fibre.waits_at);
    } else if (group.kind == match) {
      fibre.result = 0;
      for_lanes(group.arrived, [&](unsigned other) {
        if (group.values[other] == group.values[lane]) fibre.result |= 1u << other;
      });
    }
    fibre.state = State::ready;
    fibre.group = -1;
    released[count++] = &fibre;
  });
  group.mask = 0;
  put_in_order(released, released + count);
  // A warp goes on before the others, unless the order is to be any.
  if (order == Order::shuffled && random_number() % 2 == 0) {
    queue.insert(queue.end(), released, released + count);
  } else {
    queue.insert(queue.begin(), released, released + count);
  }
}

void resolve_if_complete(Warp& warp, Group& group) {
  if (group.mask != 0 && group.arrived != 0 && group.arrived == (group.mask & warp.alive)) resolve(warp, group);
}

unsigned long long meet(int kind, unsigned mask, unsigned long long value, int operand, int width, Site site) {
  Fibre& me = *current;
  Warp& warp = warp_of(me);
  const unsigned lane = lane_of(me);
  if ((mask >> lane & 1u) == 0) {
    add_finding("mask", site, 0, format("%s with mask 0x%x by lane %u, which is not in it, at %s",
                                        name_of_meeting(kind).c_str(), mask, lane, at_site(site).c_str()));
    return no_value;
  }
  if ((mask & ~warp.alive) != 0) {
    const unsigned absent = mask & ~warp.alive;
    const bool never_was = (absent & ~warp.lanes) != 0;
    add_finding("mask", site, never_was ? 1 : 2,
                format("%s with mask 0x%x, at %s: lanes 0x%x %s", name_of_meeting(kind).c_str(), mask,
                       at_site(site).c_str(), never_was ? absent & ~warp.lanes : absent,
                       never_was ? "are not there: the block has fewer threads" : "have ended"));
  }
  int index = -1;
  for (unsigned i = 0; i < warp.groups.size(); ++i) {
    Group& group = warp.groups[i];
    if (group.mask == mask && group.kind == kind) index = static_cast<int>(i);
  }
  for (unsigned i = 0; index < 0 && i < warp.groups.size(); ++i) {
    if (warp.groups[i].mask == 0) index = static_cast<int>(i);
  }
  if (index < 0) {
    index = static_cast<int>(warp.groups.size());
    warp.groups.emplace_back();
  }
  Group& group = warp.groups[static_cast<unsigned>(index)];
  if (group.mask == 0) {
    group.kind = kind;
    group.mask = mask;
    group.arrived = 0;
    group.site = site;
  }
  group.arrived |= 1u << lane;
  group.values[lane] = value;
  group.operands[lane] = operand;
  group.widths[lane] = width;
  me.state = State::in_warp;
  me.waits_at = site;
  me.group = index;
  resolve_if_complete(warp, group);
  run_next();
  return me.result;
}

// The running thread is at its end: those that wait for it are told, and go on without it, as on a device.
[[noreturn]] void end_thread() {
  Fibre& me = *current;
  Warp& warp = warp_of(me);
  const unsigned lane = lane_of(me);
  me.state = State::ended;
  ++ended;
  warp.alive &= ~(1u << lane);
  for (auto& group : warp.groups) {
    if ((group.mask >> lane & 1u) == 0) continue;
    add_finding("mask", group.site, 2,
                format("%s with mask 0x%x, at %s: lane %u has ended without it", name_of_meeting(group.kind).c_str(),
                       group.mask, at_site(group.site).c_str(), lane));
    resolve_if_complete(warp, group);
  }
  release_barrier_if_complete();
  run_next();
  std::abort();
}

extern "C" void datahall_cpu_run_thread() {
  body(body_arguments);
  end_thread();
}

void prepare_fibre(unsigned thread) {
  Fibre& fibre = fibres[thread];
  fibre.thread = thread;
  fibre.index = {thread % block_shape.x, thread / block_shape.x % block_shape.y, thread / block_shape.x / block_shape.y};
  char* low = stacks + thread * (stack_bytes + guard_bytes) + guard_bytes;
  fibre.stack_low = reinterpret_cast<std::uintptr_t>(low);
  // Not at the same place of each stack, which the processor's cache would have few lines for.
  fibre.stack_pointer = first_stack_pointer(low + stack_bytes - 64 - (thread % 61) * 64, datahall_cpu_run_thread);
  fibre.state = State::ready;
  fibre.group = -1;
  fibre.clock = 1;
  std::memset(fibre.known, 0, sizeof fibre.known);
  fibre.acquired.clear();
  fibre.fence.is_set = false;
  make_stamp(fibre);
}

void make_stacks() {
  if (stacks != nullptr) return;
  const std::size_t each = stack_bytes + guard_bytes;
  void* all = mmap(nullptr, most_threads * each, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                   -1, 0);
  if (all == MAP_FAILED) std::abort();
  stacks = static_cast<char*>(all);
  for (unsigned i = 0; i < most_threads; ++i) mprotect(stacks + i * each, guard_bytes, PROT_NONE);
}

// Nobody can go on: says who waits where.
void report_deadlock() {
  std::string text = "nobody can go on:";
  int told = 0;
  for (unsigned first = 0; first < threads && told < 6;) {
    const Fibre& fibre = fibres[first];
    unsigned last = first;
    while (last + 1 < threads && fibres[last + 1].state == fibre.state && fibres[last + 1].waits_at == fibre.waits_at &&
           (fibre.state != State::in_warp ||
            (fibres[last + 1].group == fibre.group && &warp_of(fibres[last + 1]) == &warp_of(fibre)))) {
      ++last;
    }
    text += told++ == 0 ? " " : "; ";
    text += first == last ? format("thread %u ", first) : format("threads %u to %u ", first, last);
    if (fibre.state == State::at_barrier) {
      text += format("wait at the barrier at %s", at_site(fibre.waits_at).c_str());
    } else if (fibre.state == State::in_warp) {
      const Group& group = warp_of(fibre).groups[static_cast<unsigned>(fibre.group)];
      text += format("wait at %s with mask 0x%x at %s", name_of_meeting(group.kind).c_str(), group.mask,
                     at_site(fibre.waits_at).c_str());
    } else {
      text += "have ended";
    }
    first = last + 1;
  }
  if (told == 6) text += "; and so on";
  add_finding("deadlock", at_barrier != 0 ? barrier_site : 0, 0, text);
}

void run_block(std::uint64_t linear) {
  block_index = {static_cast<unsigned>(linear % grid_shape.x),
                 static_cast<unsigned>(linear / grid_shape.x % grid_shape.y),
                 static_cast<unsigned>(linear / grid_shape.x / grid_shape.y)};
  block_stamp = static_cast<Stamp>(linear + 1) << block_at;
  epoch = 0;
  ended = 0;
  at_barrier = 0;
  start_block_memory();
  queue.clear();
  for (unsigned thread = 0; thread < threads; ++thread) {
    prepare_fibre(thread);
    queue.push_back(&fibres[thread]);
  }
  put_in_order(queue.begin(), queue.end());
  for (unsigned first = 0; first < threads; first += lanes_of_warp) {
    Warp& warp = warps[first / lanes_of_warp];
    warp.lanes = threads - first >= lanes_of_warp ? whole_warp : (1u << (threads - first)) - 1u;
    warp.alive = warp.lanes;
    for (Group& group : warp.groups) group.mask = 0;
  }
  Fibre* first = queue.front();
  queue.pop_front();
  current = first;
  datahall_cpu_switch(&main_stack_pointer, first->stack_pointer);
  if (!is_stopped && ended != threads) report_deadlock();
}

// Dynamic shared memory that kernels have asked for; 0: they have not.
std::unordered_map<const void*, std::size_t> asked_shared;

bool check_shape(const unsigned* grid, const unsigned* block, std::size_t shared_bytes) {
  std::string wrong;
  const auto limit = [&](const char* what, std::uint64_t value, std::uint64_t least, std::uint64_t most) {
    if (value < least || value > most) {
      wrong += format("%s%s = %llu, not %llu to %llu", wrong.empty() ? "" : "; ", what,
                      static_cast<unsigned long long>(value), static_cast<unsigned long long>(least),
                      static_cast<unsigned long long>(most));
    }
  };
  limit("grid.x", grid[0], 1, 0x7fffffff);
  limit("grid.y", grid[1], 1, 65535);
  limit("grid.z", grid[2], 1, 65535);
  limit("block.x", block[0], 1, most_threads);
  limit("block.y", block[1], 1, most_threads);
  limit("block.z", block[2], 1, 64);
  limit("threads of a block", std::uint64_t{block[0]} * block[1] * block[2], 1, most_threads);
  const std::size_t asked = asked_shared[running_kernel];
  limit("dynamic shared memory that was asked for", asked, 0, most_shared_bytes);
  limit("dynamic shared memory", shared_bytes, 0, asked > 0 ? asked : most_unasked_bytes);
  if (wrong.empty()) {
    const auto blocks = static_cast<unsigned __int128>(grid[0]) * grid[1] * grid[2];
    if (blocks >= (1u << block_bits) - 1) wrong = format("more than %u blocks cannot be run here", (1u << block_bits) - 2);
  }
  if (!wrong.empty()) add_finding("limit", 0, 0, wrong);
  return wrong.empty();
}

}  // namespace

void stop_launch() {
  is_stopped = true;
  leave_block();
}

void next_clock(Fibre& fibre) {
  ++fibre.clock;
  if (fibre.clock >> clock_bits != 0) {
    add_finding("limit", fibre.waits_at, 0, "more __syncwarp between two barriers than can be told apart here");
    stop_launch();
  }
  make_stamp(fibre);
}

void set_order(Order wanted, std::uint64_t with_seed) {
  order = wanted;
  seed = with_seed;
}

}  // namespace datahall::execution

using namespace datahall::execution;

#define SITE site_of(__builtin_return_address(0))

extern "C" {

Triple datahall_cpu_thread_index() { return current->index; }
Triple datahall_cpu_block_index() { return block_index; }
Triple datahall_cpu_block_shape() { return block_shape; }
Triple datahall_cpu_grid_shape() { return grid_shape; }

void datahall_cpu_barrier() { wait_at_barrier(3, false, SITE); }
int datahall_cpu_barrier_vote(int how, int predicate) { return wait_at_barrier(how, predicate != 0, SITE); }
void datahall_cpu_warp_barrier(unsigned mask) { meet(warp_barrier, mask, 0, 0, 0, SITE); }
unsigned long long datahall_cpu_shuffle(int how, unsigned mask, unsigned long long bits, int operand, int width) {
  return meet(shuffle + how, mask, bits, operand, width, SITE);
}
unsigned datahall_cpu_vote(int how, unsigned mask, int predicate) {
  return static_cast<unsigned>(meet(vote + how, mask, predicate != 0 ? 1 : 0, 0, 0, SITE));
}
unsigned datahall_cpu_match(unsigned mask, unsigned long long bits, int) {
  return static_cast<unsigned>(meet(match, mask, bits, 0, 0, SITE));
}
unsigned datahall_cpu_reduce(int how, unsigned mask, unsigned value) {
  return static_cast<unsigned>(meet(reduce + how, mask, value, 0, 0, SITE));
}

void datahall_cpu_fence(int of_device) {
  Fibre& me = *current;
  Fence& fence = me.fence;
  fence.is_set = true;
  fence.of_device = of_device != 0;
  fence.epoch = epoch;
  std::copy(std::begin(me.known), std::end(me.known), fence.lanes);
  fence.lanes[me.thread % lanes_of_warp] = static_cast<std::uint16_t>(me.clock);
  next_clock(me);
}

void* datahall_cpu_dynamic_shared() { return dynamic_shared_memory(); }

int datahall_cpu_clear(void* to, std::size_t bytes) { return clear_memory(to, bytes) ? 0 : 1; }

void datahall_cpu_allow_shared(const void* kernel, std::size_t most) { asked_shared[kernel] = most; }

int datahall_cpu_launch(const void* kernel, void (*call)(const void*), const void* arguments,
                        std::size_t arguments_bytes, const unsigned* grid, const unsigned* block,
                        std::size_t shared_bytes) {
  running_kernel = kernel;
  current = nullptr;
  block_index = {};
  const bool is_allowed = check_shape(grid, block, shared_bytes);
  if (is_allowed) {
    make_stacks();
    grid_shape = {grid[0], grid[1], grid[2]};
    block_shape = {block[0], block[1], block[2]};
    threads = block[0] * block[1] * block[2];
    body = call;
    body_arguments = arguments;
    is_stopped = false;
    random_state = seed;
    start_launch_memory(arguments, arguments_bytes, shared_bytes, asked_shared[kernel]);
    const std::uint64_t blocks = std::uint64_t{grid[0]} * grid[1] * grid[2];
    std::vector<std::uint32_t> sequence(blocks);
    std::iota(sequence.begin(), sequence.end(), 0u);
    put_in_order(sequence.begin(), sequence.end());
    start_watch();
    for (const auto linear : sequence) {
      run_block(linear);
      if (is_stopped) break;
    }
    end_watch();
    end_launch_memory();
  }
  running_kernel = nullptr;
  constexpr int invalid_configuration = 9, launch_failure = 719;
  return !is_allowed ? invalid_configuration : has_findings() ? launch_failure : 0;
}

// Gives the stacks back until the next launch. With the page that guards each they are two thousand mappings, and a
// process has some ten thousands for all its libraries.
__attribute__((visibility("default"))) void datahall_cpu_release() {
  if (stacks != nullptr) munmap(stacks, most_threads * (stack_bytes + guard_bytes));
  stacks = nullptr;
}

__attribute__((visibility("default"))) void datahall_cpu_settings(int how, std::uint64_t seed_of_order,
                                                                  std::uint64_t accesses,
                                                                  long long milliseconds) {
  set_order(static_cast<Order>(how), seed_of_order);
  set_access_budget(accesses);
  set_watch(milliseconds);
}

}  // extern "C"
