#include "core/check.h"
#include "team/rank_link.h"

namespace tandem {

RankWorker::RankWorker(const RankStart& start) : rank_(start.rank), region_(start.region) {
  auto engine = RankEngine::load(start.plan, start.rank, start.weights);
  context_ = std::make_unique<Context>(std::move(engine), start.options);
  if (!region_) return;
  group_ = region_->attach(start.rank, Deadline::after(start.options.rendezvous_deadline));
  context_->set_communicator(group_.get());
}

RankReply RankWorker::serve(const RankRequest& request) {
  RankReply reply;
  try {
    if (request.trace)
      context_->set_step_hook([&](std::size_t step, std::int64_t begin, std::int64_t end) {
        reply.trace.push_back({static_cast<int>(step), begin, end});
      });
    else
      context_->set_step_hook({});
    context_->bind(request.symbols);
    const std::int64_t begin = monotonic_ns();
    context_->run(request.inputs, request.outputs);
    reply.nanoseconds = monotonic_ns() - begin;
  } catch (const Error& error) {
    reply.error = error;
  } catch (const std::exception& error) {
    reply.error = Error(ErrorCode::internal, error.what());
  }
  if (reply.error) {
    reply.error = reply.error->at_rank(rank_);
    if (region_) region_->abort(ErrorCode::rank_failed, rank_, reply.error->what());
  }
  context_->set_step_hook({});
  return reply;
}

}  // namespace tandem
