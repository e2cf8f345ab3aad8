// Gloo's all-reduce over TCP on this host, measured as bench/collectives.cpp measures ours: one process per rank, RANK SIZE FOLDER.
#include <gloo/allreduce.h>
#include <gloo/barrier.h>
#include <gloo/gather.h>
#include <gloo/math.h>
#include <gloo/rendezvous/context.h>
#include <gloo/rendezvous/file_store.h>
#include <gloo/transport/tcp/device.h>

#include <cstdlib>

#include "timing.h"

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  const int rank = std::atoi(argv[1]), ranks = std::atoi(argv[2]);
  gloo::rendezvous::FileStore store(argv[3]);
  auto device = gloo::transport::tcp::CreateDevice(gloo::transport::tcp::attr("127.0.0.1"));
  auto context = std::make_shared<gloo::rendezvous::Context>(rank, ranks);
  context->connectFullMesh(store, device);
  for (const std::size_t bytes : timing::kSizes) {
    const timing::Result mine = timing::measure(
        bytes, rank, ranks, timing::kBatches,
        [&](const std::vector<float>& in, std::vector<float>& out) {
          gloo::AllreduceOptions options(context);
          options.setInput(const_cast<float*>(in.data()), in.size());
          options.setOutput(out.data(), out.size());
          options.setReduceFunction([](void* to, const void* a, const void* b, std::size_t n) { gloo::sum<float>(to, a, b, n); });
          gloo::allreduce(options);
        },
        [&] {
          gloo::BarrierOptions options(context);
          gloo::barrier(options);
        },
        20);
    std::vector<timing::Result> all(static_cast<std::size_t>(ranks));
    gloo::GatherOptions options(context);
    options.setInput(reinterpret_cast<char*>(const_cast<timing::Result*>(&mine)), sizeof mine);
    if (rank == 0) options.setOutput(reinterpret_cast<char*>(all.data()), sizeof mine * all.size());
    options.setRoot(0);
    gloo::gather(options);
    if (rank == 0) timing::print_json("gloo", ranks, bytes, timing::worst(all));
  }
}
