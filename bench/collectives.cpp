// All-reduce between rank processes of this host, in the sizes of the goals. bench/collectives.py runs it beside its peers.
#include <cstdlib>
#include <mutex>

#include "comm/rank_processes.h"
#include "core/shared_memory.h"
#include "peers/timing.h"

namespace {

timing::Result measure(tandem::Group& group, std::size_t bytes) {
  const std::int64_t dims[] = {static_cast<std::int64_t>(bytes / 4)};
  tandem::CollectiveCall call = {.kind = tandem::Collective::all_reduce, .reduction = tandem::Reduction::sum, .dims = dims};
  return timing::measure(
      bytes, group.rank(), group.size(), timing::kBatches,
      [&](const std::vector<float>& in, std::vector<float>& out) {
        call.in = in.data();
        call.out = out.data();
        group.run(call);
      },
      [&] { group.exchange({}); });
}

}  // namespace

int main(int argc, char** argv) {
  const int ranks = argc > 1 ? std::atoi(argv[1]) : 2;
  try {
    tandem::run_rank_processes(ranks, [&](tandem::Group& group) {
      for (const std::size_t bytes : timing::kSizes) {
        const timing::Result mine = measure(group, bytes);
        std::vector<timing::Result> all(static_cast<std::size_t>(ranks));
        const auto blobs = group.exchange(std::as_bytes(std::span(&mine, 1)));
        for (std::size_t r = 0; r < blobs.size(); ++r) std::memcpy(&all[r], blobs[r].data(), sizeof mine);
        if (group.rank() == 0) timing::print_json("tandem", ranks, bytes, timing::worst(all));
      }
    });
  } catch (const tandem::Error& error) {
    std::fprintf(stderr, "bench_collectives: %s\n", error.what());
    return 1;
  }
}
