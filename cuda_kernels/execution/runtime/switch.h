// Switching between stacks: what a call has to keep is kept on the stack that is left.
#pragma once

#include <cstdint>

extern "C" void datahall_cpu_switch(void** left, void* entered);

namespace datahall::execution {

#if defined(__x86_64__)

// rbp, rbx, r12 to r15, and where to go on.
inline void* first_stack_pointer(char* top, void (*start)()) {
  auto at = reinterpret_cast<std::uintptr_t>(top) & ~std::uintptr_t{15};
  auto* words = reinterpret_cast<std::uintptr_t*>(at);
  *--words = 0;  // `start` finds the stack as a call leaves it
  *--words = reinterpret_cast<std::uintptr_t>(start);
  for (int i = 0; i < 6; ++i) *--words = 0;
  return words;
}

#elif defined(__aarch64__)

// x19 to x30, d8 to d15.
inline void* first_stack_pointer(char* top, void (*start)()) {
  auto at = reinterpret_cast<std::uintptr_t>(top) & ~std::uintptr_t{15};
  auto* words = reinterpret_cast<std::uintptr_t*>(at) - 20;
  for (int i = 0; i < 20; ++i) words[i] = 0;
  words[11] = reinterpret_cast<std::uintptr_t>(start);  // x30
  return words;
}

#else
#error "datahall: the CPU execution layer switches stacks on x86-64 and aarch64 only; add the switch to switch.h"
#endif

}  // namespace datahall::execution
