// What was found wrong in a launch. Places in the code are written @hex@, an offset into the library, and made a file
// and line by whoever reads the report: addr2line costs more than a launch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace datahall::execution {

// An offset into the library's code; as much of it as has to be kept for each byte of memory.
using Site = std::uint32_t;

Site site_of(const void* code);
std::string at_site(Site site);

// Adds a finding of the running thread, or of no thread where none runs. What differs from an earlier one only in the
// thread that it happened to is counted with it.
void add_finding(const char* kind, Site site, Site other, const std::string& text);

// The kind of a barrier that others wait for at another place in the code, which is none if both are one line: loops are
// unrolled. Who reads the report knows the lines, and says.
inline constexpr const char* barrier_lines = "barrier lines";

// Whether there are any that do not wait for the reader's judgement.
bool has_findings();
void forget_findings();

std::string format(const char* pattern, ...) __attribute__((format(printf, 1, 2)));

}  // namespace datahall::execution
