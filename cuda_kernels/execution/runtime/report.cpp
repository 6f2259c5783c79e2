#include "report.h"

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <vector>

#include "block.h"
#include "symbols.h"

namespace datahall::execution {
namespace {

constexpr std::size_t most_findings = 64;

struct Finding {
  std::string kind;
  Site site;
  Site other;
  const void* kernel;
  std::string where;
  std::string text;
  unsigned long long count;
};

std::vector<Finding> findings;
unsigned long long not_kept = 0;

}  // namespace

Site site_of(const void* code) {
  return static_cast<Site>(reinterpret_cast<std::uintptr_t>(code) - symbols().load_address);
}

std::string at_site(Site site) { return format("@%x@", site); }

std::string format(const char* pattern, ...) {
  char text[1024];
  va_list arguments;
  va_start(arguments, pattern);
  std::vsnprintf(text, sizeof text, pattern, arguments);
  va_end(arguments);
  return text;
}

void add_finding(const char* kind, Site site, Site other, const std::string& text) {
  for (auto& finding : findings) {
    if (finding.site == site && finding.other == other && finding.kernel == running_kernel && finding.kind == kind) {
      ++finding.count;
      return;
    }
  }
  if (findings.size() == most_findings) {
    ++not_kept;
    return;
  }
  std::string where;
  if (running_kernel != nullptr) {
    where = format("block (%u, %u, %u)", block_index.x, block_index.y, block_index.z);
    if (current != nullptr) {
      where += format(", thread (%u, %u, %u)", current->index.x, current->index.y, current->index.z);
    }
  }
  findings.push_back({kind, site, other, running_kernel, where, text, 1});
}

bool has_findings() {
  const auto counts = [](const Finding& finding) { return finding.kind != barrier_lines; };
  return not_kept != 0 || std::any_of(findings.begin(), findings.end(), counts);
}

void forget_findings() {
  findings.clear();
  not_kept = 0;
}

}  // namespace datahall::execution

// All findings, one a line: kind, count, kernel, where, text, with tabs between. Returns the bytes that it takes.
extern "C" __attribute__((visibility("default"))) std::size_t datahall_cpu_findings(char* to, std::size_t room) {
  using namespace datahall::execution;
  std::string all;
  for (const auto& finding : findings) {
    all += finding.kind + "\t" + std::to_string(finding.count) + "\t";
    all += finding.kernel == nullptr ? "" : symbols().function_name(finding.kernel);
    all += "\t" + finding.where + "\t" + finding.text + "\n";
  }
  if (not_kept != 0) all += "more\t" + std::to_string(not_kept) + "\t\t\tmore findings, not kept\n";
  if (room > all.size()) std::memcpy(to, all.c_str(), all.size() + 1);
  return all.size() + 1;
}
