// Ends a launch in which nothing happens: a loop without an access to memory calls nobody who could count.
#pragma once

namespace datahall::execution {

void set_watch(long long of_milliseconds);
void start_watch();
void end_watch();

}  // namespace datahall::execution
