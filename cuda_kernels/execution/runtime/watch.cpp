// Ends a launch in which nothing happens: a loop without an access to memory calls nobody who could count.
#include "watch.h"

#include <csignal>
#include <ctime>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "block.h"

namespace datahall::execution {
namespace {

constexpr long long nanoseconds_of_millisecond = 1'000'000;
long long milliseconds = 0;
timer_t timer;
std::uint64_t accesses_before = 0;
std::uint64_t switches_before = 0;

Site place_of(const void* context) {
  const auto& machine = static_cast<const ucontext_t*>(context)->uc_mcontext;
#if defined(__x86_64__)
  const auto at = static_cast<std::uintptr_t>(machine.gregs[REG_RIP]);
#else
  const auto at = static_cast<std::uintptr_t>(machine.pc);
#endif
  return site_of(reinterpret_cast<const void*>(at + 1));
}

// Comes on the running thread's stack, which is left for good. That is safe because nothing has been called for a
// whole interval: no lock is held.
void look(int, siginfo_t*, void* context) {
  const bool stands = current != nullptr && accesses_left == accesses_before && switches == switches_before;
  accesses_before = accesses_left;
  switches_before = switches;
  if (!stands) return;
  const Site site = place_of(context);
  add_finding("endless", site, 0,
              format("neither an access nor a barrier for %lld ms, at %s: is it a loop without end?", milliseconds,
                     at_site(site).c_str()));
  stop_launch();
}

void set_timer(long long nanoseconds) {
  itimerspec interval{};
  interval.it_value = {nanoseconds / 1'000'000'000, nanoseconds % 1'000'000'000};
  interval.it_interval = interval.it_value;
  timer_settime(timer, 0, &interval, nullptr);
}

}  // namespace

void set_watch(long long of_milliseconds) { milliseconds = of_milliseconds; }

// Of this thread's own time, so that a busy machine ends nothing.
void start_watch() {
  struct sigaction action {};
  action.sa_sigaction = look;
  action.sa_flags = SA_SIGINFO | SA_RESTART | SA_NODEFER;
  sigaction(SIGVTALRM, &action, nullptr);
  sigevent event{};
  event.sigev_notify = SIGEV_THREAD_ID;
  event.sigev_signo = SIGVTALRM;
#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif
  event.sigev_notify_thread_id = static_cast<pid_t>(syscall(SYS_gettid));
  timer_create(CLOCK_THREAD_CPUTIME_ID, &event, &timer);
  accesses_before = accesses_left;
  switches_before = switches;
  set_timer(milliseconds * nanoseconds_of_millisecond);
}

void end_watch() { timer_delete(timer); }

}  // namespace datahall::execution
